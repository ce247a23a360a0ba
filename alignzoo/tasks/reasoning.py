"""`data=reasoning_gym`: the generated tasks of the package reasoning-gym, and its scorers as their reward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

import torch

from alignzoo.batch import Completions
from alignzoo.common.noise import generator
from alignzoo.contracts import Reward, Scores
from alignzoo.data.json_text import Report
from alignzoo.data.mixture import shares
from alignzoo.data.rows import Row, canonical
from alignzoo.data.text import TextSource
from alignzoo.errors import UserError, first_line, nearest, require
from alignzoo.rewards.text_reward import Rating, TextReward, Written

EASY: dict[str, Any] = {
    "chain_sum": {"max_terms": 2, "max_digits": 1},
    "letter_counting": {"min_words": 1, "max_words": 3},
    "spell_backward": {"max_word_len": 4},
}
# of 0.1.25, each tried in two processes: they go through sets in the order of hashes, or draw from a stream of their own
UNREPEATABLE = (
    "isomorphic_strings", "knight_swap", "list_functions", "polynomial_multiplication", "pool_matrix", "ransom_note",
    "word_ladder",
)  # fmt: skip
OURS = ("seed", "size")  # settings of every generator that the source gives


class AnswerIn(Enum):
    whole = "whole"  # the completion is the answer
    tag = "tag"  # what stands in its last <answer> </answer> is


@dataclass(kw_only=True)
class ReasoningGym(TextSource):
    """Questions of generators of reasoning-gym (Stojanovski et al. 2025), as messages; its scorers, in [0, 1], are the reward.

        data=reasoning_gym data.generators='{spell_backward: 1, chain_sum: {weight: 2, max_terms: 2}}'

    Training and held-out rows are of seeds far apart; a training row whose question is held out is dropped and counted.
    `reward/GENERATOR` is the reward of that one's rows.
    """

    generators: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "name: weight, or {weight, and its own settings}; none: small sums, letters counted, words reversed"},
    )
    size: int = field(default=2048, metadata={"help": "training rows, before any are dropped"})
    heldout_size: int = field(default=256, metadata={"help": "held-out rows"})
    task_seed: int = field(default=0, metadata={"help": "of the questions"})
    ask: str = field(default="Give the answer only.", metadata={"help": "what is said after each question; empty: nothing"})
    answer: AnswerIn = field(
        default=AnswerIn.whole, metadata={"help": "what is scored: the whole completion, or what is in a tag"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size >= 1, "data.size", self.size, ">= 1")
        for name in ("heldout_size", "task_seed"):
            require(getattr(self, name) >= 0, f"data.{name}", getattr(self, name), ">= 0")
        self._made: dict[tuple[str, bool], Any] = {}
        self._settings: dict[str, dict[str, Any]] = {}
        self._weights: dict[str, float] = {}
        for name, value in (self.generators or EASY).items():
            settings = dict(value) if isinstance(value, Mapping) else {"weight": value}
            weight = settings.pop("weight", 1)
            good = isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight < float("inf")
            require(good, f"data.generators.{name}.weight", weight, "a number > 0")
            if taken := next((key for key in OURS if key in settings), None):
                setting = {"seed": "data.task_seed", "size": "data.size"}[taken]
                raise UserError(f"data.generators.{name}.{taken}={settings[taken]} is the source's to say: give {setting}")
            self._settings[name], self._weights[name] = settings, weight

    def rows(self) -> tuple[list[Row], list[Row], Report]:
        heldout = list(self._side(True))
        keys = {row.key for row in heldout}
        drawn = list(self._side(False))
        train = [row for row in drawn if row.key not in keys]
        if not train:
            raise UserError(f"data.generators: all {len(drawn)} training questions are held out: lower data.heldout_size")
        dropped = {"training_rows_of_heldout_prompts_dropped": n} if (n := len(drawn) - len(train)) else {}
        return train, heldout, {"rows": len(drawn) + len(heldout), **dropped}

    def reward(self) -> Reward:
        return GymScorer(source=self)

    def _side(self, heldout: bool) -> Iterator[Row]:
        side, size = ("heldout", self.heldout_size) if heldout else ("train", self.size)
        counts = shares([*self._weights.values()], size)
        places = [(name, number) for name, n in zip(self._weights, counts, strict=True) for number in range(n)]
        order = generator(self.task_seed, "reasoning_gym", side).permutation(len(places))
        for place, (name, number) in enumerate(places[i] for i in order.tolist()):
            entry = self.task(name, heldout)[number]
            text = f"{entry['question']}\n{self.ask}" if self.ask else entry["question"]
            columns = {"generator": name, "number": number, "heldout": heldout, "answer": entry["answer"]}
            raw = {"prompt": [{"role": "user", "content": text}], **columns}
            yield canonical(raw, f"{side}, row {place + 1}", {})

    def task(self, name: str, heldout: bool) -> Any:
        """The generator's data set of one side. Raises UserError for a missing package, and for names and settings that it
        doesn't have."""
        if (name, heldout) not in self._made:
            self._made[name, heldout] = self._make(name, heldout)
        return self._made[name, heldout]

    def _make(self, name: str, heldout: bool) -> Any:
        try:
            from reasoning_gym.factory import DATASETS
        except ModuleNotFoundError as error:
            remedy = "pip install 'alignzoo[reasoning]'"
            raise UserError(f"data=reasoning_gym needs {error.name}, which isn't installed: {remedy}") from error
        if name not in DATASETS:
            raise UserError(f"data.generators.{name}: reasoning-gym has no such generator.{nearest(name, DATASETS)}")
        if name in UNREPEATABLE:
            raise UserError(f"data.generators.{name}: its questions differ from process to process: choose others")
        kind, config = DATASETS[name]
        names = [f.name for f in fields(config) if f.name not in OURS]
        if strange := next((key for key in self._settings[name] if key not in names), None):
            there = f"It has {', '.join(names)}"
            raise UserError(f"data.generators.{name}.{strange}: no such setting.{nearest(strange, names)} {there}")
        # a generator's row is of its seed plus its number, so seeds of sides must be far apart
        seed = int(generator(self.task_seed, "reasoning_gym", name, "heldout" if heldout else "train").integers(2**31))
        try:
            settings = config(**self._settings[name], seed=seed, size=max(self.size, self.heldout_size))
            settings.validate()
            return kind(settings)
        except (AssertionError, TypeError, ValueError) as error:
            raise UserError(f"data.generators.{name}={self._settings[name]}: {first_line(error)}") from error


@dataclass(kw_only=True)
class GymScorer(TextReward):
    """What the generator of the row says of the answer."""

    source: ReasoningGym

    def rate(self, completion: Written) -> Rating:
        from reasoning_gym.utils import extract_answer

        columns = completion.columns
        name, text = str(columns["generator"]), completion.text
        task = self.source.task(name, bool(columns["heldout"]))
        answer = text.strip() if self.source.answer is AnswerIn.whole else extract_answer(text)
        try:
            return float(task.score_answer(answer, task[columns["number"]]))
        except Exception as error:
            return f"the scorer of {name} raised {type(error).__name__}: {first_line(error)}"

    def __call__(self, c: Completions) -> Scores:
        scores = super().__call__(c)
        of_row = c.prompts.columns["generator"]
        names = [of_row[i] for i in c.prompt_of.tolist()]
        for name in self.source.generators or EASY:
            scored = torch.tensor([generator_name == name for generator_name in names], device=c.ids.device)
            scores.parts[name] = torch.where(scored, scores.total, torch.nan)
        return scores
