"""What a run is made of, by part: written down when it begins, compared when it goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf
from transformers import PretrainedConfig

from alignzoo.common import fingerprint
from alignzoo.common.disk import write_whole
from alignzoo.common.fingerprint import Items
from alignzoo.common.folder import FINGERPRINT, read_if_whole
from alignzoo.config.code import code
from alignzoo.contracts import Context
from alignzoo.data.reading import reading
from alignzoo.data.text import TextSource
from alignzoo.errors import UserError, tell
from alignzoo.models import modules
from alignzoo.models.computation import plain
from alignzoo.runs.results import flat
from alignzoo.settings import Made, Sampling
from alignzoo.setup import RunConfig

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
SHORT = 40  # letters
NOT_CONTENT = (".md", ".lock")  # of a folder that a setting names: what nothing reads


@dataclass
class Origin:
    """What the run in `folder` is made of: `parts` now, and what of it was accepted to be other than when it began."""

    folder: Path
    parts: dict[str, Items | None]
    accepted: list[Items] = field(default_factory=list)

    def write(self) -> None:
        """Nothing where it is written down already: the disk may be full."""
        document = fingerprint.document(self.parts, self.accepted)
        if read(self.folder) != document:
            write_whole(self.folder / FINGERPRINT, json.dumps(document, indent=1))


def checked(setup: RunConfig, settings: Items, folder: Path, checkpoint: Path) -> Origin:
    """Of a run that goes on from `checkpoint`; `settings` are those of its config.yaml. Raises UserError that names what
    differs from what the run was made of and isn't accepted; where that wasn't written down, it is told."""
    origin, saved = Origin(folder, parts(setup, settings)), read(folder)
    if saved is None:
        tell(f"{folder} has no {FINGERPRINT} that can be read: whether code, data or libraries have changed can't be compared")
        origin.accepted = [_entry(checkpoint, "not compared")]
        return origin
    differing = fingerprint.differences(_with_settings_of(origin.parts["config"] or {}, saved), origin.parts)
    if refused := refusal(differing, setup.accept):
        raise UserError(f"{folder} can't go on: {refused}")
    origin.accepted = [*saved.get("accepted", []), *([_entry(checkpoint, differing)] if differing else [])]
    return origin


def _with_settings_of(now: Items, saved: Items) -> Items:
    """fingerprint.json as this version would have written it: settings that another version had are compared in config.yaml."""
    items = saved.get("items", {})
    there = items.get("config") or {}
    return {**saved, "items": {**items, "config": {name: there.get(name, value) for name, value in now.items()}}}


def refusal(differing: Mapping[str, str], accepted: Collection[str]) -> str:
    """Why a run that differs so can't go on, and what to do; empty where all of it is accepted."""
    refused = {part: what for part, what in differing.items() if part not in accepted}
    if not refused:
        return ""
    named = "; ".join(f"other {part} ({what})" for part, what in refused.items())
    return (
        f"it was made of {named}\nput that back, start anew with another run_dir=, or go on with what is there now: "
        f"accept=[{','.join([*dict.fromkeys([*accepted, *refused])])}]"
    )


def read(folder: Path) -> Items | None:
    """fingerprint.json; None where there is none, or none that can be read."""
    return read_if_whole(folder / FINGERPRINT)


def parts(setup: RunConfig, settings: Items) -> dict[str, Items | None]:
    """{part: its items} of a run with these settings, those of its config.yaml, as files, code and libraries are now."""
    cfg = OmegaConf.create(dict(settings))
    compared, settings = fingerprint.compared(cfg), fingerprint.resolved(cfg)
    tokenizer = setup.data.tokenizer() or modules.tokenizer(setup.model)
    config = modules.config(setup.model, tokenizer)
    context = Context(
        tokenizer=tokenizer, seed=setup.seed, sampling=Sampling(), context_length=0, cache=Path(),
        encoder_decoder=config.is_encoder_decoder,
    )  # fmt: skip
    return {
        "config": {key: fingerprint.of_json(value) for key, value in flat(compared).items()},
        "weights": dict(_weights(setup, settings, config)) or None,
        "model_config": {key: _short(value) for key, value in flat({**plain(config), **_generation(setup)}).items()},
        "encoder": {name: _short(value) for name, value in reading(setup.data, context).items()},
        "data": dict(_data(setup, settings)),
        "code": dict(code(settings)),
        "versions": fingerprint.versions(),
    }


def _weights(setup: RunConfig, settings: Items, config: PretrainedConfig) -> Iterator[tuple[str, str]]:
    """Of the model that is trained, and of every other folder that settings name."""
    if setup.model.path:
        where = modules.location(setup.model)
        for folder in map(Path, filter(None, (where.path, where.adapter))):
            if not folder.exists():  # on the hub, which has one hash for all
                yield "model.path", str(getattr(config, "_commit_hash", None))
            for file in sorted(folder.rglob(where.gguf or "*")):
                if file.suffix in WEIGHTS:
                    yield str(file.relative_to(folder)), fingerprint.of_file(file)
    for key, folder in _named(settings):
        if folder.is_dir():
            for file in sorted(folder.rglob("*")):
                if file.is_file() and file.suffix not in NOT_CONTENT and not file.name.startswith("."):
                    yield f"{key}/{file.relative_to(folder)}", fingerprint.of_file(file)


def _data(setup: RunConfig, settings: Items) -> Iterator[tuple[str, object]]:
    """The rows, and every other file that settings name."""
    if isinstance(setup.data, TextSource):
        makes = setup.making.kind is not Made.none
        yield from setup.data.content(None if makes else setup.algorithm.data).items()
    else:
        yield from _files(fingerprint.paths(settings["data"], "data"))
    yield from _files((key, str(path)) for key, path in _named(settings))


def _files(named: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for key, text in named:
        path = Path(text).expanduser()
        if path.is_file():
            yield f"{key}={path.name}", fingerprint.of_file(path)


def _named(settings: Items) -> Iterator[tuple[str, Path]]:
    """(key, path) of settings that name files, but for the model that is trained, the data and plugins, which have parts of
    their own; and but for where a run is."""
    elsewhere = ("data", "model", *fingerprint.NOT_MADE_FROM)
    for key, text in fingerprint.paths({name: value for name, value in settings.items() if name not in elsewhere}):
        if key != "plugins_dir":
            yield key, Path(text).expanduser()


def _generation(setup: RunConfig) -> Items:
    """What a model's generation config says of how completions end."""
    if not setup.model.path:
        return {}
    file = Path(modules.location(setup.model).path, "generation_config.json")
    return {file.name: fingerprint.of_file(file)} if file.is_file() else {}


def _short(value: object) -> object:
    """A number, or what a line can say, or a hash of it."""
    if value is None or isinstance(value, int | float):
        return value
    return str(value) if len(str(value)) <= SHORT else fingerprint.of_json(value)


def _entry(checkpoint: Path, differing: object) -> Items:
    return {"from": checkpoint.name, "date": time.strftime("%Y-%m-%d %H:%M:%S %z"), "differing": differing}
