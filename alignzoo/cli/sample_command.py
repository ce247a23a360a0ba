"""The command `alignzoo sample`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from alignzoo.common.disk import check_file
from alignzoo.errors import UserError


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "alignzoo sample", description="Completions of a run's policy, beside those of its reference."
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a finished run's folder")
    add("--prompt", action="append", help="a prompt; may be given several times. None: the run's held-out prompts")
    add("--file", help="prompts: the column `prompt` of FILE.jsonl, or a prompt a line; -: each line typed")
    add("-n", "--n", "--prompts", dest="prompts", type=int, help="how many held-out prompts (4)")
    add("--temperature", type=float, help="none: the run's own; 0 is greedy")
    add("--seed", type=int, default=0)
    add("--no-scores", action="store_true", help="don't ask the run's reward and gold")
    add("--trust", action="store_true", help="also code and secrets that a run from elsewhere names")
    add("--against", help=argparse.SUPPRESS)
    add("--out", type=Path, help="write everything here, as JSON Lines")
    add("--overwrite", action="store_true", help="also where --out exists")
    args = parser.parse_args(argv)
    if args.against:
        raise UserError(f"--against is a command of its own: alignzoo compare {args.run} {args.against}")
    if args.out:
        check_file("--out", args.out, args.overwrite)
    from alignzoo.runs import sample

    count = 4 if args.prompts is None else args.prompts
    sample.show(
        Path(args.run), args.prompt, args.file, count, args.temperature, args.seed, not args.no_scores, args.out, args.trust
    )
    return 0
