"""One trained policy against another, on the same held-out prompts and demonstrations, each difference with its interval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from alignzoo.batch import Completions
from alignzoo.common import console
from alignzoo.common.disk import write_whole
from alignzoo.common.words import words
from alignzoo.config.composition import compose
from alignzoo.config.run import instantiate
from alignzoo.errors import UserError, require
from alignzoo.runs.sample import CHUNK, PairedSample, PairSampler, show_one
from alignzoo.statistics import text_statistics
from alignzoo.statistics.intervals import Ends, mean_interval

SHOWN = 10


@dataclass(frozen=True)
class Measure:
    """What the first and the second policy have of one thing; their difference, or where `ratio`, the first's share of the
    second's, with its 95 % interval where there is one."""

    name: str
    first: float
    second: float
    compared: float
    interval: Ends | None = None
    ratio: bool = False


@dataclass(frozen=True)
class PolicyComparison:
    """A comparison of two runs."""

    first: str
    second: str
    prompts: int
    demonstrations: int
    judge: str
    measures: list[Measure]
    win_rate: float
    win_rate_interval: Ends
    samples: list[PairedSample] = field(default_factory=list)

    def __getitem__(self, name: str) -> Measure:
        """The measure of this name. Raises KeyError where it couldn't be had."""
        return {measure.name: measure for measure in self.measures}[name]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


def compare(
    first: str | Path, second: str | Path, prompts: int = 200, judge: Sequence[str] = (), temperature: float | None = None,
    seed: int = 0, trust: bool = False,
) -> PolicyComparison:  # fmt: skip
    """The policies of two finished runs, `second` as a rule that which `first` started from, on the first so many held-out
    prompts of the first run and on its held-out demonstrations.

    Differences are paired by prompt. `judge` is overrides such as ["gold=sentiment"]; none: the first run's gold, else its
    reward. Raises UserError where there is no judge, no held-out prompt, or where the runs have different vocabularies.
    """
    require(prompts >= 2, "-n", prompts, ">= 2")
    sampler = PairSampler(Path(first), temperature, seed, against=Path(second), scored=not judge, trust=trust)
    if judge:
        folder = sampler.setup.plugins_dir
        with_judge = instantiate(compose([*judge, *([f"plugins_dir={folder}"] if folder else [])]))
        if with_judge.gold is None:
            raise UserError(f"--judge {' '.join(judge)} names no judge: give gold=NAME, such as gold=sentiment")
        sampler.judges = {"gold": sampler.judge(with_judge.gold, str(with_judge.choices["gold"]))}
    if not sampler.judges:
        raise UserError(
            f"{first} has no reward that scores by itself, and no gold: give --judge gold=NAME, such as gold=sentiment"
        )
    name = "gold" if "gold" in sampler.judges else "reward"
    samples = sampler(sampler.heldout_prompts(prompts))
    pairs = [(s.scores["policy"][name], s.scores["reference"][name]) for s in samples]
    scored = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(scored) < 2:
        raise UserError(f"the {name} scores {len(scored)} of {len(samples)} prompts on both sides: too few to compare")
    scores = np.array(scored, dtype=np.float64).T
    share, ends = text_statistics.win_rate(*scores)
    surprise = perplexities(sampler)
    return PolicyComparison(
        str(first), str(second), len(samples), 0 if surprise is None else surprise.shape[1], name,
        [_difference(name, *scores), *_of_texts(samples), *_of_demonstrations(surprise)], share, ends, samples,
    )  # fmt: skip


@torch.no_grad()
def perplexities(sampler: PairSampler) -> np.ndarray | None:
    """(3, N): of each held-out demonstration its nll under the policy and under the other one, and its tokens; None where there
    are none. At temperature 1."""
    table = sampler.setup.data.heldout_demonstrations(sampler.context)
    if table is None:
        return None
    columns = []
    with sampler.context.shared.at(1.0):
        for start in range(0, len(table), CHUNK):
            c = table.batch(range(start, min(start + CHUNK, len(table))))
            assert isinstance(c, Completions)
            columns.append(torch.stack([*(-c.sum(side.logprobs(c)) for side in (sampler.policy, sampler.reference)), c.length]))
    return torch.cat(columns, 1).double().numpy()


def _difference(name: str, first: np.ndarray, second: np.ndarray) -> Measure:
    extra = first - second
    return Measure(name, float(first.mean()), float(second.mean()), float(extra.mean()), mean_interval(extra))


def _of_texts(samples: Sequence[PairedSample]) -> list[Measure]:
    sides = [s.policy for s in samples], [s.reference for s in samples]
    measures = []
    for n in (1, 2):
        compared = text_statistics.distinct_ratio(*sides, n)
        if compared:
            first, second = (float(text_statistics.distinct(side, n) or 0) for side in sides)
            measures.append(Measure(f"distinct_{n}", first, second, *compared, ratio=True))
    repeated = [text_statistics.repetition(side) for side in sides]
    if repeated[0] is not None and repeated[1] is not None:
        measures.append(Measure("repetition", repeated[0], repeated[1], repeated[0] - repeated[1]))
    lengths = [np.array([len(words(text)) for text in side], dtype=np.float64) for side in sides]
    return [*measures, _difference("words", *lengths)]


def _of_demonstrations(surprise: np.ndarray | None) -> list[Measure]:
    if surprise is None or surprise.shape[1] < 2:
        return []
    nlls, tokens = surprise[:2], surprise[2]
    first, second = (float(np.exp(nll.sum() / tokens.sum())) for nll in nlls)
    return [Measure("perplexity", first, second, *text_statistics.perplexity_ratio(nlls[0], nlls[1], tokens), ratio=True)]


def show(comparison: PolicyComparison, out: Path | None = None, shown: int = SHOWN) -> None:
    """Print a comparison and some of its samples; `out` gets it all as JSON."""
    names = tuple(Path(run).name or run for run in (comparison.first, comparison.second))
    for sample in comparison.samples[:shown]:
        show_one(sample, names if names[0] != names[1] else ("first", "second"))
    columns = ("first", "second", "first against second", "95 % interval")
    table = console.table("", *columns, right=columns)
    for m in comparison.measures:
        compared = f"x {m.compared:.3f}" if m.ratio else f"{m.compared:+.4g}"
        table.add_row(m.name, f"{m.first:.4g}", f"{m.second:.4g}", compared, _ends(m.interval))
    table.add_row("win rate", "", "", f"{comparison.win_rate:.3f}", _ends(comparison.win_rate_interval))
    console.show(f"first: {comparison.first}\nsecond: {comparison.second}", soft_wrap=True)
    console.show(table)
    of = f", {comparison.demonstrations} held-out demonstrations" if comparison.demonstrations else ""
    console.show(f"{comparison.prompts} held-out prompts{of}; judged by the run's {comparison.judge}")
    if out:
        write_whole(out, comparison.to_json() + "\n")


def _ends(interval: Ends | None) -> str:
    return "" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"
