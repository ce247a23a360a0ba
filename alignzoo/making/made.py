"""The training view of a run, made: sampled, scored, labelled, put into tables."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from alignzoo.batch import Batch, Completions
from alignzoo.common import fingerprint
from alignzoo.common.progress import progress
from alignzoo.config.code import of_object
from alignzoo.contracts import Context, Source, Tables
from alignzoo.data.files import JsonLines
from alignzoo.data.raters import Votes, settled
from alignzoo.data.reading import reading
from alignzoo.data.rows import Row
from alignzoo.data.text import TextSource
from alignzoo.errors import UserError, masked
from alignzoo.making.labeller import labeller
from alignzoo.making.labels import Label, labels, thresholds
from alignzoo.making.prompts import Asked, train_and_heldout
from alignzoo.making.rows import rater, row
from alignzoo.making.samples import Draw, Sample, Store
from alignzoo.making.writer import Writer, writer
from alignzoo.rewards.checked import checked
from alignzoo.settings import Making, embedded
from alignzoo.setup import RunConfig


@dataclass(frozen=True)
class Labelled:
    """Labels of the samples of some prompts, and where these are from."""

    asked: Asked
    labels: list[Label]
    counts: dict[str, int]
    store: Store
    draws: int


@dataclass(frozen=True)
class Result:
    train: Labelled
    heldout: Labelled | None
    heldout_rows: list[Row]  # of the source: evaluation samples from their prompts
    own_tokens: bool


def tables(setup: RunConfig, source: Source, view: type[Batch], context: Context) -> Tables:
    """Tables of `view` from what `setup.making` makes of the source's prompts. Raises UserError where that can't be."""
    made = make(setup, source, context)
    rows, agreement = _settled(made.train, source, made.own_tokens)
    kept, _ = _settled(made.heldout, source, made.own_tokens) if made.heldout else ([], {})
    if not rows:
        raise UserError(f"making={setup.making.kind.value}: nothing could be made; {_said(made.train.counts)}")
    text, asked = (source, made.heldout_rows) if isinstance(source, TextSource) else (JsonLines(), None)
    found = text.tables_of(view, context, rows, kept, agreement, asked)
    prompts = found.prompts if asked is not None else source.tables(view, context).prompts
    return Tables(
        train=found.train, heldout=found.heldout, prompts=prompts, report=found.report | {"made": report(setup, made)}
    )


def _settled(side: Labelled, source: Source, own_tokens: bool) -> tuple[list[Row], dict[str, Any]]:
    """The labels as rows, those of several raters settled as the data's are, and how far they agree."""
    rows = [row(label, side.asked.rows[side.asked.prompt_of(label.draw.number)], own_tokens) for label in side.labels]
    if not any(label.rater for label in side.labels):
        return rows, {}
    named = [replace(one, values=one.values | {"rater": rater(label)}) for one, label in zip(rows, side.labels, strict=True)]
    return settled(named, getattr(source, "votes", Votes.majority))


def make(setup: RunConfig, source: Source, context: Context) -> Result:
    """Sample, or read what was sampled before, and label."""
    making: Making = setup.making
    author = writer(setup, source, context)
    train, heldout, heldout_rows = train_and_heldout(source, author.context, making.seed)
    maker = _Maker(setup, source, author)
    drawn = maker.draws(train, making.prompts or len(train.rows))
    levels = thresholds(drawn[1], making.levels)
    out = None
    if heldout and making.heldout:
        kept = maker.draws(heldout, min(making.heldout, len(heldout.rows)))
        out = _labelled(making, heldout, kept, levels)
    return Result(_labelled(making, train, drawn, levels), out, heldout_rows, author.own_tokens)


def report(setup: RunConfig, made: Result) -> dict[str, Any]:
    """What a run's summary says of its data: enough to find and to make it again."""
    making = setup.making
    sides = {"train": made.train, **({"heldout": made.heldout} if made.heldout else {})}
    return {
        "settings": {f.name: getattr(value := getattr(making, f.name), "value", value) for f in fields(making)},
        "labeller": labeller(setup)[1],
        **{name: {"samples": str(side.store.folder), "draws": side.draws, "reused": side.store.reused,
                  "records": len(side.labels), **side.counts} for name, side in sides.items()},
    }  # fmt: skip


