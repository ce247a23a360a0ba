"""The command `alignzoo report`."""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from alignzoo.common.disk import keep_existing
from alignzoo.common.folder import CONFIG
from alignzoo.errors import UserError, printable, tell
from alignzoo.report import study, table
from alignzoo.runs import comparable, results


def main(argv: Sequence[str]) -> int:
    """Prints the table and the answer, and writes the report into `--out`."""
    parser = argparse.ArgumentParser(
        "alignzoo report", description="Compare finished runs: a table here, a report in a folder."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or one that holds runs")
    parser.add_argument(
        "--out", metavar="FOLDER", help="where the report goes; none: report/ in the first folder that is no run"
    )
    parser.add_argument("--metric", help="what to compare; none: gap_closed where all runs have it, else gold, else reward")
    parser.add_argument("--overwrite", action="store_true", help="also files in --out that no report has left")
    args = parser.parse_args(list(argv))
    folders = [Path(run) for run in args.runs]
    # inside a folder of runs; beside a run
    beside = folders[0].parent if (folders[0] / CONFIG).is_file() else folders[0]
    command = shlex.join(["alignzoo", "report", *argv])
    page = write(folders, Path(args.out or beside / "report"), args.metric, command, args.overwrite)
    print(f"\n{page}")
    return 0


def write(
    folders: Sequence[Path], out: Path, metric: str | None = None, command: str = "", overwrite: bool = False
) -> Path:  # fmt: skip
    """Writes report.html, report.md, plots/, results.jsonl and results.parquet into `out`, and returns the page's path.

    The same runs give the same files. Raises UserError for runs that can't be compared, for a folder that can't be written, and
    for files of these names that no report has left, unless they are to be written over.
    """
    from alignzoo.report import page, sections
    from alignzoo.report.analysis import analyse

    if not overwrite:
        check_replaceable(out)
    about = study.read(folders)
    listing = results.find(folders)
    for name, why in listing.skipped.items():
        tell(f"{name} is left out: {why}")
    comparable.check_comparable(listing.runs, [*about.vary, *about.sweep])
    runs = sorted(comparable.named(listing.runs, about.vary, about.sweep), key=lambda run: (run.condition, run.label, run.seed))
    analyses = analyse(runs, about, metric)
    make_folder(out)
    results.write_rows([run.row() for run in runs], out)
    for a in analyses:
        answer = ": ".join(filter(None, [a.condition_text, a.headline]))
        print(printable("\n".join([answer, *a.details, ""])))
        for text_table in (sections.results(a), sections.bill(a)):
            table.show_rows(text_table.columns, text_table.rows)
    return page.write(page.Content(runs, analyses, about, listing.skipped | about.failed, command), out)


def check_replaceable(out: Path, option: str = "--out", consent: str = "--overwrite") -> None:
    """Raises UserError where a report in `out` would write over files that none has left."""
    if not results.are_rows(out / results.ROWS):  # the first that a report writes
        for name in (results.ROWS, "results.parquet", "report.html", "report.md", "plots"):
            keep_existing(option, out / name, overwrite=False, consent=consent)


def make_folder(out: Path, option: str = "--out") -> None:
    """Makes the folder that `option` gives. Raises UserError where nothing can be written into it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"can't write into {out}: {error.strerror}. Choose another folder by {option}") from None
