"""Models that rewards ask."""

from __future__ import annotations

from typing import Any

import torch

from alignzoo.models.loading import Location
from alignzoo.settings import Dtype


def pretrained(kind: str, path: str, dtype: Dtype) -> tuple[Any, Any]:
    """The frozen model at `path`, by the class `kind` of transformers, and its tokenizer. Raises UserError where there is
    none, or one of another kind.
    """
    import transformers

    where = Location.of(path, "reward.path")
    model = where.network(getattr(transformers, kind), dtype=getattr(torch, dtype.value))
    return model.eval().requires_grad_(False), where.tokenizer()
