"""The warm-up that turns a fresh network into the task's reference: maximum likelihood on samples of the synthetic source."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from alignzoo.batch import Completions
from alignzoo.common import fingerprint
from alignzoo.common.disk import rename_damaged
from alignzoo.contracts import Policy
from alignzoo.data.exact.language import Language
from alignzoo.data.exact.optimum import completion_logprobs
from alignzoo.data.exact.task_tables import CompletionSampler
from alignzoo.models.computation import computation, weights


def restart(policy: nn.Module, seed: int) -> None:
    """Fresh weights that depend on the task's seed alone, so that all runs share one reference. Pretrained weights are kept."""
    from transformers import PreTrainedModel

    if not isinstance(policy, PreTrainedModel) or policy.config.name_or_path:
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = type(policy)._from_config(policy.config)
    policy.load_state_dict(fresh.state_dict())


def train(
    module: nn.Module, policy: Policy, language: Language, source: Tensor, device: torch.device, steps: int, batch: int,
    rate: float, seed: int,
) -> None:  # fmt: skip
    """Trains `module`, which `policy` shows, on samples of `source` (P, prefixes, tokens + 1): AdamW on `batch` of them a step,
    with a learning rate that falls linearly from `rate` to 0."""
    draw = CompletionSampler(completion_logprobs(language.tree, source))
    rng = np.random.default_rng([seed, 3])
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / max(steps, 1))
    every = torch.arange(len(source))
    prompts = language.prompts(every, every)
    for _ in range(steps):
        prompt_of = torch.from_numpy(rng.integers(len(source), size=batch))
        columns = language.completions(draw(prompt_of, torch.from_numpy(rng.random(batch))))
        c = Completions(prompts=prompts, prompt_of=prompt_of, row=prompt_of, **columns).to(device)
        loss = -policy.logprobs(c).sum() / c.scored.sum()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def cached(folder: Path, key: object, policy: nn.Module, train: Callable[[], None]) -> None:
    """Give `policy` the weights that `train` leads to from where it is: from the cache, or by training, once for all runs."""
    path = folder / f"exact-{fingerprint.of_json([key, weights(policy), computation(policy)])[:24]}.pt"
    if path.exists() and _restored(path, policy):
        return
    train()
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    torch.save({"weights": policy.state_dict(), "sha256": weights(policy)}, partial)
    partial.replace(path)


def _restored(path: Path, policy: nn.Module) -> bool:
    """Whether the policy has the weights of this file now. One that is damaged is set aside, and changes nothing."""
    # a damaged file must not leave half of its weights behind: what was there is put back
    start = {name: value.clone() for name, value in policy.state_dict().items()}
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
        policy.load_state_dict(saved["weights"])
        if weights(policy) != saved["sha256"]:
            raise ValueError("its checksum is another")
    except Exception as error:  # torch reads a damaged file in many ways
        policy.load_state_dict(start)
        rename_damaged(path, error)
        return False
    return True
