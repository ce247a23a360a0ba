"""What a run is made of: by part, so that a difference can be named; and as a short hash, which names the folder of a stage."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

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
    settings = {key: value for key, value in known(cfg).items() if key not in NOT_MADE_FROM}
    settings["choices"] = {key: value for key, value in settings["choices"].items() if key not in NAMES_ONLY}
    there = {key: value for key, value in resolved(cfg).items() if key not in NOT_MADE_FROM}
    files = {key: _content(Path(text).expanduser()) for key, text in paths(there) if not _inside(text, inputs)}
    contents = {key: content for key, content in files.items() if content}
    whole = json.dumps([settings, contents, code], sort_keys=True, default=str)
    for folder in sorted(inputs, key=len, reverse=True):
        whole = whole.replace(json.dumps(folder)[1:-1], f"stage {inputs[folder]}")
    return hashlib.sha256(whole.encode()).hexdigest()[:LENGTH]


def written(cfg: DictConfig) -> dict[str, Any]:
    """The settings as files have them: what comes from the environment as it was given, passwords in addresses hidden."""
    return dict(_masked(OmegaConf.to_container(cfg, enum_to_str=True)))


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The settings as they are in memory."""
    container: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    return dict(container)


def known(cfg: DictConfig) -> dict[str, Any]:
    """The settings as they are compared: as files have them, with a keyed hash of what comes from the environment."""
    return dict(_beside(written(cfg), resolved(cfg)))


def _masked(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _masked(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_masked(value) for value in node]
    return masked(node) if isinstance(node, str) else node


def _beside(text: Any, value: Any) -> Any:
    if isinstance(text, dict):
        return {key: _beside(text[key], value[key]) for key in text}
    if isinstance(text, list):
        return [_beside(*pair) for pair in zip(text, value, strict=True)]
    return text if text == _masked(value) else f"{text} {keyed(of_json(value).encode())}"


def paths(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of settings that name files."""
    if isinstance(node, str) and node and FILES.fullmatch(key):
        yield key, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        yield from paths(value, f"{key}.{name}" if key else str(name))


def of_json(content: Any) -> str:
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


def of_rows(rows: Iterable[tuple[str, Any]]) -> Items:
    """{file: how many rows, and the SHA-256 of all in order} of (file, row)s."""
    digests: dict[str, Any] = {}
    counts: dict[str, int] = {}
    encode = json.JSONEncoder(sort_keys=True, default=str).encode
    for file, row in rows:
        digests.setdefault(file, hashlib.sha256()).update(encode(row).encode("utf-8", "surrogatepass"))
        counts[file] = counts.get(file, 0) + 1
    return {file: {"rows": counts[file], "sha256": digest.hexdigest()} for file, digest in digests.items()}


def versions() -> Items:
    """{library: major.minor}: patch releases are one."""
    installed = {name: _version(name) for name in LIBRARIES}
    return {name: ".".join(version.split(".")[:2]) for name, version in installed.items() if version}


def document(parts: Mapping[str, Items | None], accepted: list[Any]) -> dict[str, Any]:
    """fingerprint.json: SHA-256 by part, None for what a run doesn't have; what they are of; and what was accepted."""
    digests = {part: None if items is None else of_json(items) for part, items in parts.items()}
    return digests | {"items": dict(parts), "accepted": accepted}


def differences(saved: Mapping[str, Any], parts: Mapping[str, Items | None]) -> dict[str, str]:
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
    return [_told(name, before.get(name, ABSENT), now.get(name, ABSENT)) for name in differing[:SHOWN]] + more


def _told(name: str, before: Any, now: Any) -> str:
    """A difference: with its values where these say something to people."""
    if ABSENT in (before, now):
        return f"{name} is {'gone' if now == ABSENT else 'new'}"
    rows = [side["rows"] if isinstance(side, dict) and "rows" in side else None for side in (before, now)]
    if None not in rows:
        return f"{name}: {rows[0]} rows there, {rows[1]} now" if rows[0] != rows[1] else f"{name}: other rows, or another order"
    short = all(not isinstance(side, str) or len(side) <= 20 for side in (before, now))
    return f"{name}: {before} there, {now} now" if short else name


def _inside(text: str, folders: Mapping[str, str]) -> bool:
    return any(Path(text).is_relative_to(folder) for folder in folders)


def _content(path: Path) -> list[Any]:
    """Of a file its size and SHA-256; of a folder each file's name, size and time, since models are large. Else empty."""
    if path.is_file():
        return [path.stat().st_size, of_file(path)]
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        return [[str(file.relative_to(path)), (about := file.stat()).st_size, about.st_mtime_ns] for file in inside]
    return []


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@lru_cache(maxsize=4096)
def _sha256(path: str, size: int, time: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
