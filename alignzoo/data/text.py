"""Rows of text as tables: what sources of rows have in common, wherever these come from."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from alignzoo.batch import Batch, Completions, Pairs, Prompts
from alignzoo.common import fingerprint
from alignzoo.common.progress import counted
from alignzoo.contracts import Context, Models, Source, Table, Tables
from alignzoo.data.dialogue import Turns, as_messages, last_turn
from alignzoo.data.encode import Encoder
from alignzoo.data.json_text import Report
from alignzoo.data.large import LazyRows, examined, usable
from alignzoo.data.prepare import Preparation, Rows
from alignzoo.data.render import template
from alignzoo.data.rows import Row
from alignzoo.data.shown import TEMPLATES, TemplateCheck
from alignzoo.errors import UserError, require
from alignzoo.models.tokenizers import check, train_bpe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger("alignzoo")
COMPARED = 1024  # held-out pairs, or demonstrations, at most that evaluation looks at, in chunks of 64
CHUNK = 64
Sides = tuple[Rows, Rows, Report]  # rows to train on and to hold out, and what the report says of them


@dataclass(kw_only=True)
class TextSource(Source):
    """Rows with canonical columns (see `alignzoo.data.rows`), made into tokens."""

    max_prompt_tokens: int = field(
        default=0, metadata={"help": "keep the end of longer prompts; 0: a prompt too long is an error"}
    )
    max_completion_tokens: int = field(default=0, metadata={"help": "keep the beginning of longer completions; 0: never cut"})
    vocabulary: int = field(
        default=0,
        metadata={"help": "train a byte-level BPE tokenizer of this size on the training rows, for a fresh model; 0: don't"},
    )
    chat: bool = field(default=False, metadata={"help": "make plain prompts and completions messages of user and assistant"})
    system: str | None = field(default=None, metadata={"help": "a system message before prompts that have none"})
    chat_template: str | None = field(
        default=None,
        metadata={
            "help": "for the tokenizer's own template: a jinja file, `trl`, TRL's for training this tokenizer, or trl:NAME"
        },
    )
    template_options: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "handed to the template, such as enable_thinking"}
    )

    turns: Turns = field(
        default=Turns.all, metadata={"help": "of conversations all answers after the prompt are trained, or the last alone"}
    )

    @property
    def drops(self) -> bool:
        """Whether rows that can't be used are left out and counted, rather than an error."""
        return False

    def __post_init__(self) -> None:
        self._pairs: Table | None = None
        self._contents: dict[type[Batch] | None, Report] = {}
        self._ahead: dict[type[Batch] | None, Sides] = {}  # and not yet made into tables
        self._trained: PreTrainedTokenizerBase | None = None
        self._shown: Rows = []  # held out, as the data has them
        self._device = torch.device("cpu")
        for name in ("max_prompt_tokens", "max_completion_tokens", "vocabulary"):
            require(getattr(self, name) >= 0, f"data.{name}", getattr(self, name), ">= 0")

    @abstractmethod
    def rows(self) -> tuple[list[Row], list[Row], Report]:
        """Training rows, held-out rows, and counts of what was dropped. No prompt is in both."""

    def rows_for(self, view: type[Batch]) -> tuple[list[Row], list[Row], Report]:
        """The rows for an algorithm that learns from this view, where a source has several kinds."""
        return self.rows()

    def lazy_rows_for(self, view: type[Batch]) -> tuple[LazyRows, Rows, Report] | None:
        """As `rows_for`, of data that are too large to be held; None of others, and where the whole is needed."""
        return None

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """Trained on the training rows alone, or None."""
        if self.vocabulary and self._trained is None:
            train, _, _ = self.rows()
            self._trained = train_bpe(sorted({text for row in train for text in row.texts()}), self.vocabulary)
        return self._trained

    def tables(self, view: type[Batch], context: Context) -> Tables:
        check(context.tokenizer)
        self.content(view)
        return self.tables_of(view, context, *self._ahead.pop(view, None) or self._read(view))

    def content(self, view: type[Batch] | None) -> Report:
        """{file: number and hash of its rows in their order}, as an algorithm that learns from this view gets them; of None, as
        what is made of their prompts does. Rows are read, and hashed, once for this and for the tables that follow."""
        if view not in self._contents:
            sides = self.rows() if view is None else self._read(view)
            self._ahead = {view: sides}
            held = [row for side in sides[:2] if isinstance(side, list) for row in side]
            hashed = ((_file(row), [row.values, row.remaining]) for row in counted(held, "hashing the data"))
            stored = next((side.content for side in sides[:2] if isinstance(side, LazyRows)), {})
            self._contents[view] = fingerprint.of_rows(hashed) | stored
        return self._contents[view]

    def _read(self, view: type[Batch]) -> Sides:
        return self.lazy_rows_for(view) or self.rows_for(view)

    def tables_of(
        self, view: type[Batch], context: Context, train: Rows, heldout: Rows, counts: Report,
        sampled: Rows | None = None,
    ) -> Tables:  # fmt: skip
        """These rows as tables, whoever made them; `sampled` are the held-out rows whose prompts evaluation samples from, where
        they are others than `heldout`."""
        self._device = context.device
        tally: Counter[str] = Counter()
        sides = [train, heldout, [] if sampled is None else sampled]
        if self.chat:
            sides = [self._changed(rows, as_messages, tally) for rows in sides]
        # after the dialogues, since the encoder asks whether rows are messages, and before what a template may not show
        encoder = context.encoder = self.encoder(context, examined(sides[0]))
        shown = TemplateCheck(encoder)
        self._check_messages(shown, [row for rows in sides[:2] for row in examined(rows)])
        for change in (shown.row, *([last_turn] if self.turns is Turns.last else [])):
            sides = [self._changed(rows, change, tally) for rows in sides]
        train, heldout = sides[:2]
        if not train:
            raise UserError(f"no row is left to train on: {', '.join(f'{name}={n}' for name, n in tally.items())}")
        self._shown = heldout if sampled is None else sides[2]
        tables = self._preparation(view, encoder, context).tables(train, heldout, None if sampled is None else sides[2])
        self._pairs = tables.heldout if view is Pairs else self._table_of(Pairs, heldout, encoder, context)
        if self.system and not isinstance(train, LazyRows):
            tally["rows_with_their_own_system"] = sum(map(_has_system, [*train, *heldout]))
        report = {**counts, **tables.report, **{name: n + counts.get(name, 0) for name, n in tally.items() if n}}
        if lost := losses(report, self.max_prompt_tokens, self.max_completion_tokens):
            logger.warning("data: %s", lost)
        return Tables(train=tables.train, heldout=tables.heldout, prompts=tables.prompts, report=report)

    def encoder(self, context: Context, rows: Sequence[Row] = ()) -> Encoder:
        return Encoder(
            tokenizer=context.tokenizer, chat=self.chat, system=self.system,
            template=template(self.chat_template, context.tokenizer), options=self.template_options,
            encoder_decoder=context.encoder_decoder, messages=any(isinstance(row.values.get("prompt"), list) for row in rows),
        )  # fmt: skip

    def _check_messages(self, shown: TemplateCheck, rows: Sequence[Row]) -> None:
        """Raises UserError for settings about messages that nothing comes of; tells of a system message that no row uses."""
        for name in ("system", "chat_template", "template_options") if not (self.chat or shown.encoder.messages) else ():
            if value := getattr(self, name):
                what = "is about messages, and these rows are plain text"
                raise UserError(f"data.{name}={value} {what}: give data.chat=true too")
        if strange := shown.unknown(self.template_options):
            raise UserError(f"data.template_options={self.template_options}: the chat template {strange}")
        if self.system and "system" in shown.lost:
            raise UserError(f"data.system={self.system}: the chat template shows no system message\n{TEMPLATES}")
        if self.system and all(map(_has_system, rows)):
            logger.warning("data: none of %d rows uses data.system: each has a system message of its own", len(rows))

    def _changed(self, rows: Rows, change: Callable[[Row], Row], counts: Counter[str]) -> Rows:
        """The rows through `change`, without those for which it raises UnusableRow, where such are dropped."""
        return rows.then(change) if isinstance(rows, LazyRows) else list(usable(rows, change, self.drops, counts))

    def prompts(self, rows: list[Row], context: Context) -> tuple[list[Row], Table]:
        """Every prompt of these rows once, as a row and as the tokens that a model is given."""
        check(context.tokenizer)
        encoder = self.encoder(context)
        for change in (*([as_messages] if self.chat else []), TemplateCheck(encoder).row):
            rows = list(usable(rows, change, self.drops, Counter()))
        return self._preparation(Prompts, encoder, context).prompts(rows)

    @torch.no_grad()
    def evaluate(self, models: Models) -> dict[str, float]:
        """On held-out pairs, where the data has any, the share whose chosen completion is the likelier one: under the policy
        (`preference_accuracy_logprob`), and under the policy relative to the reference (`preference_accuracy`, DPO's implicit
        reward). Ties count half."""
        if self._pairs is None:
            return {}
        rows = range(min(COMPARED, len(self._pairs)))
        chunks = [self._pairs.batch(rows[i : i + CHUNK]).to(self._device) for i in range(0, len(rows), CHUNK)]
        margins = [_margins(models, pairs) for pairs in chunks if isinstance(pairs, Pairs)]
        names = margins[0].keys()
        return {name: float(torch.cat([part[name] for part in margins]).sign().mean()) / 2 + 0.5 for name in names}

    def _preparation(self, view: type[Batch], encoder: Encoder, context: Context) -> Preparation:
        return Preparation(
            view=view, encoder=encoder, context=context, max_prompt_tokens=self.max_prompt_tokens,
            max_completion_tokens=self.max_completion_tokens, drop=self.drops,
        )  # fmt: skip

    def heldout_demonstrations(self, context: Context) -> Table | None:
        return self._table_of(Completions, self.demonstrated()[:COMPARED], self.encoder(context), context)

    def demonstrated(self) -> Rows:
        """The held-out rows that may hold demonstrations."""
        return self._shown

    def _table_of(self, view: type[Batch], rows: Rows, encoder: Encoder, context: Context) -> Table | None:
        """Records to evaluate on, or None where the data has none that fit: what can't be had is absent."""
        try:
            return self._preparation(view, encoder, context).table(rows)
        except UserError:
            return None


