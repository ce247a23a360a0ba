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
from alignzoo.label import questions, requests, spreadsheet, stats
from alignzoo.label.items import Item, QuestionKind, Scale
from alignzoo.label.journal import Journal, RaterAnswer, by_item, data_rows
from alignzoo.label.session import Session
from alignzoo.label.terminal import Screen, Typed

ABOUT = """Shows completions to a rater, blind and in random order, and keeps what they say as a data source.

A source is a run's folder: what its policy wrote in the end, for pairs and rankings beside what it wrote before training, or
beside the other runs given; a .jsonl file of prompt with completion, completions, or chosen and rejected; or a request of
reward=human. What was answered is kept at once: start again to go on."""


@dataclass(frozen=True)
class Work:
    """What is asked, where answers are kept, and the data that is made of them: None for a `request`, which needs none."""

    items: list[Item]
    scale: Scale
    journal: Journal
    out: Path | None
    raters: int = 0  # more answers to an item than this aren't wanted; 0: no limit
    request: Path | None = None

    def answers(self) -> list[RaterAnswer]:
        """Those to these items and, of `out`, to others."""
        return requests.answers(self.request, lambda problem: None) if self.request else self.journal.answers()

    def keep(self) -> None:
        """The data, as of now, whoever else answers at the moment."""
        if self.out is not None:
            with self.journal.alone():
                write_whole(self.out, b"".join(map(line, data_rows(self.journal.answers()))))

    def answered_by(self, rater: str) -> list[str]:
        """The ids of what the rater has answered, oldest first."""
        return [answer.item.id for answer in self.answers() if answer.rater == rater]

    def open_to(self, rater: str) -> list[Item]:
        """Without what enough others have answered."""
        of_others = by_item(answer for answer in self.answers() if answer.rater != rater)
        return [item for item in self.items if not self.raters or len(of_others.get(item.id, ())) < self.raters]


def main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    paths = [Path(source).expanduser() for source in args.sources]
    if args.stats:
        stats.show(paths)
        return 0
    if args.export:
        keep_existing("--export", Path(args.export), args.overwrite)
    work, screen = _work(args, paths), Screen()
    rater = args.rater or _login()
    if args.export:
        spreadsheet.write(Path(args.export), work.items)
        screen.say(f"{args.export}: {len(work.items)} {work.items[0].kind.value} to fill in")
    elif args.imported:
        answers = spreadsheet.read(Path(args.imported), work.items, work.scale, rater)
        for answer in answers:
            work.journal.append(answer.rater, answer.item, answer.answer, work.scale)
        work.keep()
        kept = work.out or work.journal.path
        screen.say(f"{Path(args.imported)}: {len(answers)} of {len(work.items)} answered; in {kept}")
    else:
        _ask(work, rater, screen)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "alignzoo label", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="a run's folder, a .jsonl file, or a request")
    parser.add_argument(
        "--as", dest="kind", choices=[kind.value for kind in QuestionKind], help="what is asked; a request says it itself"
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
    if request := requests.among(paths):
        asks = requests.read(request)
        return Work(asks.items, asks.scale, Journal(requests.answers_of(request)), None, asks.raters, request)
    if args.kind is None:
        raise UserError("say what is asked: --as pairs, --as ratings or --as rankings")
    out = Path(args.out).expanduser()
    journal, kind = Journal(out.with_suffix(".answers.jsonl")), QuestionKind(args.kind)
    if not journal.path.exists():  # which is beside what label has made
        keep_existing("--out", out, args.overwrite)
    scale = _scale(args.scale, journal, kind)
    return Work(questions.items(paths, kind, args.seed, args.limit), scale, journal, out)


def _scale(limits: Sequence[float] | None, journal: Journal, kind: QuestionKind) -> Scale:
    """The one of these limits, which must be that of earlier answers. Raises UserError also for answers of another kind."""
    kinds = {answer.item.kind for answer in journal.answers()} - {kind}
    if kinds:
        raise UserError(f"{journal.path} holds {kinds.pop().value}: give {kind.value} a file of their own with --out")
    earlier = journal.scale()
    scale = Scale(*limits) if limits else earlier or Scale()
    if scale.low >= scale.high:
        raise UserError(f"--scale {scale.low:g} {scale.high:g}: the lowest rating must be below the highest")
    if earlier and scale != earlier:
        raise UserError(f"{journal.path} holds ratings {earlier}: leave --scale out, or give another --out")
    return scale


def _ask(work: Work, rater: str, screen: Screen) -> None:
    keys = Typed()
    session = Session(
        items=work.open_to(rater), journal=work.journal, rater=rater, keys=keys, screen=screen, scale=work.scale,
        answered=work.answered_by(rater), kept=work.keep,
    )  # fmt: skip
    work.keep()  # where a crash came between an answer and the data
    try:
        with keys.listening():
            session.run()
    finally:
        answered = set(work.answered_by(rater))
        left = sum(item.id not in answered for item in work.open_to(rater))
        screen.say(f"{len(work.items) - left} of {len(work.items)} answered by {rater}; in {work.out or work.journal.path}")


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "rater"
