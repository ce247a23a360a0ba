"""The training view of a run, made: sampled, scored, labelled, put into tables."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from alignzoo.batch import Batch, token_lists
from alignzoo.common import fingerprint
from alignzoo.common.progress import progress
from alignzoo.config.code import of_object
from alignzoo.contracts import Context, Scores, Source, Tables
from alignzoo.data.files import JsonLines
from alignzoo.data.raters import settled
from alignzoo.data.reading import reading
from alignzoo.data.rows import Row
from alignzoo.data.text import TextSource
from alignzoo.errors import UserError, masked
from alignzoo.making.draws import Draw, ScoredCompletion, Store
from alignzoo.making.label_rows import rater, row
from alignzoo.making.labeller import labeller
from alignzoo.making.labels import Label, labels, thresholds
from alignzoo.making.prompts import PromptPool, train_and_heldout
from alignzoo.making.writer import Writer, writer
from alignzoo.rewards.checked import Checked
from alignzoo.settings import embedded
from alignzoo.setup import RunConfig


@dataclass(frozen=True)
class Labelled:
    """Labels of the samples of some prompts, and where these are from."""

    prompts: PromptPool
    labels: list[Label]
    counts: dict[str, int]
    store: Store
    draws: int


@dataclass(frozen=True)
class MadeData:
    train: Labelled
    heldout: Labelled | None
    heldout_rows: list[Row]  # of the source: evaluation samples from their prompts
    own_tokens: bool


def tables(setup: RunConfig, source: Source, view: type[Batch], context: Context) -> Tables:
    """Tables of `view` from what `setup.making` makes of the source's prompts. Raises UserError where that can't be."""
    data = make(setup, source, context)
    rows, agreement = _settled(data.train, source, data.own_tokens)
    heldout, _ = _settled(data.heldout, source, data.own_tokens) if data.heldout else ([], {})
    if not rows:
        counts = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in data.train.counts.items())
        raise UserError(f"making={setup.making.kind.value}: nothing could be made; {counts or 'no completion was sampled'}")
    text, evaluated = (source, data.heldout_rows) if isinstance(source, TextSource) else (JsonLines(), None)
    prepared = text.tables_of(view, context, rows, heldout, agreement, evaluated)
    prompts = prepared.prompts if evaluated is not None else source.tables(view, context).prompts
    return replace(prepared, prompts=prompts, report=prepared.report | {"made": report(setup, data)})


def _settled(side: Labelled, source: Source, own_tokens: bool) -> tuple[list[Row], dict[str, Any]]:
    """The labels as rows, those of several raters settled as the data's are, and how far they agree."""
    rows = [row(label, side.prompts.rows[side.prompts.prompt_of(label.draw.number)], own_tokens) for label in side.labels]
    if not any(label.rater for label in side.labels):
        return rows, {}
    named = [replace(r, values=r.values | {"rater": rater(label)}) for r, label in zip(rows, side.labels, strict=True)]
    return settled(named)


def make(setup: RunConfig, source: Source, context: Context) -> MadeData:
    """Sample, or read what was sampled before, and label."""
    making = setup.making
    author = writer(setup, source, context)
    train, heldout, heldout_rows = train_and_heldout(source, author.context, making.seed)
    maker = _Maker(setup, source, author)
    store, draws = maker.draws(train, making.prompts or len(train.rows))
    levels = thresholds(draws, making.levels)

    def labelled(prompts: PromptPool, store: Store, draws: list[Draw]) -> Labelled:
        return Labelled(prompts, *labels(draws, making, prompts.purpose, levels), store, len(draws))

    side = None
    if heldout and making.heldout:
        side = labelled(heldout, *maker.draws(heldout, min(making.heldout, len(heldout.rows))))
    return MadeData(labelled(train, store, draws), side, heldout_rows, author.own_tokens)


def report(setup: RunConfig, data: MadeData) -> dict[str, Any]:
    """What a run's summary says of its data: enough to find and to make it again."""
    making = setup.making
    sides = {"train": data.train, **({"heldout": data.heldout} if data.heldout else {})}
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
        judge, self.name = labeller(setup)
        self.reward = copy.deepcopy(judge)  # set up for the writer's tokenizer; the run's own is not touched
        self.reward.setup(author.context)
        how = ("is", "decoding", "server", "options")  # changes nothing about what is drawn
        sampling = {name: value for name, value in described(author.sampling).items() if name not in how}
        settings = described(judge)
        self.origins: dict[str, object] = {
            **author.origins(), "sampling": sampling, "seed": setup.making.seed,
            "encoder": reading(source, author.context),
            "labeller": {"name": self.name, "settings": settings, "scoring": described(setup.scoring),
                         "code": of_object(self.name.partition("=")[0], judge, settings)},
        }  # fmt: skip
        self.notes = {"model": setup.making.model or setup.model.path, "data": setup.choices["data"]}

    def draws(self, prompts: PromptPool, count: int) -> tuple[Store, list[Draw]]:
        content = fingerprint.of_json([[r["prompt"], r.remaining] for r in prompts.rows])[:16]
        origins = {"prompts": {"count": len(prompts.rows), "hash": content}, "purpose": prompts.purpose}
        store = Store(self.author.context.cache, self.origins | origins, self.notes, self._make(prompts))
        with progress(f"{prompts.purpose}: {count} prompts x {self.setup.making.samples} samples", count) as done:
            return store, store.draws(count, done)

    def _make(self, prompts: PromptPool) -> Callable[[range], list[Draw]]:
        shared, samples = self.author.network.shared, self.author.sampling.samples
        judge = Checked(self.reward, self.name, shared, len(prompts.rows), self.setup.scoring)
        size = max(1, self.setup.making.batch // samples)

        def make(draws: range) -> list[Draw]:
            scored = []
            for start in range(0, len(draws), size):
                scored += self._scored(prompts, draws[start : start + size], judge)
            groups = [scored[start : start + samples] for start in range(0, len(scored), samples)]
            return [Draw(n, prompts.prompt_of(n), group) for n, group in zip(draws, groups, strict=True)]

        return make

    def _scored(self, prompts: PromptPool, draws: range, judge: Checked) -> list[ScoredCompletion]:
        c = self.author.write(prompts.batch(draws), prompts.purpose)
        with self.author.network.shared.noise.during(f"{prompts.purpose}, judged", 0):
            scores: Scores = judge(c)
        samples = zip(c.text, token_lists(c.ids, c.attended), c.truncated.tolist(), scores.numbers(c), strict=True)
        return [ScoredCompletion(*sample) for sample in samples]


def described(settings: object) -> Any:
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
