"""`alignzoo label`: what people say of completions, as a data source."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignzoo.common.disk import check_file
from alignzoo.errors import UserError, printable
from alignzoo.label import questions, requests, server, spreadsheet, stats
from alignzoo.label.dialogue import Dialogue
from alignzoo.label.items import QuestionKind, Scale
from alignzoo.label.journal import Journal
from alignzoo.label.session import Session
from alignzoo.label.terminal import Screen, Typed
from alignzoo.label.work import Work, of_request

ABOUT = """Shows completions to a rater, blind and in random order, and keeps what they say as a data source.

A source is a run's folder: what its policy wrote in the end, for pairs and rankings beside what it wrote before training, or
beside the other runs given; a .jsonl file of prompt with completion, completions, or chosen and rejected; or a request of
reward=human, or the folder of its requests. What was answered is kept at once: start again to go on.

Here at the terminal, or with --serve on a page: a link for each of --raters, and one that shows how far they are."""


@dataclass(frozen=True)
class Questions:
    """What there is to answer by now, where answers are kept, and where the tokens of raters are."""

    works: Callable[[], Sequence[Work]]
    kept: Path
    tokens: Path

    @property
    def work(self) -> Work:
        """The only one. Raises UserError where there are several."""
        works = self.works()
        if len(works) != 1:
            raise UserError(f"{self.kept} holds {len(works)} requests: name one of them")
        return works[0]

    def tell(self, raters: Sequence[str], screen: Screen) -> None:
        """How far they are."""
        for rater in raters:
            turn = Session(works=self.works, rater=rater).turn()
            screen.say(f"{turn.done} of {turn.total} answered by {rater}; in {self.kept}")


def main(argv: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    paths = [Path(source).expanduser() for source in args.sources]
    _check(args)
    if args.stats:
        stats.show(paths)
        return 0
    if args.export:
        check_file("--export", Path(args.export), args.overwrite)
    asked, screen = _questions(args, paths), Screen()
    rater = args.rater or _login()
    if args.export:
        work = asked.work
        spreadsheet.write(Path(args.export), work.items)
        screen.say(f"{args.export}: {len(work.items)} {work.items[0].kind.value} to fill in")
    elif args.imported:
        work = asked.work
        answers = spreadsheet.read(Path(args.imported), work.items, work.scale, rater)
        for answer in answers:
            work.journal.append(answer.rater, answer.item, answer.answer, work.scale)
        work.keep()
        screen.say(f"{Path(args.imported)}: {len(answers)} of {len(work.items)} answered; in {asked.kept}")
    else:
        for work in asked.works():
            work.keep()  # where a crash came between an answer and the data
        if args.serve:
            raters = args.raters or [rater]
            asked.tokens.parent.mkdir(parents=True, exist_ok=True)
            server.serve(asked.works, raters, asked.tokens, (args.host or "127.0.0.1", args.port), screen.say)
            asked.tell(raters, screen)
        else:
            _ask(asked, rater, screen)
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
    parser.add_argument("--serve", action="store_true", help="ask on a page, in a browser")
    parser.add_argument("--raters", metavar="NAME,NAME", help="of --serve: who gets a link; the default is --rater")
    parser.add_argument("--port", type=int, help="of --serve (default: 8765; 0: one that is free)")
    parser.add_argument("--host", help="of --serve: an address of this machine for others to reach (default: 127.0.0.1)")
    parser.add_argument("--export", metavar="FILE.csv", help="write the questions for another tool, and ask nobody here")
    parser.add_argument("--import", dest="imported", metavar="FILE.csv", help="take the answers that another tool gave")
    parser.add_argument("--stats", action="store_true", help="how far the raters of a labelled file agree; asks nothing")
    return parser


def _check(args: argparse.Namespace) -> None:
    """Raises UserError for options that can do nothing together."""
    if args.limit < 0:
        raise UserError(f"--limit {args.limit}: must be >= 0")
    other = next((name for name in ("export", "imported", "stats") if getattr(args, name)), None)
    if args.serve and other:
        raise UserError(f"--serve asks people, and --{other.removesuffix('ed')} nobody: leave one of them out")
    for name in ("raters", "port", "host"):
        if getattr(args, name) is not None and not args.serve:
            raise UserError(f"--{name} is for the page: give --serve as well")
    args.port = 8765 if args.port is None else args.port
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port {args.port}: must be from 0 to 65535")
    args.raters = None if args.raters is None else _names(args.raters)
    if args.kind == QuestionKind.corrections.value and not (args.serve or args.export or args.imported or args.stats):
        raise UserError("corrections are written on a page or in a table: give --serve or --export FILE.csv")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(name and name == printable(name) for name in names) or len(set(names)) < len(names):
        raise UserError(f"--raters {text}: must be different names, with commas between them, such as ann,bob")
    return names


def _questions(args: argparse.Namespace, paths: Sequence[Path]) -> Questions:
    if request := requests.among(paths, wait=args.serve):
        if request.is_file():
            work = of_request(request)
            return Questions(lambda: [work], work.journal.path, request.with_name("tokens.jsonl"))
        return Questions(lambda: [of_request(path) for path in requests.in_folder(request)], request, request / "tokens.jsonl")
    if args.kind is None:
        raise UserError("say what is asked: --as pairs, --as ratings, --as rankings or --as corrections")
    out = Path(args.out).expanduser()
    journal, kind = Journal(out.with_suffix(".answers.jsonl")), QuestionKind(args.kind)
    if not journal.path.exists():  # which is beside what label has made
        check_file("--out", out, args.overwrite)
    scale = _scale(args.scale, journal, kind)
    labelled = Work(questions.items(paths, kind, args.seed, args.limit), scale, journal, out)
    return Questions(lambda: [labelled], out, out.with_suffix(".tokens.jsonl"))


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


def _ask(asked: Questions, rater: str, screen: Screen) -> None:
    keys = Typed()
    try:
        with keys.listening():
            Dialogue(session=Session(works=asked.works, rater=rater), keys=keys, screen=screen).run()
    finally:
        asked.tell([rater], screen)


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "rater"
