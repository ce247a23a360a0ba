"""The cost of a foreign trainer, read off its networks: it tells nobody what it samples and trains on."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from alignzoo.engine.cost import Cost, modules_in
from alignzoo.models.forward.flops import body, watch
from alignzoo.models.forward.padded import CACHE_NAMES

ROLES = {
    "ref_model": "reference", "reward_funcs": "reward", "reward_model": "reward", "teacher_model": "teacher",
    "value_model": "value",
}  # fmt: skip


def watch_trainer(cost: Cost, foreign: Any, main: str) -> None:
    """Count FLOPs and tokens of all networks among the trainer's attributes; `main` is the role of the one it trains."""
    watch(foreign.model, cost.flops, main)
    body(foreign.model).register_forward_pre_hook(partial(_count_tokens, cost), with_kwargs=True)
    for name, value in vars(foreign).items():
        for module in modules_in(value):
            watch(module, cost.flops, ROLES.get(name, name))


def _count_tokens(cost: Cost, model: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """A forward with gradient trains on its tokens. One without that has a cache reads prompts, then a token a row; a trainer
    that says when it samples counts these itself."""
    ids = inputs[0] if inputs else keywords.get("input_ids")
    if not isinstance(ids, Tensor) or cost.evaluating:
        return
    mask = keywords.get("attention_mask")
    tokens = int(mask.sum()) if isinstance(mask, Tensor) and mask.shape == ids.shape else ids.numel()
    if torch.is_grad_enabled():
        cost.count(trained_tokens=tokens)
    elif not cost.sampling and (any(keywords.get(name) is not None for name in CACHE_NAMES) or keywords.get("use_cache")):
        cost.count(**({"completion_tokens": len(ids)} if ids.shape[1] == 1 else {"prompt_tokens": tokens}))
