"""Models that rewards ask."""

from __future__ import annotations

from typing import Any

import torch

from alignzoo.errors import UserError
from alignzoo.settings import Dtype


def pretrained(kind: str, path: str, dtype: Dtype) -> tuple[Any, Any]:
    """The frozen model at `path`, by the class `kind` of transformers, and its tokenizer. Raises UserError where there is
    none.
    """
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        model = getattr(transformers, kind).from_pretrained(path, dtype=getattr(torch, dtype.value))
    except (OSError, ValueError) as error:
        raise UserError(f"reward.path={path}: {str(error).strip().splitlines()[0]}") from error
    return model.eval().requires_grad_(False), tokenizer
