"""`data=instructions`: prompts that ask for what can be checked, and the verifier of it as their reward."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from alignzoo.batch import Completions
from alignzoo.common.noise import generator
from alignzoo.common.words import words
from alignzoo.contracts import Reward, Scores
from alignzoo.data.json_text import Report
from alignzoo.data.rows import Row, canonical
from alignzoo.data.text import TextSource
from alignzoo.errors import UserError, nearest, require
from alignzoo.rewards.text_measures import Constraints
from alignzoo.rewards.text_reward import Written, written
from alignzoo.tasks.kinds import HELD_OUT, KINDS, TRAINED

SUBJECTS = Path(__file__).with_name("subjects.json")
T = TypeVar("T")
DRAWS = 20  # for each row, within which one that is new must come


@dataclass(kw_only=True)
class Instructions(TextSource):
    """Made-up prompts, as messages: a question about a subject, and one or several instructions whose following can be checked.

    Held out are subjects, and kinds of instruction: every other held-out row has held-out kinds alone. The reward is the share
    of a row's instructions that the completion follows; `reward/KIND` is that of a kind, `reward/trained_kinds` and
    `reward/new_kinds` those of the rows with either. A row is a function of `task_seed` and its number.
    """

    size: int = field(default=2048, metadata={"help": "training rows"})
    heldout_size: int = field(default=256, metadata={"help": "held-out rows, half of them with held-out kinds"})
    kinds: list[str] = field(default_factory=lambda: [*TRAINED], metadata={"help": "of instruction, in training"})
    heldout_kinds: list[str] = field(default_factory=lambda: [*HELD_OUT], metadata={"help": "that training never sees"})
    most: int = field(default=3, metadata={"help": "instructions of one prompt"})
    several: float = field(default=0.5, metadata={"help": "share of prompts with more than one"})
    strict: bool = field(default=False, metadata={"help": "1 if all are followed, else 0"})
    task_seed: int = field(default=0, metadata={"help": "of the rows"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size >= 1, "data.size", self.size, ">= 1")
        for name in ("heldout_size", "task_seed"):
            require(getattr(self, name) >= 0, f"data.{name}", getattr(self, name), ">= 0")
        require(self.most >= 1, "data.most", self.most, ">= 1")
        require(0 <= self.several <= 1, "data.several", self.several, "in [0, 1]")
        for key, kinds in (("data.kinds", self.kinds), ("data.heldout_kinds", self.heldout_kinds)):
            if strange := next((name for name in kinds if name not in KINDS), None):
                raise UserError(f"{key}: no kind {strange!r}.{nearest(strange, KINDS)} There are {', '.join(KINDS)}")
        if not self.kinds:
            raise UserError("data.kinds has none: name some, or leave it out")
        if both := [name for name in self.kinds if name in self.heldout_kinds]:
            raise UserError(f"data.heldout_kinds: {both[0]} is in data.kinds too: leave it out of either")

    def rows(self) -> tuple[list[Row], list[Row], Report]:
        sides = [list(self._side(heldout)) for heldout in (False, True)]
        return sides[0], sides[1], {"rows": len(sides[0]) + len(sides[1])}

    def reward(self) -> Reward:
        return Verifier(strict=self.strict)

    def _side(self, heldout: bool) -> Iterator[Row]:
        document = json.loads(SUBJECTS.read_text("utf-8"))
        subjects = document["heldout_subjects" if heldout else "subjects"]
        side, size = ("heldout", self.heldout_size) if heldout else ("train", self.size)
        seen = set[str]()
        for number in range(size):
            new = heldout and bool(self.heldout_kinds) and number % 2 == 1
            for draw in range(DRAWS):
                rng = generator(self.task_seed, "instructions", side, number, draw)
                text, kinds, constraints = self._drawn(rng, document["questions"], subjects, new)
                if text not in seen:
                    break
            else:
                raise UserError(
                    f"data.{'heldout_size' if heldout else 'size'}={size}: there are not so many prompts of these kinds"
                )
            seen.add(text)
            raw = {"prompt": [{"role": "user", "content": text}], "constraints": constraints, "kinds": kinds, "new": new}
            yield canonical(raw, f"{side}, row {number + 1}", {})

    def _drawn(
        self, rng: np.random.Generator, questions: Sequence[str], subjects: Sequence[str], new: bool
    ) -> tuple[str, list[str], dict[str, object]]:
        """The prompt, the kinds of its instructions, and what they ask for."""
        text = _pick(rng, questions).format(_pick(rng, subjects))
        count = int(rng.integers(2, self.most + 1)) if self.most > 1 and rng.random() < self.several else 1
        kinds, constraints = list[str](), dict[str, object]()
        settled = set[str]()
        for name in rng.permutation(self.heldout_kinds if new else self.kinds).tolist():
            kind = KINDS[name]
            if len(kinds) < count and settled.isdisjoint(kind.about):
                constraint = _pick(rng, kind.asked)
                text += " " + kind.text(_pick(rng, kind.texts), constraint)
                settled.update(kind.about)
                kinds.append(name)
                constraints |= constraint
        for name in kinds:
            text = KINDS[name].style(text)
        return text, kinds, constraints


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


@dataclass(kw_only=True)
class Verifier(Reward):
    """The share of its row's instructions that a completion follows, or with strict=true whether it follows all; 0 for one
    without a word. What was asked beside them is not looked at."""

    strict: bool = False

    def __call__(self, c: Completions) -> Scores:
        rows = [verdicts(answer, cut) for answer, cut in zip(written(c), c.truncated.tolist(), strict=True)]
        totals = [float(all(row.values())) if self.strict else sum(row.values()) / len(row) for row in rows]
        new = [bool(answer.columns["new"]) for answer in written(c)]
        parts = {name: [float(row[name]) if name in row else torch.nan for row in rows] for name in KINDS}
        parts["trained_kinds"] = [torch.nan if is_new else total for total, is_new in zip(totals, new, strict=True)]
        parts["new_kinds"] = [total if is_new else torch.nan for total, is_new in zip(totals, new, strict=True)]
        device = c.ids.device
        return Scores(
            total=torch.tensor(totals, device=device),
            parts={name: torch.tensor(part, device=device) for name, part in parts.items()},
        )


def verdicts(answer: Written, cut: bool = False) -> dict[str, bool]:
    """By kind, whether the instructions of its row are followed; `cut` says that it did not end by itself."""
    kinds, constraints = answer.column("kinds", "reward=task"), answer.column("constraints", "reward=task")
    assert isinstance(kinds, list) and isinstance(constraints, dict)
    spoken = bool(words(answer.text))
    checks = {name: Constraints(**{key: constraints[key] for key in KINDS[name].names}, strict=True) for name in kinds}
    return {name: spoken and not (cut and KINDS[name].ended) and checks[name].rate(answer) == 1 for name in kinds}
