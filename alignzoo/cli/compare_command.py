"""The command `alignzoo compare`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from alignzoo.common.disk import check_file, write_whole


def main(argv: Sequence[str]) -> int:
    about = "Two runs' policies on the same held-out prompts: which is better, and how sure that is."
    parser = argparse.ArgumentParser("alignzoo compare", description=about)
    add = parser.add_argument
    add("first", metavar="RUN", help="a finished run's folder")
    add("second", metavar="RUN", help="another, of the same tokenizer")
    add("--metric", help="what is tested: gold, reward or words; none: gold where the first run has it, else reward")
    add("-n", "--n", "--prompts", dest="prompts", type=int, default=200, help="how many held-out prompts")
    add("--samples", type=int, default=1, help="completions of each prompt, whose mean counts")
    add("--judge", nargs="+", default=[], help="who judges, such as gold=sentiment")
    add("--temperature", type=float, help="none: the first run's own; 0 is greedy")
    add("--seed", type=int, default=0)
    add("--trust", action="store_true", help="also code and secrets that a run from elsewhere names")
    add("--json", action="store_true", help="print everything as JSON, and nothing else")
    add("--out", type=Path, help="write everything here, as JSON")
    add("--overwrite", action="store_true", help="also where --out exists")
    args = parser.parse_args(list(argv))
    if args.out:
        check_file("--out", args.out, args.overwrite)
    from alignzoo.runs import compare

    comparison = compare.compare(
        args.first, args.second, args.prompts, args.judge, args.temperature, args.seed, args.trust, args.samples, args.metric
    )
    if args.json:
        print(comparison.to_json())
    else:
        compare.show(comparison)
    if args.out:
        write_whole(args.out, comparison.to_json() + "\n")
    return 0
