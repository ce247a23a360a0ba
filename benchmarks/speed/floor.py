"""The least that a step can take: FLOPs nobody can do without, over what the machine's matrix product reaches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Group = tuple[int, Sequence[int]]  # tokens of a prompt, and of each of its completions


@dataclass(frozen=True)
class Shape:
    """A decoder with a gated feed-forward part. keys: the width of all keys, None where query heads share none."""

    hidden: int
    layers: int
    inner: int
    vocabulary: int
    keys: int | None = None

    @classmethod
    def of(cls, config: Any) -> Shape:
        names = ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")
        keys = config.hidden_size * config.num_key_value_heads // config.num_attention_heads
        return cls(*(getattr(config, name) for name in names), keys=keys)

    def forward(self, groups: Sequence[Group], head: bool = True, prompts: bool = True) -> int:
        """FLOPs of one forward: each prompt once, each completion once, attention to what comes before, the head where a
        completion is predicted. `prompts` false: these have been encoded already."""
        tokens = sum(p * prompts + sum(cs) for p, cs in groups)
        pairs = sum(prompts * p * (p + 1) // 2 + sum(c * p + c * (c + 1) // 2 for c in cs) for p, cs in groups)
        keys = self.hidden if self.keys is None else self.keys
        trunk = 2 * self.layers * self.hidden * (2 * self.hidden + 2 * keys + 3 * self.inner) * tokens
        attention = 4 * self.layers * self.hidden * pairs
        return trunk + attention + head * 2 * self.hidden * self.vocabulary * sum(sum(cs) for _, cs in groups)


def useful(
    algorithm: str, shape: Shape, groups: Sequence[Group], teacher: Shape | None = None, passes: int = 1,
    beforehand: bool = False,
) -> float:  # fmt: skip
    """FLOPs of an optimizer step on these groups. A backward is two forwards. Sampling is one forward, which yields the
    sampler's log-probs too. The reference of DPO and KTO may have been computed `beforehand`."""
    once = shape.forward(groups)
    if algorithm in ("rloo", "grpo"):
        return 5 * once  # sampling, the reference, training
    if algorithm == "distill":
        assert teacher is not None, "who teaches?"
        return 4 * once + teacher.forward(groups)
    if algorithm == "ppo":
        bare = shape.forward(groups, head=False)
        return 3 * (once + bare) + (2 * once + bare) / passes
    if algorithm == "kto":
        flat = [(p, c) for p, cs in groups for c in cs]
        unfit = [(p, [flat[i - 1][1]]) for i, (p, _) in enumerate(flat)]
        return (4 - beforehand) * once + (2 - beforehand) * shape.forward(unfit, prompts=False)
    if algorithm == "bradley_terry":
        return 3 * shape.forward(groups, head=False)
    return {"sft": 3, "dpo": 4 - beforehand}[algorithm] * once


def peak(size: int = 1024, repeats: int = 8) -> float:
    """FLOPs a second of a float32 matrix product with the threads at hand: the best of a few. By CPU time where it is one."""
    import torch

    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    left, right = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(repeats):
        start = clock()
        left @ right
        seconds.append(clock() - start)
    return float(2 * size**3 / min(seconds))
