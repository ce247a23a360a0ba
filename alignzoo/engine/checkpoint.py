"""Checkpoints that are whole or absent: written aside, synced, described by a manifest, renamed, and only then older ones
removed, file by file as their manifests name them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, load_model, save_model
from torch import nn

from alignzoo.common import disk
from alignzoo.common.folder import MANIFEST, PARTIAL, remove_sealed, set_aside
from alignzoo.data.encode import Encoder
from alignzoo.errors import UserError

PREFIX = "checkpoint-"


def write(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make `folder` with what `fill` puts into it. A crash at any moment leaves either no `folder` or a complete one.

    Raises DiskFull where the disk is; what was there before is untouched.
    """
    partial = folder.with_name(f"{PARTIAL}{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        fill(partial)
        seal(partial)
    except Exception as error:
        free = shutil.disk_usage(folder.parent).free
        shutil.rmtree(partial, ignore_errors=True)
        if disk.is_full(error) or (isinstance(error, OSError | RuntimeError) and free < 2**20):
            raise disk.DiskFull(f"the disk is full: {folder} was not written ({free // 2**20} MiB are free)") from error
        raise
    place(partial, folder)


def place(partial: Path, folder: Path) -> None:
    """What is sealed becomes `folder`; what somebody else has put into an earlier one is kept beside."""
    remove_sealed(folder)
    if folder.exists():
        set_aside(folder)
    partial.rename(folder)
    disk.sync(folder.parent)


def seal(folder: Path) -> None:
    """Sync every file and write the manifest of their sizes and hashes, last."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    os.umask(mask := os.umask(0))
    for path in files:
        path.chmod(0o666 & ~mask)  # safetensors lets nobody else read what it writes
        disk.sync(path)
    entries = {str(path.relative_to(folder)): [path.stat().st_size, _hash(path)] for path in files}
    disk.write_whole(folder / MANIFEST, json.dumps(entries, indent=1))


def complete(folder: Path) -> bool:
    """Whether every file the manifest names is there with its size and hash."""
    return not fault(folder)


def fault(folder: Path) -> str:
    """Which file of a checkpoint is missing or damaged; "" for one that is whole."""
    try:
        entries = {name: (size, digest) for name, (size, digest) in json.loads((folder / MANIFEST).read_bytes()).items()}
    except OSError:
        return f"{MANIFEST} is missing"
    except (ValueError, TypeError, AttributeError):
        return f"{MANIFEST} is damaged"
    for name, (size, digest) in entries.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size or _hash(path) != digest:
            return f"{name} is damaged"
    return ""


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`, or None."""
    return next((path for path in reversed(saved(folder)) if complete(path)), None)


def rotate(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep`, and whatever a crash left unfinished."""
    for path in saved(folder)[:-keep]:
        remove_sealed(path)
    for path in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))


def save_main(module: Any, folder: Path, tokenizer: Any, encoder: Encoder | None = None) -> None:
    """Policy or scorer as any Hugging Face tool loads it: the model, or where it has one, its adapter; the tokenizer, with the
    template it was trained with; and how it was made to read text."""
    with warnings.catch_warnings():
        for message in ("Setting `save_embedding_layers`", "Could not find a config file in"):  # all that peft trains is saved
            warnings.filterwarnings("ignore", message)
        module.save_pretrained(folder)
    if encoder is not None:
        tokenizer.chat_template = encoder.settings["template"]
        encoder.save(folder)
    tokenizer.save_pretrained(folder)


def load_main(module: Any, folder: Path) -> None:
    """Strictly: every weight must be there, none may be left over."""
    if hasattr(module, "peft_config"):
        from peft import set_peft_model_state_dict

        keys = set_peft_model_state_dict(module, load_file(folder / "adapter_model.safetensors"))
        if unexpected := getattr(keys, "unexpected_keys", ()):
            raise UserError(f"{folder} holds adapter weights this model does not have: {unexpected[:3]}")
        return
    saved = type(module).from_pretrained(folder, dtype=next(module.parameters()).dtype, config=module.config)
    module.load_state_dict(saved.state_dict(), strict=True)


def save_module(module: nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_model(module, str(folder / "model.safetensors"))


def load_module(module: nn.Module, folder: Path) -> None:
    load_model(module, str(folder / "model.safetensors"), strict=True)


def saved(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, whole or not, the oldest first."""
    return sorted((path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()), key=step_of)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