def _file(row: Row) -> str:
    """Where a row is from, without its number."""
    return row.where.rpartition(", ")[0] or "rows"


def _has_system(row: Row) -> bool:
    prompt = row.values.get("prompt")
    return isinstance(prompt, list) and any(message["role"] == "system" for message in prompt)


def _margins(models: Models, pairs: Pairs) -> dict[str, torch.Tensor]:
    """(B,) each: how much likelier the chosen completion is than the rejected one."""
    both = pairs.both
    policy = both.sum(models.policy.logprobs(both))
    sides = {"preference_accuracy_logprob": policy}
    reference = getattr(models, "reference", None)
    if reference is not None:
        sides["preference_accuracy"] = policy - both.sum(reference.logprobs(both))
    return {name: torch.sub(*side.chunk(2)) for name, side in sides.items()}


def losses(report: Report, prompt_limit: int, completion_limit: int) -> str:
    """What was cut and dropped, in one line: of the counts of a data report, and of those of each of its sources; "" where
    nothing was lost."""
    texts = {
        "prompts_truncated": f"prompts cut to data.max_prompt_tokens={prompt_limit}",
        "completions_truncated": f"completions cut to data.max_completion_tokens={completion_limit}",
        "heldout_prompts_cut_to_sample": "heldout prompts cut to sample",
    }
    parts = [(texts.get(name, name.replace("_", " ")), n) for name, n in _lost(report).items()]
    return ", ".join(f"{n} {text if n > 1 else text.replace('s ', ' ', 1)}" for text, n in parts)


def _lost(report: Report) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, value in report.items():
        if isinstance(value, dict):
            counts += _lost(value)
        elif name.endswith(("_dropped", "_truncated", "_cut_to_sample")):
            counts[name] += value
    return +counts