class _Maker:
    """Samples and scores for the stores of one run."""

    def __init__(self, setup: RunConfig, source: Source, author: Writer) -> None:
        self.setup, self.author = setup, author
        given, self.name = labeller(setup)
        self.reward = copy.deepcopy(given)  # set up for the writer's tokenizer; the run's own is not touched
        self.reward.setup(author.context)
        how = ("is", "decoding", "server")  # changes nothing about what is drawn
        sampling = {name: value for name, value in described(author.sampling).items() if name not in how}
        settings = described(given)
        self.origins: dict[str, Any] = {
            **author.origins(), "sampling": sampling, "seed": setup.making.seed,
            "encoder": reading(source, author.context),
            "labeller": {"name": self.name, "settings": settings, "scoring": described(setup.scoring),
                         "code": of_object(self.name.partition("=")[0], given, settings)},
        }  # fmt: skip
        self.notes = {"model": setup.making.model or setup.model.path, "data": setup.choices["data"]}

    def draws(self, asked: Asked, count: int) -> tuple[Store, list[Draw]]:
        content = [[r["prompt"], r.remaining] for r in asked.rows]
        prompts = {"count": len(asked.rows), "hash": fingerprint.of_json(content)[:16]}
        origins = self.origins | {"prompts": prompts, "purpose": asked.purpose}
        store = Store(self.author.context.cache, origins, self.notes, self._make(asked))
        with progress(f"{asked.purpose}: {count} prompts x {self.setup.making.samples} samples", count) as done:
            return store, store.draws(count, done)

    def _make(self, asked: Asked) -> Callable[[range], list[Draw]]:
        shared = self.author.network.shared
        judge = checked(self.reward, self.name, shared, len(asked.rows), lambda c, scores: None, self.setup.scoring)
        each = max(1, self.setup.making.batch // self.author.sampling.samples)

        def make(draws: range) -> list[Draw]:
            parts = [draws[i : i + each] for i in range(0, len(draws), each)]
            return [draw for part in parts for draw in _draws(asked, part, self._scored(asked, part, judge))]

        return make

    def _scored(self, asked: Asked, draws: range, judge: Any) -> list[Sample]:
        c = self.author.write(asked.batch(draws), asked.purpose)
        with self.author.network.shared.noise.during(f"{asked.purpose}, judged", 0):
            scores = judge(c)
        total = scores.total if scores.total.dim() == 1 else c.sum(scores.total)
        return list(_samples(c, total.tolist(), scores.usable.tolist()))


def _samples(c: Completions, totals: list[float], usable: list[bool]) -> Iterator[Sample]:
    for text, ids, own, cut, total, known in zip(c.text, c.ids, c.attended, c.truncated.tolist(), totals, usable, strict=True):
        yield Sample(text, ids[own].tolist(), cut, total if known else None)


def _draws(asked: Asked, draws: range, samples: list[Sample]) -> list[Draw]:
    each = len(samples) // len(draws)
    return [Draw(draw, asked.prompt_of(draw), samples[i * each : (i + 1) * each]) for i, draw in enumerate(draws)]


def _labelled(making: Making, asked: Asked, drawn: tuple[Store, list[Draw]], levels: list[float]) -> Labelled:
    store, draws = drawn
    found, counts = labels(draws, making, asked.purpose, levels)
    return Labelled(asked, found, counts, store, len(draws))


def described(settings: Any) -> Any:
    """Settings as plain values, files and folders by content: what was made with others is not found."""
    if is_dataclass(settings):
        named = {f.name: described(getattr(settings, f.name)) for f in fields(settings) if f.init}
        return {"is": type(settings).__qualname__, **named}
    if isinstance(settings, Enum):
        return settings.value
    if isinstance(settings, str):
        path = Path(embedded(settings).partition(":")[0]).expanduser()
        return {"content": _content(path)} if ("/" in settings or path.suffix) and path.exists() else masked(settings)
    if isinstance(settings, Mapping):
        return {str(name): described(value) for name, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [described(value) for value in settings]
    return settings if isinstance(settings, int | float | None) else str(type(settings))


def _content(path: Path) -> str:
    files = [file for file in (sorted(path.rglob("*")) if path.is_dir() else [path]) if file.is_file()]
    return fingerprint.of_json([[file.name, fingerprint.of_file(file)] for file in files])[:16]


def _said(counts: Mapping[str, int]) -> str:
    told = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items())
    return told or "no completion was sampled"
