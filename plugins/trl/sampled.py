"""What TRL's sampling trainers share: prompts by position, rewards from ours, sizes from the group `rollout`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Hosting, UserError

from .base import Hosted
from .rows import MOST


@dataclass(kw_only=True)
class Sampled(Hosted):
    """A trainer that samples. Its rollouts are ours in size, and its prompts ours in order."""

    data = Prompts
    online = True

    def check(self, settings: Any, ranks: int) -> None:
        super().check(settings, ranks)
        rollout, batch = settings.rollout, settings.training.batch
        if rollout.prompts * rollout.samples % batch:
            raise UserError(
                f"trainer.batch={batch} does not divide rollout.prompts={rollout.prompts} times rollout.samples="
                f"{rollout.samples}: TRL drops no part of a rollout and fills none up"
            )

    def generation(self, hosting: Hosting) -> dict[str, Any]:
        """How it samples, and for how long it learns from a rollout."""
        sampling = hosting.settings.generation
        return {
            "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p,
            "min_p": sampling.min_p or None, "max_completion_length": sampling.max_new_tokens, "shuffle_dataset": False,
        }  # fmt: skip


class Prompter:
    """The run's prompts, which TRL knows as the text of their positions in the stream; and what it samples from them."""

    def __init__(self, hosting: Hosting) -> None:
        self.hosting = hosting
        self.device = next(hosting.policy.parameters()).device
        more = getattr(getattr(hosting.policy, "generation_config", None), "eos_token_id", None)
        self.ends = {hosting.tokenizer.eos_token_id, *(more if isinstance(more, list) else [more])}

    def dataset(self, rollouts: int, repeats: int = 1) -> Any:
        """Positions of as many prompts as `rollouts` take, each `repeats` times."""
        from datasets import Dataset

        count = min(rollouts * self.hosting.settings.rollout.prompts, MOST)
        return Dataset.from_dict({"prompt": [str(i) for i in range(count) for _ in range(repeats)]})

    def prompts(self, names: Sequence[str]) -> tuple[Prompts, Tensor]:
        """The prompts of these positions, and which is whose."""
        used, prompt_of = torch.tensor([int(name) for name in names]).unique(return_inverse=True)
        first, last = int(used[0]), int(used[-1])
        return self.hosting.records(first, last + 1).take(used - first), prompt_of

    def ids(self, names: Sequence[str]) -> list[list[int]]:
        prompts, prompt_of = self.prompts(names)
        rows = [ids[mask].tolist() for ids, mask in zip(prompts.ids, prompts.attended, strict=True)]
        return [rows[i] for i in prompt_of.tolist()]

    def reward(self, prompts: list[str], completion_ids: list[list[int]], **ignored: Any) -> list[float | None]:
        """Our reward of TRL's samples; None where no score can be had."""
        c = self.completions(prompts, completion_ids)
        return self.hosting.reward(c).numbers(c)

    def completions(self, names: Sequence[str], completion_ids: list[list[int]]) -> Completions:
        prompts, prompt_of = self.prompts(names)
        attended = pad_sequence([torch.ones(len(ids), dtype=torch.bool) for ids in completion_ids], batch_first=True)
        return Completions(
            prompts=prompts, prompt_of=prompt_of, row=prompts.row[prompt_of], attended=attended, scored=attended,
            ids=pad_sequence([torch.tensor(ids) for ids in completion_ids], batch_first=True),
            truncated=torch.tensor([ids[-1] not in self.ends for ids in completion_ids]),
        ).to(self.device)  # fmt: skip

    def prompted(self, trainer: Any) -> Any:
        """The trainer, given the tokens of our prompts, and in step with its rollouts when it is resumed."""
        prompter = self

        def tokenize(self: Any, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return prompter.ids(prompts), None, {}

        def generate(self: Any, prompt_ids: list[list[int]], *arguments: Any, **keywords: Any) -> Any:
            with prompter.hosting.rollout():
                output = trainer._generate_single_turn(self, prompt_ids, *arguments, **keywords)
                completion_ids = output[0] if isinstance(output, tuple) else output
                prompter.hosting.sampled(sum(map(len, prompt_ids)), sum(map(len, completion_ids)))
            return output

        def train(self: Any, resume_from_checkpoint: Any = None, **keywords: Any) -> Any:
            if resume_from_checkpoint:  # TRL counts micro-batches from the start of the process
                step = int(str(resume_from_checkpoint).rsplit("-", 1)[1])
                self._step = step * self.args.gradient_accumulation_steps
            return trainer.train(self, resume_from_checkpoint=resume_from_checkpoint, **keywords)

        methods = {"_tokenize_prompts": tokenize, "_generate_single_turn": generate, "train": train}
        return type(trainer.__name__, (trainer,), methods)
