"""What is compared, algorithm by algorithm: the rows, the size of a step, and how alignzoo is told to run it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RATE = 1e-5  # of both programs
# where completions are replayed for the gate: AdamW's first steps are as long for a gradient of rounding as for any other, and
# differences in the mathematics would be taken for what it makes of rounding
GATE = {"ours": ("trainer.optimizer=sgd", "trainer.learning_rate=1e-2"), "theirs": {"optim": "sgd", "learning_rate": 1e-2}}
SAMPLES = 4  # completions of a prompt, where a group is compared


@dataclass(frozen=True)
class Kind:
    """One row of the table. `rows`: the file both read, see `material`; `batch`: records, or completions, of a step."""

    rows: str
    batch: int
    ours: tuple[str, ...]  # overrides of alignzoo's run
    model: str = "model"  # which of the folders of `material` is trained
    samples: int = 0  # completions of a prompt it samples; 0: it learns from the rows
    passes: int = 1  # optimizer steps from one rollout
    refers: bool = False  # to a reference, which both compute beforehand in the column `best`
    itself: bool = False  # TRL has no such trainer: compared with alignzoo's own padded path

    def overrides(self, folder: Path, steps: int, new_tokens: int) -> list[str]:
        overrides = [
            "model=hf", f"model.path={folder / self.model}", "data=jsonl", f"data.path={folder / f'{self.rows}.jsonl'}",
            "data.heldout=0", f"trainer.max_steps={steps}", f"trainer.batch={self.batch}", f"trainer.micro_batch={self.batch}",
            f"trainer.learning_rate={RATE}", "trainer.logging_steps=1", *(part.format(folder=folder) for part in self.ours),
        ]  # fmt: skip
        if self.samples:
            prompts = self.batch // self.samples
            overrides += [
                f"generation.max_new_tokens={new_tokens}",
                f"rollout.samples={self.samples}",
                f"rollout.prompts={prompts}",
            ]
        return overrides


VOWELS = ("reward=function", "reward.path=benchmarks.speed.rewards.vowels")
KINDS = {
    "dpo": Kind("pairs", 4, ("algorithm=dpo",), refers=True),
    "sft": Kind("demonstrations", 8, ("algorithm=sft",)),
    "bradley_terry": Kind("pairs", 4, ("algorithm=bradley_terry",), model="scorer"),
    "kto": Kind("judged", 8, ("algorithm=kto",), refers=True),
    "rloo": Kind("pairs", 16, ("algorithm=reinforce", "algorithm.baseline=leave_one_out", *VOWELS), "sampler", SAMPLES),
    "grpo": Kind("pairs", 16, ("algorithm=grpo", *VOWELS), "sampler", SAMPLES),
    "distill": Kind("pairs", 8, ("algorithm=distill", "algorithm.lam=1", "roles.teacher={folder}/teacher"), "sampler", 1),
    "ppo": Kind("pairs", 16, ("algorithm=ppo", *VOWELS), "sampler", SAMPLES, passes=4, itself=True),
}
PADDED = ("model.forward=padded", "generation.decoding=plain")  # what alignzoo would do without any of its layouts
