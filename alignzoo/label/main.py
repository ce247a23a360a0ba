"""`alignzoo label`: what people say of completions, as a data source."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignzoo.common.disk import keep_existing, write_whole
from alignzoo.common.folder import line
from alignzoo.errors import UserError
from alignzoo.label import requests, sources, stats, tables
from alignzoo.label.items import Item, Kind, Scale
from alignzoo.label.journal import Given, Journal, data_rows
from alignzoo.label.keys import Typed
from alignzoo.label.session import Session
from alignzoo.label.shown import Screen

ABOUT = """Shows completions to a rater, blind and in random order, and keeps what they say as a data source.

A source is a run's folder: what its policy wrote in the end, for pairs and rankings beside what it wrote before training, or
beside the other runs given; a .jsonl file of prompt with completion, completions, or chosen and rejected; or a request of
reward=human. What was answered is kept at once: start again to go on."""


@dataclass(frozen=True)
class Work:
    """What is asked, where answers are kept, and the data that is made of them: None for a request, which needs none."""

    items: list[Item]
    scale: Scale
    journal: Journal
    out: Path | None
    raters: int = 0  # more answers to an item than this aren't wanted; 0: no limit

    def given(self) -> list[Given]:
        """The answers to these items and, of `out`, to others."""
        if self.out is None:
            return requests.answers(requests.of(self.journal.path), lambda problem: None)
        return self.journal.given()

    def keep(self) -> None:
        """The data, as of now, whoever else answers at the moment."""
        if self.out is None:
            return
        with self.journal.alone():
            rows = data_rows(self.journal.given())
            write_whole(self.out, b"".join(map(line, rows)))

    def open_to(self, rater: str) -> list[Item]:
        """Without what enough others have answered."""
        others: dict[str, set[str]] = {}
        for one in self.given():
            if one.rater != rater:
                others.setdefault(one.item.id, set()).add(one.rater)
        return [one for one in self.items if not self.raters or len(others.get(one.id, ())) < self.raters]


def main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    paths = [Path(source).expanduser() for source in args.sources]
    if args.stats:
        stats.show(paths)
        return 0
    if args.export:
        keep_existing("--export", Path(args.export), args.overwrite)
    work = _work(args, paths)
    rater = args.rater or _login()
    screen = Screen()
    if args.export:
        tables.write(Path(args.export), work.items)
        screen.say(f"{args.export}: {len(work.items)} {work.items[0].kind.value} to fill in")
    elif args.imported:
        _take(work, Path(args.imported), rater, screen)
    else:
        _ask(work, rater, screen)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "alignzoo label", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="a run's folder, a .jsonl file, or a request")
    parser.add_argument(
        "--as", dest="kind", choices=[kind.value for kind in Kind], help="what is asked; a request says it itself"
    )
    parser.add_argument("--out", default="labels.jsonl", help="the data that is made (default: labels.jsonl)")
    parser.add_argument("--overwrite", action="store_true", help="also a file of --out or --export that label did not make")
    parser.add_argument("--rater", help="who answers; the default is the login name")
    parser.add_argument("--scale", nargs=2, type=float, metavar=("LOW", "HIGH"), help="of ratings (default: 1 5)")
    parser.add_argument("--limit", type=int, default=0, help="ask no more than so many; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the order in which is asked")
    parser.add_argument("--export", metavar="FILE.csv", help="write the questions for another tool, and ask nobody here")
    parser.add_argument("--import", dest="imported", metavar="FILE.csv", help="take the answers that another tool gave")
    parser.add_argument("--stats", action="store_true", help="how far the raters of a labelled file agree; asks nothing")
    return parser


def _work(args: argparse.Namespace, paths: Sequence[Path]) -> Work:
    if args.limit < 0:
        raise UserError(f"--limit {args.limit}: must be >= 0")
    if request := sources.request(paths):
        asked = requests.read(request)
        return Work(asked.items, asked.scale, Journal(requests.answers_of(request)), None, asked.raters)
    if args.kind is None:
        raise UserError("say what is asked: --as pairs, --as ratings or --as rankings")
    out = Path(args.out).expanduser()
    journal, kind = Journal(out.with_suffix(".answers.jsonl")), Kind(args.kind)
    if not journal.path.exists():  # which is beside what label has made
        keep_existing("--out", out, args.overwrite)
    scale = _scale(args.scale, journal, kind)
    return Work(sources.items(paths, kind, args.seed, args.limit), scale, journal, out)


def _scale(asked: Sequence[float] | None, journal: Journal, kind: Kind) -> Scale:
    """The one asked for, which must be that of earlier answers. Raises UserError also for answers of another kind."""
    before = {one.item.kind for one in journal.given()} - {kind}
    if before:
        raise UserError(f"{journal.path} holds {before.pop().value}: give {kind.value} a file of their own with --out")
    known = journal.scale()
    scale = Scale(*asked) if asked else known or Scale()
    if scale.low >= scale.high:
        raise UserError(f"--scale {scale.low:g} {scale.high:g}: the lowest rating must be below the highest")
    if known and scale != known:
        raise UserError(f"{journal.path} holds ratings {known}: leave --scale out, or give another --out")
    return scale


def _ask(work: Work, rater: str, screen: Screen) -> None:
    keys, known = Typed(), [one.item.id for one in work.given() if one.rater == rater]
    session = Session(
        items=work.open_to(rater), journal=work.journal, rater=rater, keys=keys, screen=screen, scale=work.scale,
        known=known, kept=work.keep,
    )  # fmt: skip
    work.keep()  # where a crash came between an answer and the data
    try:
        with keys.listening():
            session.run()
    finally:
        answered = {one.item.id for one in work.given() if one.rater == rater}
        left = sum(one.id not in answered for one in work.open_to(rater))
        screen.say(f"{len(work.items) - left} of {len(work.items)} answered by {rater}; in {work.out or work.journal.path}")


def _take(work: Work, path: Path, rater: str, screen: Screen) -> None:
    given = tables.read(path, work.items, work.scale, rater)
    for one in given:
        work.journal.append(one.rater, one.item, one.answer, work.scale)
    work.keep()
    screen.say(f"{path}: {len(given)} of {len(work.items)} answered; in {work.out or work.journal.path}")


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "rater"
