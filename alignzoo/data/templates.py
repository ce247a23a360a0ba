"""Chat templates by file, and by the names under which TRL has them for training: they never rewrite earlier turns."""

from __future__ import annotations

from importlib import resources
from typing import Any

from alignzoo.common.disk import existing
from alignzoo.errors import UserError, nearest

TRL = "trl"


def template(name: str | None, tokenizer: Any) -> str | None:
    """A jinja file's text; of `trl`, TRL's training template for this tokenizer; of `trl:NAME`, the one of that name. None for
    the tokenizer's own. Raises UserError."""
    if name is None:
        return None
    if name == TRL:
        return _for(tokenizer)
    if not name.startswith(f"{TRL}:"):
        return existing(name, "data.chat_template").read_text("utf-8")
    files = {file.name.removesuffix(".jinja"): file for file in (resources.files("trl") / "chat_templates").iterdir()}
    chosen = files.get(name.removeprefix(f"{TRL}:"))
    if chosen is None:
        raise UserError(f"data.chat_template={name}: TRL has no such template.{nearest(name.removeprefix('trl:'), files)}")
    return chosen.read_text("utf-8")


def _for(tokenizer: Any) -> str | None:
    from trl.chat_template_utils import get_training_chat_template

    try:
        return get_training_chat_template(tokenizer)
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"data.chat_template=trl: TRL has none for this tokenizer: {reason}") from error
