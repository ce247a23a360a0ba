"""Checkpoints that are whole or absent: written aside, synced, described by a manifest, renamed, and only then older ones
removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, load_model, save_model
from torch import nn

from alignzoo.common import disk
from alignzoo.errors import UserError

MANIFEST = "manifest.json"
PREFIX = "checkpoint-"


def write(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make `folder` with what `fill` puts into it. A crash at any moment leaves either no `folder` or a complete one.

    Raises UserError where the disk is full; what was there before is untouched.
    """
    partial = folder.parent / f".partial-{folder.name}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        fill(partial)
        seal(partial)
    except Exception as error:
        free = shutil.disk_usage(folder.parent).free
        shutil.rmtree(partial, ignore_errors=True)
        if disk.is_full(error) or (isinstance(error, OSError | RuntimeError) and free < 2**20):
            raise UserError(
                f"the disk is full: {folder} was not written ({free // 2**20} MiB are free); earlier checkpoints are intact"
            ) from error
        raise
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    _sync(folder.parent)


def seal(folder: Path) -> None:
    """Sync every file and write the manifest of their sizes and hashes, last."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    for path in files:
        _sync(path)
    entries = {str(path.relative_to(folder)): [path.stat().st_size, _hash(path)] for path in files}
    (folder / MANIFEST).write_text(json.dumps(entries, indent=1))
    _sync(folder / MANIFEST)
    _sync(folder)


def complete(folder: Path) -> bool:
    """Whether every file the manifest names is there with its size and hash."""
    try:
        entries = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    paths = {folder / name: entry for name, entry in entries.items()}
    return all(p.is_file() and p.stat().st_size == size and _hash(p) == digest for p, (size, digest) in paths.items())


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`, or None."""
    return next((path for path in reversed(_checkpoints(folder)) if complete(path)), None)


def rotate(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep`, and whatever a crash left unfinished."""
    for path in [*_checkpoints(folder)[:-keep], *folder.glob(".partial-*")]:
        shutil.rmtree(path, ignore_errors=True)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))


def save_main(module: Any, folder: Path, tokenizer: Any) -> None:
    """Policy or scorer as any Hugging Face tool loads it: the model, or where it has one, its adapter; and the tokenizer."""
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_main(module: Any, folder: Path) -> None:
    """Strictly: every weight must be there, none may be left over."""
    if hasattr(module, "peft_config"):
        from peft import set_peft_model_state_dict

        result: Any = set_peft_model_state_dict(module, load_file(folder / "adapter_model.safetensors"))
        if result.unexpected_keys:
            raise UserError(f"{folder} holds adapter weights this model does not have: {result.unexpected_keys[:3]}")
        return
    saved = type(module).from_pretrained(folder, dtype=next(module.parameters()).dtype, config=module.config)
    module.load_state_dict(saved.state_dict(), strict=True)


def save_module(module: nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_model(module, str(folder / "model.safetensors"))


def load_module(module: nn.Module, folder: Path) -> None:
    load_model(module, str(folder / "model.safetensors"), strict=True)


def _checkpoints(folder: Path) -> list[Path]:
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
