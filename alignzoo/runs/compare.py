"""One trained policy against another, on the same held-out prompts and demonstrations: about these two runs, each difference
with its interval over prompts, and not about the algorithms, whose next seed may differ by more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from alignzoo.batch import Completions
from alignzoo.common import console
from alignzoo.common.words import words
from alignzoo.config.composition import compose
from alignzoo.config.run import instantiate
from alignzoo.errors import UserError, nearest, require
from alignzoo.runs.sample import CHUNK, SIDES, PairedSample, PairSampler, show_one
from alignzoo.statistics import text_statistics
from alignzoo.statistics.comparison import LEVEL
from alignzoo.statistics.intervals import Ends, mean_interval
from alignzoo.statistics.prompts import PromptTest, over_prompts

SHOWN, WORDS = 10, "words"


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
    """A comparison of two runs: `test` is of the `metric`."""

    first: str
    second: str
    prompts: int
    demonstrations: int
    metric: str
    test: PromptTest
    measures: list[Measure]
    samples: list[PairedSample] = field(default_factory=list)

    def __getitem__(self, name: str) -> Measure:
        """The measure of this name. Raises KeyError where it couldn't be had."""
        return {measure.name: measure for measure in self.measures}[name]

    def to_json(self) -> str:
        sides = dict(zip(SIDES, ("first", "second"), strict=True))
        document = asdict(self)
        for sample in document["samples"]:
            sample |= {name: sample.pop(side) for side, name in sides.items()}
            sample["scores"] = {sides[side]: scores for side, scores in sample["scores"].items()}
        return json.dumps(document, indent=1, ensure_ascii=False)


def compare(
    first: str | Path, second: str | Path, prompts: int = 200, judge: Sequence[str] = (), temperature: float | None = None,
    seed: int = 0, trust: bool = False, samples: int = 1, metric: str | None = None,
) -> PolicyComparison:  # fmt: skip
    """The policies of two finished runs, `second` as a rule that which `first` started from, on the first so many held-out
    prompts of the first run and on its held-out demonstrations.

    Differences are paired by prompt; of several `samples` of a prompt the mean counts. `judge` is overrides such as
    ["gold=sentiment"]; none: the first run's gold and its reward. `metric`, one of these or "words", is what is tested. Raises
    UserError where there is no judge, no held-out prompt, or where the runs have different vocabularies.
    """
    require(prompts >= 2, "-n", prompts, ">= 2")
    require(samples >= 1, "--samples", samples, ">= 1")
    sampler = PairSampler(Path(first), temperature, seed, against=Path(second), scored=not judge, trust=trust)
    sampler.sampling = replace(sampler.sampling, samples=samples)
    if judge:
        folder = sampler.setup.plugins_dir
        with_judge = instantiate(compose([*judge, *([f"plugins_dir={folder}"] if folder else [])]))
        if with_judge.gold is None:
            raise UserError(f"--judge {' '.join(judge)} names no judge: give gold=NAME, such as gold=sentiment")
        sampler.judges = {"gold": sampler.judge(with_judge.gold, str(with_judge.choices["gold"]))}
    names = [*sampler.judges, WORDS]
    if not sampler.judges and metric is None:
        raise UserError(
            f"{first} has no reward that scores by itself, and no gold: give --judge gold=NAME, such as gold=sentiment, "
            f"or --metric {WORDS}"
        )
    metric = metric or ("gold" if "gold" in sampler.judges else "reward")
    if metric not in names:
        raise UserError(f"--metric {metric} is none of {', '.join(names)}.{nearest(metric, names)}")
    written = sampler(sampler.heldout_prompts(prompts))
    by_prompt = [written[start : start + samples] for start in range(0, len(written), samples)]
    scores = {name: _judged(name, by_prompt) for name in sampler.judges} | {WORDS: _counted(by_prompt)}
    if len(scores[metric][0]) < 2:
        raise UserError(f"the {metric} scores {len(scores[metric][0])} of {len(by_prompt)} prompts on both sides: too few")
    surprise = perplexities(sampler)
    differences = [_difference(name, *both) for name, both in scores.items() if len(both[0]) >= 2]
    of_texts = _of_texts([group[0] for group in by_prompt])
    return PolicyComparison(
        str(first), str(second), len(by_prompt), 0 if surprise is None else surprise.shape[1], metric,
        over_prompts(*scores[metric]), [*differences, *of_texts, *_of_demonstrations(surprise)], written,
    )  # fmt: skip


def _judged(name: str, by_prompt: Sequence[Sequence[PairedSample]]) -> np.ndarray:
    """(2, N): the mean score of each side's completions of a prompt, of those prompts whose completions all have one."""
    scores = [[[s.scores[side][name] for s in group] for side in SIDES] for group in by_prompt]
    whole = [sides for sides in scores if all(score is not None for side in sides for score in side)]
    return np.array(whole, dtype=np.float64).reshape(len(whole), 2, -1).mean(2).T


def _counted(by_prompt: Sequence[Sequence[PairedSample]]) -> np.ndarray:
    """(2, N): the words of a completion, the mean over those of a prompt."""
    return np.array([[np.mean([len(words(getattr(s, side))) for s in group]) for group in by_prompt] for side in SIDES])


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
    return measures


def _of_demonstrations(surprise: np.ndarray | None) -> list[Measure]:
    if surprise is None or surprise.shape[1] < 2:
        return []
    nlls, tokens = surprise[:2], surprise[2]
    first, second = (float(np.exp(nll.sum() / tokens.sum())) for nll in nlls)
    return [Measure("perplexity", first, second, *text_statistics.perplexity_ratio(nlls[0], nlls[1], tokens), ratio=True)]


def show(comparison: PolicyComparison, shown: int = SHOWN) -> None:
    """Print a comparison and some of its samples."""
    names = tuple(Path(run).name or run for run in (comparison.first, comparison.second))
    for sample in comparison.samples[:shown]:
        show_one(sample, names if names[0] != names[1] else ("first", "second"))
    columns = ("first", "second", "first against second", "95 % interval")
    table = console.table("", *columns, right=columns)
    for m in comparison.measures:
        compared = f"x {m.compared:.3f}" if m.ratio else f"{m.compared:+.4g}"
        table.add_row(m.name, f"{m.first:.4g}", f"{m.second:.4g}", compared, _ends(m.interval))
    test = comparison.test
    table.add_row(f"wins by {comparison.metric}", "", "", f"{test.win_rate:.3f}", _ends(test.win_rate_interval))
    console.show(f"first: {comparison.first}\nsecond: {comparison.second}", soft_wrap=True)
    console.show(table)
    of = f", {comparison.demonstrations} held-out demonstrations" if comparison.demonstrations else ""
    console.show(f"{comparison.prompts} held-out prompts{of}; {test.wins} won, {test.ties} tied, {test.losses} lost")
    console.show(answer(comparison), soft_wrap=True)


def answer(comparison: PolicyComparison) -> str:
    """The one sentence to take away."""
    test, metric = comparison.test, comparison.metric
    how = f"{test.difference:+.4g} ({_ends(test.interval)}, p = {test.p:.2g}) on {test.prompts} held-out prompts"
    if test.p > LEVEL:
        return f"These two runs are not told apart by their {metric}: {how}."
    better, worse = (comparison.first, comparison.second)[:: 1 if test.difference > 0 else -1]
    return f"Of these two runs {better} has more {metric} than {worse}: {how}. Another seed of either may differ by more."


def _ends(interval: Ends | None) -> str:
    return "" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"
