"""Evaluation on held-out prompts: the same measures for every algorithm, taken on the policy's own samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from alignzoo.batch import Batch, Completions, Prompts
from alignzoo.common import reference_samples
from alignzoo.common.ranks import gather_objects
from alignzoo.contracts import Algorithm, Models, Policy, Source, Table, Tables
from alignzoo.data.readable import originals, readable
from alignzoo.engine import scorer_metrics
from alignzoo.engine.loader import Share
from alignzoo.engine.meters import Meter
from alignzoo.engine.objective import averaging_weight, named_terms, weight_of, weighted_sum, weights_of
from alignzoo.engine.reference_side import ReferenceSide
from alignzoo.errors import UserError
from alignzoo.models import roles
from alignzoo.models.roles import Score, bound
from alignzoo.settings import Sampling
from alignzoo.statistics import text_statistics

CHUNK = 64  # prompts sampled, or records scored, at once
NLL = "nll"  # of a token of the demonstrations, in nats
Row = dict[str, object]
B = TypeVar("B", bound=Batch)


@dataclass(kw_only=True)
class Evaluator:
    """Reward, KL to the reference, entropy and length of one completion for each held-out prompt, and where it is text, what it
    is like beside the reference's; the perplexity of held-out demonstrations; the loss on held-out records, for algorithms that
    learn from records; and what only the task can compute. What can't be had is absent. Of a scorer, which writes nothing: how
    well it judges the held-out records."""

    models: roles.RoleNetworks  # as evaluation sees them
    main: str  # the role that the run is for: a policy, or a scorer
    pairs: bool = False  # whether that scorer reads two completions at once
    tables: Tables
    source: Source
    sampling: Sampling
    prompts: int
    share: Share
    device: torch.device
    folder: Path
    learner: tuple[Algorithm, Models] | None = None  # with what it may see, where it learns from records
    metrics: Mapping[str, Callable[..., object]] = field(default_factory=dict)  # plugins, by name
    gold: Score | None = None  # the reward that stands for the human judge
    demonstrations: Table | None = None  # held out
    reference_side: ReferenceSide | None = None  # where the reference writes too
    trained_policy: Policy | None = None  # as it is
    best_of: int = 0  # completions of each prompt whose rewards are kept, before training: the policy is the reference then

    def __call__(self, module: nn.Module, step: int) -> tuple[dict[str, float], list[Row]]:
        """The metrics, and the rows of completions.jsonl, sorted by prompt. `module` is the trained one, as it is wrapped: with
        one forward of it for everything, since data-parallel wrappers synchronise at each."""
        measures, rows = module(bound(self._measure, step))
        rows = sorted((row for part in gather_objects(rows) for row in part), key=lambda row: row["row"])
        if self.models.shared.support is None:  # else it is not text, but symbols of a task
            measures |= text_statistics.measured(rows)
        if step == 0 and self.best_of and self.models.has_reward:
            scores = module(bound(self._reference_scores))
            if self.share.rank == 0:
                for name, by_prompt in scores.items():
                    reference_samples.write(self.folder, by_prompt, name)
        return measures, rows

    def _reference_scores(self) -> dict[str, dict[str, list[float]]]:
        """By judge and prompt, of those prompts whose completions all have a score of every judge, gathered over ranks."""
        judges = self._judges()
        sampling = replace(self.sampling, samples=self.best_of)
        by_judge: dict[str, dict[str, list[float]]] = {name: {} for name in judges}
        with self.models.shared.at(sampling.temperature):
            for prompts in self._prompts(max(1, CHUNK // self.best_of)):
                assert self.trained_policy
                c = self.trained_policy.generate(prompts, sampling)
                scores = {name: judge(c) for name, judge in judges.items()}
                usable = torch.stack([judgement.usable.cpu() for judgement in scores.values()])
                whole = usable.all(0).view(len(prompts), -1).all(1).tolist()
                prompt_texts = [readable(text) for text in originals(prompts)]
                for name, judgement in scores.items():
                    rows = zip(prompt_texts, judgement.summed(c).view(len(prompts), -1).tolist(), whole, strict=True)
                    by_judge[name] |= {text: values for text, values, usable_all in rows if usable_all}
        parts = gather_objects(by_judge)
        return {name: {text: row for part in parts for text, row in part[name].items()} for name in judges}

    def _judges(self) -> dict[str, Score]:
        reward = {"reward": self.models.reward} if self.models.has_reward else {}
        return reward | ({"gold": self.gold} if self.gold else {})

    def _measure(self, step: int) -> tuple[dict[str, float], list[Row]]:
        meter, rows, writes = Meter(), list[Row](), self.main == "policy"
        if writes:
            with self.models.shared.at(self.sampling.temperature):
                for prompts in self._prompts():
                    rows += self._measure_samples(prompts, meter)
            with self.models.shared.at(1.0):  # of all scored tokens of the demonstrations alike
                for c in self._chunks(Completions, self.demonstrations, self.prompts):
                    meter.add(NLL, -self.models.policy.logprobs(c), c.scored.double())
        if self.learner:
            for records in self._chunks(Batch, self.tables.heldout):
                _measure_records(*self.learner, records, meter)
        extra = self.source.evaluate(self.models) if writes else self._judge(step)
        means = meter.means()
        if NLL in means:
            means["perplexity"] = math.exp(min(means.pop(NLL), 700.0))
        return means | extra, rows

    def _measure_samples(self, prompts: Prompts, meter: Meter) -> list[Row]:
        policy = self.models.policy
        c: Completions = policy.generate(prompts, self.sampling)
        measures = {"length": c.length, "truncated": c.truncated.float(), "entropy": c.mean(policy.entropy(c))}
        usable: dict[str, Tensor] = {}  # of those that not every completion has
        if "reference" in self.models.networks:
            measures["kl"] = c.sum(policy.logprobs(c) - self.models.reference.logprobs(c))
        for name, judge in self._judges().items():
            scores = judge(c)
            judged = {name: scores.summed(c), **{f"{name}/{part}": values for part, values in scores.parts.items()}}
            measures |= judged
            usable |= {part: scores.usable & ~values.isnan() for part, values in judged.items()}
        measures |= {f"metric/{name}": _measured(name, metric, c) for name, metric in self.metrics.items()}
        for name, values in measures.items():
            meter.add(name, values, usable[name].to(values.device).double() if name in usable else 1.0)
        texts_asked = originals(prompts)
        columns: dict[str, list[object]] = {
            "row": c.row.tolist(), "prompt": [readable(text) for text in texts_asked], "completion": [*c.text],
        }  # fmt: skip
        if any(isinstance(text, list) for text in texts_asked):
            columns["messages"] = [text if isinstance(text, list) else None for text in texts_asked]
        columns |= self.reference_side(self.models, prompts) if self.reference_side else {}
        for name, values in measures.items():
            there = usable[name].tolist() if name in usable else [True] * len(c)
            columns[name] = [value if can_be_had else None for value, can_be_had in zip(values.tolist(), there, strict=True)]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _judge(self, step: int) -> dict[str, float]:
        scorer = getattr(self.models, self.main)
        chunks = self._chunks(Batch, self.tables.heldout)
        judged = [row for records in chunks for row in scorer_metrics.judged(scorer, records, self.pairs)]
        metrics, data = scorer_metrics.measured(row for part in gather_objects(judged) for row in part)
        if data and self.share.rank == 0:
            scorer_metrics.write(self.folder, step, metrics, data)
        return metrics

    def _prompts(self, size: int = CHUNK) -> Iterator[Prompts]:
        return self._chunks(Prompts, self.tables.prompts, self.prompts, size)

    def _chunks(self, kind: type[B], table: Table | None, limit: int | None = None, size: int = CHUNK) -> Iterator[B]:
        """This rank's share of the first `limit` records of a table, if there is one."""
        count = 0 if table is None else len(table) if limit is None else min(limit, len(table))
        places = range(self.share.rank, count, self.share.ranks)
        for start in range(0, len(places), size):
            batch = table.batch(places[start : start + size]) if table else None
            if batch is not None and len(batch):
                assert isinstance(batch, kind)
                yield batch.to(self.device)


def _measured(name: str, metric: Callable[..., object], c: Completions) -> Tensor:
    """(B,). Raises UserError for a metric plugin that returns something else."""
    values = metric(c)
    if isinstance(values, Tensor) and values.shape == (len(c),):
        return values
    returned = f"a tensor of shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
    raise UserError(
        f"metrics=[{name}] returned {returned} for {len(c)} completions: return a tensor of one number each, ({len(c)},)"
    )


def _measure_records(algorithm: Algorithm, models: Models, batch: Batch, meter: Meter) -> None:
    (batch,) = algorithm.prepare(models, [batch])
    terms, metrics = named_terms(algorithm.loss(models, batch))
    weights = weights_of(algorithm, batch)
    totals = {name: weight.double().sum() for name, weight in weights.items()}
    for name, term in terms.items():
        weight, total = weight_of(name, term, weights, totals)
        meter.add("loss" if len(terms) == 1 else f"loss/{name}", weighted_sum(term, weight, total), total)
    for name, (value, mask) in metrics.items():
        meter.add(name, value, averaging_weight(value, mask, batch, float(len(batch))))
