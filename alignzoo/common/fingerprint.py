"""What a run is made of: by part, so that a difference can be named; and as a short hash, which names the folder of a stage."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignzoo.common import trees
from alignzoo.common.cache import keyed
from alignzoo.errors import masked

LENGTH = 10  # letters
# where a run is, what it is called, and what it may go on with
NOT_MADE_FROM = (
    "resume", "run_dir", "stages_dir", "pipeline", "stages", "stage", "label", "accept", "trust", "override_keys",
)  # fmt: skip
NAMES_ONLY = ("experiment", "settings", "debug", "pipeline")  # choices whose every consequence is a setting
FILES = re.compile(r"(?:.*[._])?(?:path|paths|file|files|tokenizer|plugins_dir)(?:\.\d+)?|roles\..*|making\.model")
PARTS = ("config", "weights", "model_config", "encoder", "data", "code", "versions")
LIBRARIES = ("alignzoo", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers")
SHOWN = 3  # differences of a part
ABSENT = "nothing"

Items = dict[str, Any]  # of a part: {name: what stands for its content}, as JSON has it


def of(cfg: DictConfig, inputs: Mapping[str, str], code: Mapping[str, str]) -> str:
    """`inputs` are the {folder: hash} of the stages used: a folder is replaced by its hash, so that a pipeline may be moved.
    `code` is the {file: hash} of the plugins named."""
    settings = {key: value for key, value in compared(cfg).items() if key not in NOT_MADE_FROM}
    settings["choices"] = {key: value for key, value in settings["choices"].items() if key not in NAMES_ONLY}
    there = {key: value for key, value in resolved(cfg).items() if key not in NOT_MADE_FROM}
    read = {key: Path(text) for key, text in paths(there) if not any(map(Path(text).is_relative_to, inputs))}
    contents = {key: content for key, path in read.items() if (content := _content(path.expanduser()))}
    whole = json.dumps([settings, contents, code], sort_keys=True, default=str)
    for folder in sorted(inputs, key=len, reverse=True):
        whole = whole.replace(json.dumps(folder)[1:-1], f"stage {inputs[folder]}")
    return hashlib.sha256(whole.encode()).hexdigest()[:LENGTH]


def written(cfg: DictConfig) -> Items:
    """The settings as files have them: what comes from the environment as it was given, passwords in addresses hidden."""
    return {key: trees.changed(value, masked) for key, value in _container(cfg, resolve=False).items()}


def resolved(cfg: DictConfig) -> Items:
    """The settings as they are in memory."""
    return _container(cfg, resolve=True)


def compared(cfg: DictConfig) -> Items:
    """The settings as they are compared: as files have them, with a keyed hash of what comes from the environment."""
    values = resolved(cfg)
    return {key: _hashed(text, values[key]) for key, text in written(cfg).items()}


def _container(cfg: DictConfig, resolve: bool) -> Items:
    container = OmegaConf.to_container(cfg, resolve=resolve, enum_to_str=True)
    return {str(key): value for key, value in container.items()} if isinstance(container, dict) else {}


def _hashed(text: object, value: object) -> object:
    if isinstance(text, dict) and isinstance(value, dict):
        return {key: _hashed(text[key], value[key]) for key in text}
    if isinstance(text, list) and isinstance(value, list):
        return list(map(_hashed, text, value))
    return text if text == trees.changed(value, masked) else f"{text} {keyed(of_json(value).encode())}"


def paths(settings: Items, key: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of settings that name files."""
    return ((name, text) for name, text in trees.texts(settings, key) if text and FILES.fullmatch(name))


def of_json(content: object) -> str:
    """SHA-256 of what JSON can hold; of the text of what else there is."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def of_file(path: Path) -> str:
    """SHA-256 of a file as it is now: it is read again when its size or time has changed."""
    about = path.stat()
    return _sha256(str(path.resolve()), about.st_size, about.st_mtime_ns)


def of_tensors(parts: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 of (description, content)s, one after the other, however large."""
    digest = hashlib.sha256()
    for about, content in parts:
        digest.update(about.encode())
        digest.update(content)
    return digest.hexdigest()


def of_rows(rows: Iterable[tuple[str, object]]) -> Items:
    """{file: how many rows, and the SHA-256 of all in order} of (file, row)s."""
    digests: defaultdict[str, hashlib._Hash] = defaultdict(hashlib.sha256)
    counts = Counter[str]()
    encode = json.JSONEncoder(sort_keys=True, default=str).encode
    for file, row in rows:
        digests[file].update(encode(row).encode("utf-8", "surrogatepass"))
        counts[file] += 1
    return {file: {"rows": counts[file], "sha256": digest.hexdigest()} for file, digest in digests.items()}


def versions() -> Items:
    """{library: major.minor}: patch releases are one."""
    installed = {name: version(name) for name in LIBRARIES}
    return {name: ".".join(number.split(".")[:2]) for name, number in installed.items() if number}


def document(parts: Mapping[str, Items | None], accepted: Sequence[object]) -> Items:
    """fingerprint.json: SHA-256 by part, None for what a run doesn't have; what they are of; and what was accepted."""
    digests = {part: None if items is None else of_json(items) for part, items in parts.items()}
    return {**digests, "items": dict(parts), "accepted": accepted}


def differences(saved: Items, parts: Mapping[str, Items | None]) -> dict[str, str]:
    """{part: what of it} that differs from fingerprint.json; a part that it doesn't know can't."""
    there = saved.get("items", {})
    return {
        part: ", ".join(_named(there[part] or {}, items or {}))
        for part, items in parts.items()
        if part in there and of_json(there[part]) != of_json(items)
    }


def _named(before: Items, now: Items) -> list[str]:
    differing = [name for name in {**before, **now} if before.get(name, ABSENT) != now.get(name, ABSENT)]
    more = [f"and {len(differing) - SHOWN} more"] if len(differing) > SHOWN else []
    return [_difference(name, before.get(name, ABSENT), now.get(name, ABSENT)) for name in differing[:SHOWN]] + more


def _difference(name: str, before: object, now: object) -> str:
    """A difference: with its values where these say something to people."""
    if ABSENT in (before, now):
        return f"{name} is {'gone' if now == ABSENT else 'new'}"
    rows = [side["rows"] if isinstance(side, dict) and "rows" in side else None for side in (before, now)]
    if None not in rows:
        return f"{name}: {rows[0]} rows there, {rows[1]} now" if rows[0] != rows[1] else f"{name}: other rows, or another order"
    short = all(not isinstance(side, str) or len(side) <= 20 for side in (before, now))
    return f"{name}: {before} there, {now} now" if short else name


def _content(path: Path) -> list[object]:
    """Of a file its size and SHA-256; of a folder each file's name, size and time, since models are large. Else empty."""
    if path.is_file():
        return [path.stat().st_size, of_file(path)]
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        return [[str(file.relative_to(path)), (about := file.stat()).st_size, about.st_mtime_ns] for file in inside]
    return []


def version(package: str) -> str | None:
    """As it is installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@lru_cache(maxsize=4096)
def _sha256(path: str, size: int, time: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
