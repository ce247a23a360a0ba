"""All tables, row by row: `python -m benchmarks.speed.plan PAIRS TEXTS`. Rows whose result is there are left alone.

PAIRS: preference pairs with long prompts and short answers (ours: hh-rlhf's harmless-base test set). TEXTS: texts of some
hundred words, of which the first sentence becomes the prompt (ours: stories). Both JSON Lines.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.speed import page
from benchmarks.speed.measure import RESULTS, WORK, Row, measure, save, told

SAMPLING = ("rloo", "grpo", "distill")
OFFLINE = ("dpo", "sft", "bradley_terry", "kto")
ROWS = [
    *(Row(algorithm=name, steps=22) for name in OFFLINE),
    *(Row(algorithm=name, steps=16) for name in SAMPLING),
    Row(algorithm="ppo", steps=24),
    Row(algorithm="dpo", size="15M", steps=12),
    Row(algorithm="sft", size="15M", steps=9),
    Row(algorithm="rloo", size="15M", steps=8),
    *(Row(algorithm=name, column="best", steps=22) for name in OFFLINE),
    *(Row(algorithm=name, column="best", steps=14) for name in SAMPLING),
    Row(algorithm="dpo", size="15M", column="compact", steps=10),
    Row(algorithm="dpo", column="compact", steps=22),
    *(Row(algorithm=name, profile="long", steps=12) for name in ("dpo", "sft")),
    Row(algorithm="rloo", profile="long", steps=8, new_tokens=384),
    *(Row(algorithm=name, threads=2, steps=22) for name in ("dpo", "sft")),
    Row(algorithm="rloo", threads=2, steps=14),
    *(Row(algorithm=name, size="15M", steps=9) for name in ("bradley_terry", "kto")),
    Row(algorithm="dpo", size="60M", steps=4),
    Row(algorithm="distill", size="15M", steps=8),
    Row(algorithm="sft", size="15M", column="compact", steps=9),
    Row(algorithm="sft", size="15M", column="best", steps=10),
    *(Row(algorithm=name, column="default", steps=9) for name in OFFLINE),
    Row(algorithm="rloo", column="default", steps=8),
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
        print(told(result), flush=True)
        page.write(options.out)


def missing(folder: Path) -> list[Row]:
    return [row for row in ROWS if not (folder / f"{row.name}.json").exists()]


if __name__ == "__main__":
    main()
