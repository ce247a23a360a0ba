"""Evaluation on held-out prompts: the same measures for every algorithm, taken on the policy's own samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.common import reference_samples
from alignzoo.contracts import Metric, Scores, Source, Table, Tables
from alignzoo.data.readable import originals, readable
from alignzoo.engine import judging
from alignzoo.engine.beside import Beside
from alignzoo.engine.meters import Meter
from alignzoo.engine.trainer import AlignTrainer, default_weights, named_terms, weight_of, weighted_sum
from alignzoo.models.roles import Models, Score, bound, gather_objects, main_role
from alignzoo.settings import Sampling
from alignzoo.statistics import texts

CHUNK = 64  # prompts sampled, or records scored, at once
NLL = "nll"  # of a token of the demonstrations, in nats


@dataclass
class Evaluator:
    """Reward, KL to the reference, entropy and length of one completion for each held-out prompt, and where it is text, what it
    is like beside the reference's; the perplexity of held-out demonstrations; the loss on held-out records, for algorithms that
    learn from records; and what only the task can compute. What can't be had is absent. Of a scorer, which writes nothing: how
    well it judges the held-out records."""

    tables: Tables
    source: Source
    sampling: Sampling
    prompts: int
    online: bool
    metrics: Mapping[str, Metric] = field(default_factory=dict)  # plugins, by name
    gold: Score | None = None  # the reward that stands for the human judge
    demonstrations: Table | None = None  # held out
    beside: Beside | None = None  # where the reference writes too
    best_of: int = 0  # completions of each prompt whose rewards are kept, before training: the policy is the reference then

    def __call__(self, trainer: Any) -> dict[str, float]:
        # one forward of the wrapped module for everything: data-parallel wrappers synchronise at each
        metrics, rows = trainer.model_wrapped(bound(self._measure, trainer))
        rows = sorted((row for part in gather_objects(rows) for row in part), key=lambda row: row["row"])
        for row in rows:
            trainer.completions_file.write({"step": trainer.state.global_step, **row})
        if trainer.roles.shared.support is None:  # else it is not text, but symbols of a task
            metrics |= texts.measured(rows)
        if trainer.state.global_step == 0 and self.best_of and trainer.roles.has_reward:
            scores = trainer.model_wrapped(bound(self._reference_scores, trainer))
            if trainer.is_world_process_zero():
                for name, found in scores.items():
                    reference_samples.write(trainer.folder, found, name)
        return metrics

    def _reference_scores(self, trainer: AlignTrainer) -> dict[str, dict[str, list[float]]]:
        """By judge and prompt, of those prompts whose completions all have a score of every judge, gathered over ranks."""
        judges = {"reward": trainer.roles.reward} | ({"gold": self.gold} if self.gold else {})
        sampling = replace(self.sampling, samples=self.best_of)
        found: dict[str, dict[str, list[float]]] = {name: {} for name in judges}
        with trainer.roles.shared.at(sampling.temperature):
            for prompts in _chunks(trainer, self.tables.prompts, self.prompts, max(1, CHUNK // self.best_of)):
                c: Completions = trainer.roles.policy.generate(prompts, sampling)
                judged = {name: _scores(name, judge(c), c) for name, judge in judges.items()}
                usable = torch.stack([known[name].cpu() for name, (_, known) in judged.items()])
                asked = [readable(text) for text in originals(prompts)]
                whole = usable.all(0).view(len(asked), -1).all(1)
                for name, (measures, _) in judged.items():
                    rows = zip(asked, measures[name].view(len(whole), -1).tolist(), whole.tolist(), strict=True)
                    found[name] |= {text: scores for text, scores, known in rows if known}
        parts = gather_objects(found)
        return {name: {text: row for part in parts for text, row in part[name].items()} for name in judges}

    def _measure(self, trainer: AlignTrainer) -> tuple[dict[str, float], list[dict[str, Any]]]:
        meter, rows, writes = Meter(), [], "policy" in trainer.roles.networks
        with trainer.roles.shared.at(self.sampling.temperature):
            for prompts in _chunks(trainer, self.tables.prompts if writes else None, self.prompts):
                rows += self._measure_samples(trainer.roles, prompts, meter)
        if writes:
            self._measure_demonstrations(trainer, meter)
        if not self.online:
            for records in _chunks(trainer, self.tables.heldout, None):
                _measure_records(trainer, records, meter)
        own = self.source.evaluate(trainer.roles) if writes else self._judge(trainer)
        means = meter.means()
        if NLL in means:
            means["perplexity"] = math.exp(min(means.pop(NLL), 700.0))
        return means | own, rows

    def _measure_demonstrations(self, trainer: AlignTrainer, meter: Meter) -> None:
        """Of all scored tokens alike, at temperature 1."""
        with trainer.roles.shared.at(1.0):
            for c in _chunks(trainer, self.demonstrations, self.prompts):
                meter.add(NLL, -trainer.roles.policy.logprobs(c), c.scored.double())

    def _measure_samples(self, models: Models, prompts: Any, meter: Meter) -> list[dict[str, Any]]:
        c: Completions = models.policy.generate(prompts, self.sampling)
        measures: dict[str, Tensor] = {
            "length": c.length,
            "truncated": c.truncated.float(),
            "entropy": c.mean(models.policy.entropy(c)),
        }
        known: dict[str, Tensor] = {}
        if "reference" in models.networks:
            measures["kl"] = c.sum(models.policy.logprobs(c) - models.reference.logprobs(c))
        for name, judge in (("reward", models.reward if models.has_reward else None), ("gold", self.gold)):
            if judge:
                found, usable = _scores(name, judge(c), c)
                measures, known = measures | found, known | usable
        measures |= {f"metric/{name}": metric(c) for name, metric in self.metrics.items()}
        for name, values in measures.items():
            meter.add(name, values, known[name].to(values.device).double() if name in known else 1.0)
        made_of = originals(prompts)
        asked = [readable(text) for text in made_of]
        columns: dict[str, list[Any]] = {"row": c.row.tolist(), "prompt": asked, "completion": c.text}
        if any(isinstance(text, list) for text in made_of):
            columns["messages"] = [text if isinstance(text, list) else None for text in made_of]
        columns |= self.beside(models, prompts) if self.beside else {}
        for name, values in measures.items():
            told = known[name].tolist() if name in known else [True] * len(c)
            columns[name] = [value if there else None for value, there in zip(values.tolist(), told, strict=True)]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _judge(self, trainer: AlignTrainer) -> dict[str, float]:
        scorer = getattr(trainer.roles, main_role(list(trainer.trained.roles)))
        found = [one for records in _chunks(trainer, self.tables.heldout, None) for one in judging.judged(scorer, records)]
        metrics, data = judging.measured(one for part in gather_objects(found) for one in part)
        if data and trainer.is_world_process_zero():
            judging.write(trainer.folder, trainer.state.global_step, metrics, data)
        return metrics


def _chunks(trainer: AlignTrainer, table: Table | None, limit: int | None, size: int = CHUNK) -> Iterator[Any]:
    """This rank's share of the first `limit` records of a table, if there is one."""
    count = 0 if table is None else len(table) if limit is None else min(limit, len(table))
    mine = range(trainer.accelerator.process_index, count, trainer.accelerator.num_processes)
    for start in range(0, len(mine), size):
        batch = cast(Table, table).batch(mine[start : start + size])
        if len(batch):
            yield batch.to(trainer.args.device)


def _scores(name: str, scores: Scores, c: Completions) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A judgement and its parts as measures (B,), and where each can be had."""
    total = scores.total if scores.total.dim() == 1 else c.sum(scores.total)
    measures = {name: total, **{f"{name}/{part}": values for part, values in scores.parts.items()}}
    return measures, dict.fromkeys(measures, scores.usable)


def _measure_records(trainer: AlignTrainer, batch: Any, meter: Meter) -> None:
    algorithm, models = trainer.algorithm, trainer.views[""]
    (batch,) = algorithm.prepare(models, [batch])
    terms, metrics = named_terms(algorithm.loss(models, batch))
    weights = default_weights(batch) | algorithm.weights(batch)
    totals = {name: weight.double().sum() for name, weight in weights.items()}
    for name, term in terms.items():
        weight, total = weight_of(name, term, weights, totals)
        meter.add("loss" if len(terms) == 1 else f"loss/{name}", weighted_sum(term, weight, total), total)
    for name, value in metrics.items():
        meter.add(name, value, {1: weights["(B,)"], 2: weights.get("(B, T)", 1.0)}.get(value.dim(), float(len(batch))))
