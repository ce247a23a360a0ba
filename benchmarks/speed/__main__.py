"""Run both programs, in turns, and compare: `python -m benchmarks.speed PAIRS [--algorithm dpo] [--size 1M] ...`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.speed.kinds import KINDS
from benchmarks.speed.material import SIZES
from benchmarks.speed.measure import RESULTS, WORK, Row, line, measure, save
from benchmarks.speed.page import COLUMNS


def main() -> None:
    options = arguments()
    row = Row(
        algorithm=options.algorithm, size=options.size, column=options.column, profile=options.profile, steps=options.steps,
        turn=options.turn, threads=options.threads, waiting=options.waiting, new_tokens=options.new_tokens,
        overrides=options.override, label=options.label, beside=options.beside,
    )  # fmt: skip
    result = measure(row, options.data, options.work, options.rows)
    print(line(result))
    save(result, options.out)
    sys.exit(0 if result["gate"]["passed"] else 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("data", type=Path, help="JSON lines: preference pairs, or texts for the long-answer profile")
    parser.add_argument("--algorithm", choices=KINDS, default="dpo")
    parser.add_argument("--size", choices=SIZES, default="1M")
    parser.add_argument("--column", choices=COLUMNS, default="tuned")
    parser.add_argument("--profile", default="hh", help="a name for the data")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1, help="with more than one, wall clock instead of CPU seconds")
    parser.add_argument(
        "--waiting", choices=("passive", "library"), default="passive", help="threads sleep, or do as the OpenMP library has it"
    )
    parser.add_argument("--turn", type=int, default=4, help="steps of a turn")
    parser.add_argument("--new-tokens", type=int, default=128, help="that a sampled completion has at most")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--override", action="append", default=[], help="of alignzoo's run, such as model.forward=padded")
    parser.add_argument("--label", default="", help="in the result's name, beside the overrides it stands for")
    parser.add_argument("--beside", default="", help="a checkout of alignzoo with its .venv, compared with instead of TRL")
    return parser.parse_args()


if __name__ == "__main__":
    main()
