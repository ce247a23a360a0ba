"""The command `alignzoo sample`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from alignzoo.common.disk import keep_existing
from alignzoo.errors import UserError


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "alignzoo sample", description="Completions of a run's policy, beside those of its reference."
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a finished run's folder")
    add("--prompt", action="append", help="a prompt; may be given several times. None: the run's held-out prompts")
    add("--file", help="prompts: the column `prompt` of FILE.jsonl, or a prompt a line; -: each line typed")
    add("-n", "--n", "--prompts", dest="prompts", type=int, help="how many held-out prompts (4; 200 --against)")
    add("--temperature", type=float, help="none: the run's own; 0 is greedy")
    add("--seed", type=int, default=0)
    add("--no-scores", action="store_true", help="don't ask the run's reward and gold")
    add("--trust", action="store_true", help="also code and secrets that a run from elsewhere names")
    add("--against", metavar="RUN", help="compare with this run's policy instead: differences with intervals, and ten samples")
    add("--judge", nargs="+", default=[], help="with --against: who judges, such as gold=sentiment")
    add("--out", type=Path, help="write everything here: JSON Lines, or JSON with --against")
    add("--overwrite", action="store_true", help="also where --out exists")
    args = parser.parse_args(argv)
    if args.out:
        keep_existing("--out", args.out, args.overwrite)
    if args.against:
        if args.prompt or args.file or args.no_scores:
            raise UserError("--against compares on held-out prompts: leave --prompt, --file and --no-scores out")
        from alignzoo.runs import compare

        count = 200 if args.prompts is None else args.prompts
        comparison = compare.compare(args.run, args.against, count, args.judge, args.temperature, args.seed, args.trust)
        compare.show(comparison, args.out)
        return 0
    if args.judge:
        raise UserError("--judge is for --against RUN")
    from alignzoo.runs import sample

    count = 4 if args.prompts is None else args.prompts
    sample.show(
        Path(args.run), args.prompt, args.file, count, args.temperature, args.seed, not args.no_scores, args.out, args.trust
    )
    return 0
