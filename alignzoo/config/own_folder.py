"""`--config-dir` and `--config-name`, as Hydra's users know them: a folder of configs of one's own, and one that stands for
train.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignzoo.config import command_line
from alignzoo.config.quoting import written
from alignzoo.config.zoo_source import EXPERIMENT
from alignzoo.errors import UserError, nearest

OURS = "train"
SEARCH_PATH = "hydra.searchpath"


def with_folder(overrides: Sequence[str], folder: str | None, name: str | None) -> list[str]:
    """The overrides, with the folder to search, and the config as an experiment: what it says comes on top of train.yaml.
    Raises UserError for a folder or config that isn't there."""
    path = Path(folder or ".").expanduser().absolute()
    if not path.is_dir():
        raise UserError(f"--config-dir={folder} is not a folder")
    added = []
    if folder:
        searched = command_line.value_of(command_line.parse(overrides), SEARCH_PATH) or []
        overrides = [text for text in overrides if not text.startswith(SEARCH_PATH)]
        added = [f"{SEARCH_PATH}={written([f'file://{path}', *map(str, searched)])}"]
    if name and name.removesuffix(".yaml") != OURS:
        added.append(f"{EXPERIMENT}={_stored(path, name.removesuffix('.yaml'), [*overrides, *added])}")
    return [*added, *overrides]


def _stored(folder: Path, name: str, overrides: Sequence[str]) -> str:
    """The experiment that a config is made into. Raises UserError where it can't be."""
    parsed = command_line.parse(overrides)
    path = folder / f"{name}.yaml"
    if not path.is_file():
        near = nearest(name, [file.stem for file in folder.glob("*.yaml")])
        raise UserError(f"--config-name={name}: there is no {path}.{near} Give its folder with --config-dir=FOLDER")
    if command_line.value_of(parsed, EXPERIMENT) is not None:
        raise UserError(f"--config-name={name} takes the place of {EXPERIMENT}=: give one of them")
    with command_line.searching(parsed):
        taken = command_line.options(EXPERIMENT, parsed)
    if name in taken and f"{name}.yaml" not in ConfigStore.instance().repo.get(EXPERIMENT, {}):
        raise UserError(f"--config-name={name}: there is an experiment {name!r} already. Give the file another name")
    try:
        node = DictConfig(OmegaConf.load(path))  # which reads 1e-3 as a number, as Hydra does
        defaults = list(node.pop("defaults", []))
    except (OSError, ValueError, TypeError, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"--config-name={name}: {path} can't be read: {' '.join(str(error).split())}") from None
    whole = OmegaConf.merge({"defaults": [_on_top(item) for item in defaults if item != OURS]}, node)
    ConfigStore.instance().store(group=EXPERIMENT, name=name, node=whole, package="_global_")
    return name


def _on_top(item: object) -> object:
    """An element of a defaults list that stands beside train.yaml's own: what chooses an option there chooses another."""
    if not isinstance(item, Mapping):
        return item if item == "_self_" else f"/{item}"
    return {f"override /{str(key).removeprefix('override ').removeprefix('/')}": option for key, option in item.items()}
