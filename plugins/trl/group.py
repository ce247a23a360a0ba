"""What TRL's two trainers that compare the samples of a prompt share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from alignzoo.contracts import Hosting, Kind, Role, UserError

from .base import Hosted
from .sampled import Prompter, Sampled


@dataclass(kw_only=True)
class Grouped(Sampled):
    """RLOO and GRPO: `beta` is the weight of the KL, `clip` epsilon, `epochs` the passes over a rollout."""

    needs_logprobs_of_samples = True
    renamed: ClassVar[Mapping[str, str | None]] = {
        **Hosted.renamed, "kl": "kl_per_token", "completions/mean_length": "length", "completions/clipped_ratio": "truncated",
        "rewards/reward/mean": None, "rewards/reward/std": None, "clip_ratio/region_mean": "clip_fraction",
    }  # fmt: skip

    beta: float
    clip: float
    epochs: int

    def roles(self) -> Mapping[str, Role]:
        policy = Role(kind=Kind.POLICY, trained=True, needs=frozenset({"logprobs", "generate"}))
        reference = {"reference": Role(kind=Kind.POLICY, start="reference")} if self.beta else {}
        return {"policy": policy, "reward": Role(kind=Kind.REWARD), **reference}

    def passes(self) -> int:
        return self.epochs

    def sampled(self, batch: int) -> int:
        return batch // self.epochs

    def check(self, settings: Any, ranks: int) -> None:
        super().check(settings, ranks)
        if settings.rollout.samples < 2:
            raise UserError(
                f"rollout.samples={settings.rollout.samples} is too few: this algorithm compares the completions of a prompt, "
                "at least 2"
            )

    def options(self, hosting: Hosting) -> dict[str, Any]:
        rollout, micro = hosting.settings.rollout, hosting.arguments["per_device_train_batch_size"]
        return self.generation(hosting) | {
            "num_generations": rollout.samples, "steps_per_generation": rollout.prompts * rollout.samples // micro,
            "num_iterations": self.epochs, "epsilon": self.clip,
            "beta": 0.0,  # so that no reference is loaded from a path: it is given below
        }  # fmt: skip

    def make(self, trainer: type, config: Any, hosting: Hosting) -> Any:
        prompter = Prompter(hosting)
        rollout, steps = hosting.settings.rollout, hosting.arguments["max_steps"]
        rollouts = math.ceil(steps * hosting.settings.training.batch / (rollout.prompts * rollout.samples * self.epochs))
        instance = prompter.prompted(trainer)(
            hosting.policy, reward_funcs=prompter.reward, args=config, train_dataset=prompter.dataset(rollouts),
            processing_class=hosting.tokenizer,
        )  # fmt: skip
        if self.beta:
            from trl.trainer.utils import add_fused_lm_head

            reference: Any = hosting.modules["reference"]
            add_fused_lm_head(reference, temperature=config.temperature)
            instance.beta = config.beta = self.beta
            instance.ref_model = instance.accelerator.prepare_model(reference, evaluation_mode=True)
        return instance
