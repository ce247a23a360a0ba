"""The cost of a foreign trainer, read off its networks: it tells nobody what it samples and trains on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from transformers import Trainer

from alignzoo.common.account import Account
from alignzoo.models.forward.flops import body, watch
from alignzoo.models.forward.padded import CACHE_NAMES
from alignzoo.models.roles import modules_in

ROLES = {
    "ref_model": "reference", "reward_funcs": "reward", "reward_model": "reward", "teacher_model": "teacher",
    "value_model": "value",
}  # fmt: skip


def watch_trainer(cost: Account, foreign: Trainer, main: str) -> None:
    """Count FLOPs and tokens of all networks among the trainer's attributes; `main` is the role of the one it trains."""
    model = foreign.model
    assert model is not None
    watch(model, cost, main)
    body(model).register_forward_pre_hook(partial(_count_tokens, cost), with_kwargs=True)
    for name, value in vars(foreign).items():
        for module in modules_in(value):
            watch(module, cost, ROLES.get(name, name))


def _count_tokens(cost: Account, model: nn.Module, inputs: tuple[object, ...], keywords: Mapping[str, object]) -> None:
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
