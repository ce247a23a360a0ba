"""What a run is made from, as a short hash: its settings, the stages it uses, and the local files it reads."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

LENGTH = 10  # letters
NOT_MADE_FROM = ("resume", "run_dir", "stages_dir", "pipeline", "stages", "stage", "label")  # where a run is, what it is called
NAMES_ONLY = ("experiment", "settings", "debug", "pipeline")  # choices whose every consequence is a setting
FILES = re.compile(r"(?:.*[._])?(?:path|paths|file|files|tokenizer|plugins_dir)(?:\.\d+)?|roles\..*|making\.model")


def of(cfg: DictConfig, inputs: Mapping[str, str]) -> str:
    """`inputs` are the {folder: hash} of the stages used: a folder is replaced by its hash, so that a pipeline may be moved."""
    container: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    settings = {key: value for key, value in container.items() if key not in NOT_MADE_FROM}
    settings["choices"] = {key: value for key, value in settings["choices"].items() if key not in NAMES_ONLY}
    files = {key: _content(Path(text).expanduser()) for key, text in _paths(settings) if not _inside(text, inputs)}
    whole = json.dumps([settings, {key: found for key, found in files.items() if found}], sort_keys=True, default=str)
    for folder in sorted(inputs, key=len, reverse=True):
        whole = whole.replace(json.dumps(folder)[1:-1], f"stage {inputs[folder]}")
    return hashlib.sha256(whole.encode()).hexdigest()[:LENGTH]


def _paths(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of settings that name files."""
    if isinstance(node, str) and node and FILES.fullmatch(key):
        yield key, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        yield from _paths(value, f"{key}.{name}" if key else str(name))


def _inside(text: str, folders: Mapping[str, str]) -> bool:
    return any(Path(text).is_relative_to(folder) for folder in folders)


def _content(path: Path) -> list[Any]:
    """Of a file its size and SHA-256; of a folder each file's name, size and time, since models are large. Else empty."""
    if path.is_file():
        about = path.stat()
        return [about.st_size, _sha256(str(path.resolve()), about.st_size, about.st_mtime_ns)]
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        return [[str(file.relative_to(path)), (about := file.stat()).st_size, about.st_mtime_ns] for file in inside]
    return []


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, time: int) -> str:
    """Of a file as it is now: it is read again when its size or time has changed."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
