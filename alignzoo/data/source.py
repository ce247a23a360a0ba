"""Rows of text as a data source, whatever they are read from."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import islice

from alignzoo.batch import Batch
from alignzoo.common.progress import counted
from alignzoo.data.json_text import Report
from alignzoo.data.large import LazyRows, Survey, usable
from alignzoo.data.messages import DROP
from alignzoo.data.prepare import Rows
from alignzoo.data.raters import Votes, settled
from alignzoo.data.repeats import Repeated, cleaned
from alignzoo.data.rows import COLUMNS, Row, UnusableRow, canonical, heldout_mask, split
from alignzoo.data.shots import FORMATS, check_format, formatted, with_shots
from alignzoo.data.stored import LARGE, RawRow, Stored
from alignzoo.data.text import TextSource
from alignzoo.data.views import compared_within_prompts, conversation_column, needed, no_answer
from alignzoo.errors import UserError, nearest, require


class Unusable(Enum):
    """What to do with rows that can't be read or used: broken lines, images, an empty completion, chosen equal to rejected."""

    error = "error"
    drop = "drop"


@dataclass(kw_only=True)
class RowSource(TextSource):
    """Rows of text in any of TRL's dataset types (see `alignzoo.data.rows`), or another format (`alignzoo.data.formats`), told
    apart by their columns.

    `columns` maps canonical columns to the data's: a name, or a template such as '{question}\\nAnswer:'.
    """

    path: str | None = field(default=None, metadata={"help": "where the data is"})
    heldout: float = field(default=0.1, metadata={"help": "share of the prompts kept out of training, chosen by hash"})
    columns: dict[str, str] = field(
        default_factory=dict, metadata={"help": "canonical column: the data's column, or a template"}
    )
    leave_out: list[str] = field(
        default_factory=list, metadata={"help": "columns not to look at, such as images that the text can do without"}
    )
    max_rows: int = field(default=0, metadata={"help": "use the first so many rows; 0: all"})
    unusable: Unusable = field(
        default=Unusable.error, metadata={"help": "rows that can't be used are an error, or dropped and counted by kind"}
    )
    duplicates: Repeated = field(
        default=Repeated.keep,
        metadata={"help": "pairs, ratings and rankings said again are kept, or dropped; counted either way"},
    )
    contradictions: Repeated = field(
        default=Repeated.keep,
        metadata={"help": "the same two completions preferred both ways, the same one rated differently, ..."},
    )
    scale: list[float] = field(
        default_factory=list, metadata={"help": "the lowest and the highest rating there may be, as [1,5]; none: any"}
    )
    votes: Votes = field(
        default=Votes.majority, metadata={"help": "of several raters: what most say, ties dropped and counted"}
    )

    prompt_format: str | None = field(
        default=None, metadata={"help": "what stands around a prompt, as 'Q: {prompt}\\nA:', or a name: question, reasoning"}
    )
    shots: int = field(default=0, metadata={"help": "solved examples before each prompt, of other training rows"})
    shot_format: str = field(default="{prompt}{completion}\n\n", metadata={"help": "of one; messages are turns instead"})
    shot_seed: int = field(default=0, metadata={"help": "which rows are shown to which"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.shots >= 0, "data.shots", self.shots, ">= 0")
        check_format("data.shot_format", self.shot_format, ("prompt", "completion"))
        if not self.shots and (self.shot_seed or self.shot_format != RowSource.shot_format):
            raise UserError("data.shot_format and data.shot_seed are about examples before a prompt: give data.shots too")
        if self.prompt_format is not None and self.prompt_format not in FORMATS:
            check_format("data.prompt_format", self.prompt_format, ("prompt",))
        require(0 <= self.heldout < 1, "data.heldout", self.heldout, "in [0, 1)")
        require(self.max_rows >= 0, "data.max_rows", self.max_rows, ">= 0")
        if self.scale and (len(self.scale) != 2 or self.scale[0] >= self.scale[1]):
            raise UserError(f"data.scale={_listed(self.scale)} must be the lowest and the highest rating, as [1,5]")
        if strange := next((name for name in self.columns if name not in COLUMNS), None):
            there = f"There are {', '.join(COLUMNS)}"
            raise UserError(f"data.columns.{strange}: no such canonical column.{nearest(strange, COLUMNS)} {there}")

    @property
    def drops(self) -> bool:
        return self.unusable is not Unusable.error

    @abstractmethod
    def read(self, heldout: bool) -> Iterable[RawRow] | None:
        """The training data, or data of its own to hold out, if there is any. `Stored` where it may be too large to be held."""

    def place(self) -> str:
        """`path`. Raises UserError where it isn't given."""
        if not self.path:
            raise UserError("no data: say where it is with data.path=PATH")
        return self.path

    def rows(self) -> tuple[list[Row], list[Row], Report]:
        """Training rows, held-out rows, and counts of what was dropped. No prompt is in both. Labels of several people are
        settled; how far those of the training data agree is told under "raters"."""
        counts: Counter[str] = Counter()
        rows, agreement = self.whole(False, counts) or ([], {})
        if apart := self.whole(True, counts):
            heldout = apart[0]
            keys = {row.key for row in heldout}
            train = [row for row in rows if row.key not in keys]
            counts["training_rows_of_heldout_prompts_dropped"] = len(rows) - len(train)
        else:
            train, heldout = split(rows, self.heldout)
        self._check(rows, counts, len(train))
        # what stands around prompts and before them comes after the split, which it doesn't change
        train, heldout = self._formatted(train), self._formatted(heldout)
        if self.shots:
            options = (self.shots, self.shot_format, self.shot_seed, self.chat)
            train, heldout = with_shots(train, train, *options), with_shots(heldout, train, *options)
        return train, heldout, self._report(counts) | agreement

    def rows_for(self, view: type[Batch]) -> tuple[list[Row], list[Row], Report]:
        """The rows that have what the view is made from. Raises UserError naming one that lacks it, unless they are dropped."""
        train, heldout, counts = self.rows()
        (train, heldout), lacking = self._with_columns(needed(view, train), train, heldout)
        return train, heldout, counts | lacking

    def lazy_rows_for(self, view: type[Batch]) -> tuple[LazyRows, Rows, Report] | None:
        """As `rows_for`, of a large data set; None of others, and where it takes the whole: shots, votes, and ratings that are
        compared within prompts. Rows of columns and types that can't be used are found now, of values when they are made."""
        if self.shots or 0 < self.max_rows <= LARGE:
            return None
        stored = self.read(heldout=False)
        if not isinstance(stored, Stored) or not stored.large:
            return None
        survey = Survey(stored, self.columns, self.leave_out)
        if not survey.go_through(self._canonical_row, self.max_rows, self.drops):
            return None
        # masks over all rows instead of lists: of a large data set nothing but a few bytes a row is held
        kept = survey.claims.kept(self.duplicates, self.contradictions, counts := survey.counts)
        rows, apart = survey.rows(self._canonical_row, self.drops), self.whole(True, counts)
        held = kept.copy()
        if apart is None:
            held[kept] = heldout_mask(rows.keys[kept], self.heldout)
        else:
            held = survey.of_prompts_of(apart[0])
            counts["training_rows_of_heldout_prompts_dropped"] = int((kept & held).sum())
        train = rows.at(kept & ~held)
        self._check(rows.examined, counts, len(train))
        return self._in_columns(view, train, apart[0] if apart else rows.at(kept & held), counts)

    def whole(self, heldout: bool, counts: Counter[str]) -> tuple[list[Row], Report] | None:
        """All rows of one side, votes settled and repeats dropped, and how far raters agree; None without such a side."""
        raw = self.read(heldout)
        if raw is None:
            return None
        rows, agreement = settled(self._canonical(raw, counts))
        if not agreement:  # votes on the same are one already
            rows = cleaned(rows, self.duplicates, self.contradictions, counts)
        return rows, agreement

    def _in_columns(
        self, view: type[Batch], train: LazyRows, heldout: Rows, counts: Counter[str]
    ) -> tuple[LazyRows, Rows, Report] | None:
        """With the columns of the view, or an error when a row without them is made; None where the view compares rows."""
        needs = needed(view, train.examined)
        if compared_within_prompts(view, train.examined):
            return None
        complete = partial(self._complete, needs)
        if isinstance(heldout, LazyRows):
            heldout = heldout.then(complete)
        else:
            (kept,), lacking = self._with_columns(needs, heldout)
            heldout, counts = self._formatted(kept), counts + lacking
        return train.then(complete), heldout, self._report(counts)

    def _check(self, rows: Sequence[Row], counts: Counter[str], left: int) -> None:
        """Raises UserError for settings that none of the rows has a use for, and where none is left to train on."""
        if self.scale and not any({"label", "votes"} & row.values.keys() for row in rows):
            raise UserError(f"data.scale={_listed(self.scale)} is about ratings, and {rows[0].where} has none: leave it out")
        if absent := [name for name in self.leave_out if not counts[f"left_out_{name}"]]:
            raise UserError(f"data.leave_out={_listed(absent)}: no row has such a column.{nearest(absent[0], rows[0].columns)}")
        if not left:
            raise UserError(
                f"data.path={self.path}: every row is held out, none is left to train on; give more data, or lower data.heldout"
            )

    def _report(self, counts: Counter[str]) -> Report:
        settings = {"shots": self.shots, "prompt_format": self.prompt_format}
        return {name: value for name, value in {**counts, **settings}.items() if value}

    def _with_columns(self, needs: Sequence[str], *sides: list[Row]) -> tuple[list[list[Row]], Counter[str]]:
        """The rows that have these columns, and counts of others. Raises UserError where there are some, unless dropped."""
        complete = [[row for row in side if not _lacking(row, needs)] for side in sides]
        lacking = [(row, name) for side in sides for row in side if (name := _lacking(row, needs))]
        if lacking and (not self.drops or not complete[0]):
            more = f", nor are {len(lacking) - 1} more rows complete" if len(lacking) > 1 else ""
            raise _incomplete(*lacking[0], more)
        return complete, Counter(f"rows_without_{name}_dropped" for _, name in lacking)

    def _complete(self, needs: Sequence[str], row: Row) -> Row:
        """The row with what stands around its prompt. Raises UnusableRow where it lacks one of these columns."""
        if name := _lacking(row, needs):
            raise _incomplete(row, name)
        return self._formatted([row])[0]

    def _formatted(self, rows: list[Row]) -> list[Row]:
        return rows if self.prompt_format is None else formatted(rows, self.prompt_format)

    def _canonical(self, raw_rows: Iterable[RawRow], counts: Counter[str]) -> list[Row]:
        def counting(raw: RawRow) -> Row:
            counts["rows"] += 1
            if not isinstance(raw[1], UnusableRow):
                counts.update(f"left_out_{name}" for name in self.leave_out if name in raw[1])
            return self._canonical_row(raw)

        read = counted(islice(raw_rows, self.max_rows or None), f"data.path={self.path}: reading")
        rows = list(usable(read, counting, self.drops, counts))
        if not rows:
            raise UserError(f"data.path={self.path} has no{' usable' if counts['rows'] else ''} rows")
        return rows

    def _canonical_row(self, raw: RawRow) -> Row:
        """Raises UnusableRow: also for a rating outside the scale, and for a conversation with nothing before its first answer,
        which no template writes."""
        where, columns = raw
        if isinstance(columns, UnusableRow):
            raise columns
        row = canonical({name: value for name, value in columns.items() if name not in self.leave_out}, where, self.columns)
        ratings = [row.values["label"]] if "label" in row.values else []
        if "completion" in row.values:
            ratings += [vote for vote in row.values.get("votes", []) if vote is not None]
        for rating in ratings if self.scale else []:
            if not self.scale[0] <= rating <= self.scale[1]:
                outside = f"outside data.scale={_listed(self.scale)}; correct it or the scale, or drop such rows with {DROP}"
                raise UnusableRow(f"{where}: the rating {rating!r} is {outside}", "rating_outside_scale")
        if row.values.get("prompt") == [] and not self.system:
            remedy = "put a message of user or system first, as data.system=TEXT does"
            raise UnusableRow(f"{where}: the conversation begins with the assistant: {remedy}", "begins_with_assistant")
        return row


def _lacking(row: Row, needs: Sequence[str]) -> str | None:
    return next((name for name in needs if row.values.get(name) is None), None)


def _incomplete(row: Row, name: str, more: str = "") -> UnusableRow:
    unanswered = name == "completion" and conversation_column(row)
    what = no_answer(row) if unanswered else f"{row.where}: no {name!r}, which other rows have"
    return UnusableRow(f"{what}{more}\nfill it in, or drop such rows with {DROP}", f"no_{name}")


def _listed(values: Sequence[float | str]) -> str:
    return "[" + ",".join(value if isinstance(value, str) else f"{value:g}" for value in values) + "]"
