"""The config of one run, and the objects that it becomes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from alignzoo.config import environment, messages
from alignzoo.config.grammar import check_options, parse, searching
from alignzoo.config.registry import Registry
from alignzoo.errors import UserError
from alignzoo.setup import RunConfig

FRESH_RATE = 1e-4
logger = logging.getLogger("alignzoo")


def single(overrides: Sequence[str] = ()) -> DictConfig:
    """The config of one run, which is no pipeline's last."""
    parsed = parse(overrides)
    with searching(parsed):
        check_options(parsed)
        try:
            return _compose(overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(messages.explain(error)) from error


def instantiate(cfg: DictConfig) -> RunConfig:
    """The objects a config describes. Raises UserError where a value is out of range or missing, and for a
    metric that nobody has."""
    try:
        made = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise UserError(messages.describe(error)) from error
    run = cast(RunConfig, made)
    _check_roles(run)
    run.gold = _gold(run)
    registry = Registry(run.plugins_dir)
    run.measures = {name: registry.metric(name) for name in run.metrics}
    return run


def complete(cfg: DictConfig, choices: Mapping[str, Any], overrides: Sequence[str]) -> DictConfig:
    """What Hydra composed, resolved but for texts of the environment, with the options chosen and the keys overridden. Raises
    UserError for a key that no dataclass has."""
    with open_dict(cfg):
        cfg.override_keys = [o.get_key_element().lstrip("+~") for o in parse(overrides)]
        cfg.choices = {group: choice for group, choice in choices.items() if group.isidentifier()}
        if cfg.choices.experiment:
            cfg.choices.settings = _settings(str(choices["experiment@_global_"]))
    environment.resolve(cfg)
    messages.check_keys(cfg)
    if cfg.trainer.learning_rate is None:
        cfg.trainer.learning_rate = _learning_rate(cfg)
    return cfg


def _learning_rate(cfg: DictConfig) -> float:
    """That of fresh weights, or where those of a model are to be changed, what is known to be right for it."""
    kind: Any = OmegaConf.get_type(cfg.algorithm)
    path = cfg.model.path
    if not path or path.startswith("alignzoo://"):
        return FRESH_RATE
    rate = FRESH_RATE if cfg.peft.enabled else kind.published_rate
    source = (
        "usual for LoRA" if cfg.peft.enabled else f"published for {cfg.choices.algorithm} and all weights of a language model"
    )
    _tell_once(f"trainer.learning_rate={rate:g}, as {source}")
    return rate


@lru_cache(maxsize=64)
def _tell_once(text: str) -> None:
    logger.warning(text)


def _settings(name: str) -> str | None:
    """What sets the algorithm's values for the experiment, as EXPERIMENT/ALGORITHM; None where it runs on its defaults."""
    loader: Any = GlobalHydra.instance().config_loader()
    return name if loader.repository.config_exists(f"experiment/{name}") else None


def _compose(overrides: Sequence[str]) -> DictConfig:
    whole = hydra_compose("train", list(overrides), return_hydra_config=True)
    choices = whole.hydra.runtime.choices
    with open_dict(whole):
        del whole["hydra"]
    return complete(whole, choices, overrides)


def _check_roles(run: RunConfig) -> None:
    """A path given for a role that nothing has would be ignored."""
    known = {**run.algorithm.roles(), **run.reward.roles()}
    for name, path in run.roles.items():
        if path is not None and name not in known:
            raise UserError(f"roles.{name}={path}, but {run.choices['algorithm']} takes no {name}: leave it out")


def _gold(run: RunConfig) -> Any:
    """The judge of a run, or None. Raises UserError for one that changes while it judges."""
    gold = run.gold and run.gold.resolve(run.data)
    if gold is None and run.choices["gold"] == "task":
        raise UserError(f"gold=task, and data={run.choices['data']} brings no reward: choose another judge, or none")
    if gold is not None and (gold.roles() or gold.teaches()):
        raise UserError(f"gold={run.choices['gold']} learns while it judges: choose a reward that stays as it is")
    return gold
