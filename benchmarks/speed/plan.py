"""All tables, row by row: `python -m benchmarks.speed.plan PAIRS TEXTS`. Rows whose result is there are left alone.

PAIRS: preference pairs with long prompts and short answers (ours: hh-rlhf's harmless-base test set). TEXTS: texts of some
hundred words, of which the first sentence becomes the prompt (ours: stories). Both JSON Lines.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from benchmarks.speed import page
from benchmarks.speed.measure import RESULTS, WORK, Row, line, measure, save

SAMPLING = ("rloo", "grpo", "distill")
OFFLINE = ("dpo", "sft", "bradley_terry", "kto")
few = partial(Row, turn=2, steps=12)  # five alternations, as with the 4 and 24 that are the default
fewest = partial(Row, turn=1, steps=7)
ROWS = [
    *(Row(algorithm=name) for name in OFFLINE),
    *(few(algorithm=name) for name in SAMPLING),
    Row(algorithm="ppo"),
    *(Row(algorithm=name, size="15M") for name in OFFLINE),
    *(Row(algorithm=name, column="accumulated") for name in ("dpo", "sft", "bradley_terry")),
    *(Row(algorithm=name, column="best") for name in OFFLINE),
    few(algorithm="rloo", size="15M"),
    *(few(algorithm=name, size="15M", column="accumulated") for name in ("dpo", "sft", "bradley_terry")),
    *(few(algorithm=name, size="15M", column="best") for name in OFFLINE),
    *(few(algorithm=name, column="best") for name in SAMPLING),
    Row(algorithm="dpo", column="compact"),
    few(algorithm="dpo", size="15M", column="compact"),
    few(algorithm="grpo", size="15M"),
    *(Row(algorithm=name, threads=2) for name in ("dpo", "sft")),
    few(algorithm="rloo", threads=2),
    *(Row(algorithm=name, threads=2, waiting="library") for name in ("dpo", "sft")),
    few(algorithm="rloo", threads=2, waiting="library"),
    few(algorithm="dpo", size="15M", threads=2, waiting="library"),
    *(few(algorithm=name, profile="long") for name in ("dpo", "sft")),
    fewest(algorithm="rloo", profile="long", new_tokens=384),
    *(fewest(algorithm=name, size="60M") for name in ("dpo", "sft")),
    fewest(algorithm="distill", size="15M"),
    *(few(algorithm=name, column="default") for name in OFFLINE),
    *(fewest(algorithm=name, column="default") for name in SAMPLING),
    Row(algorithm="ppo", size="15M"),
    few(algorithm="sft", size="15M", column="compact"),
    *(few(algorithm=name, size="15M", column="best") for name in ("rloo", "grpo")),
    fewest(algorithm="distill", size="15M", column="best"),
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.plan", description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--first", type=int, default=len(ROWS), help="so many rows that are missing, then stop")
    options = parser.parse_args()
    for row in missing(options.out)[: options.first]:
        data = options.texts if row.profile == "long" else options.pairs
        try:
            result = measure(row, data, options.work)
        except RuntimeError as error:
            print(f"{row.name} failed:\n{error}", flush=True)
            continue
        save(result, options.out)
        print(line(result), flush=True)
        page.write(options.out)


def missing(folder: Path) -> list[Row]:
    return [row for row in ROWS if not (folder / f"{row.name}.json").exists()]


if __name__ == "__main__":
    main()
