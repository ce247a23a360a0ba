"""The command line: alignzoo train | bench | report | sample | label | list | card | plugin | doctor.

Exit codes: 0 done, 2 a user's mistake (one to five lines, no traceback), 130 interrupted after saving.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alignzoo import __version__
from alignzoo.common import disk
from alignzoo.config import catalogue
from alignzoo.config.foreign_names import flag
from alignzoo.config.registry import Registry
from alignzoo.errors import UserError, masked, nearest

INTERRUPTED = 130
QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
MAKE = """Write pairs, ratings, rankings or demonstrations made by sampling and labelling.

  alignzoo make making=pairs data=stories model=stories gold=sentiment out=pairs.jsonl

Files that exist are written over with overwrite=true only.
"""
PATIENCE = 20.0  # seconds after which a rank other than the first tells its own mistake: on a busy machine they drift apart


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if logging.lastResort:  # what shows warnings where nobody has set up logging
        logging.lastResort.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # the reader has gone; Python's flush at exit must not fail
        return 0
    except Exception as error:
        if disk.is_full(error):
            return _complain(f"{disk.told(error)}. Free some space; what was saved before is unharmed")
        if isinstance(error, OSError) and error.errno in disk.CLOSED:
            return _complain(f"{error.filename} can't be read or written: {error.strerror}. Choose another place")
        raise


def _dispatch(argv: list[str]) -> int:
    command, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if command in ("-h", "--help"):
        catalogue.show_help()
    elif command == "--version":
        print(f"alignzoo {__version__}")
    elif command == "--shell-completion":
        from alignzoo.cli.completion import main as complete

        complete(rest)
    elif command in COMMANDS:
        return COMMANDS[command](rest)
    else:
        raise UserError(f"no command {command!r}.{nearest(command, COMMANDS)} Commands: {', '.join(COMMANDS)}")
    return 0


def _train(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("alignzoo train", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--objective", metavar="METRIC")
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER")
    parser.add_argument("-cn", "--config-name", metavar="NAME")
    parser.add_argument("--cfg", choices=("job",))
    parser.add_argument("--stages", action="store_true")
    args = _with_overrides(parser, argv)
    if args.config_dir or args.config_name:
        from alignzoo.config.own_folder import with_folder

        args.overrides = with_folder(args.overrides, args.config_dir, args.config_name)
    if args.help:
        catalogue.show_train_help(args.overrides)
        return 0
    from alignzoo.config.composition import compose

    if args.cfg:
        from omegaconf import OmegaConf

        print(masked(OmegaConf.to_yaml(compose(args.overrides))), end="")
        return 0
    if args.stages:
        return _show_stages(args.overrides)
    if args.multirun:
        from alignzoo.pipeline.sweep import multirun

        return max(outcome.code for outcome in multirun(args.overrides, partial(_one_of_several, args.objective)))
    if args.objective:
        raise UserError(f"--objective={args.objective} is for the sweeper of -m, such as hydra/sweeper=optuna")
    return _run(compose(args.overrides))[0]


def _with_overrides(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Raises UserError for an option that there is not: who types it means an override."""
    args, flags = parser.parse_known_intermixed_args(argv)
    if flags:
        raise UserError(flag(flags[0]))
    return args


def _show_stages(overrides: list[str]) -> int:
    from alignzoo.config.composition import compose
    from alignzoo.pipeline import record

    cfg = compose(overrides)
    if not cfg.pipeline.stages:
        raise UserError("--stages shows those of a pipeline: give pipeline=NAME. `alignzoo list pipeline` shows them")
    record.show(cfg, overrides=True)
    return 0


def _run(cfg: Any) -> tuple[int, dict[str, Any]]:
    """The exit code and the summary."""
    from alignzoo.pipeline import record
    from alignzoo.pipeline.train import train
    from alignzoo.report import table
    from alignzoo.runs import single

    summary = train(cfg)
    if not single.main_process():
        return (INTERRUPTED if summary["status"] == "interrupted" else 0), summary
    if cfg.pipeline.stages and not cfg.resume:
        record.show(cfg)
    if summary["status"] == "interrupted" and (stage := summary.get("stage")):
        print(f"interrupted in {stage}, at step {summary['steps']}, and saved; the same command goes on from there")
        return INTERRUPTED, summary
    if summary["status"] == "interrupted":
        print(f"interrupted at step {summary['steps']} and saved; go on with: alignzoo train resume={summary['run_dir']}")
        return INTERRUPTED, summary
    table.show([summary])
    return 0, summary


def _one_of_several(objective: str | None, make: Callable[[], Any]) -> Any:
    """An RunOutcome. A user's mistake in one run doesn't stop the others; Ctrl-C does."""
    from alignzoo.pipeline.sweep import RunOutcome
    from alignzoo.report.analysis import PREFERRED

    try:
        code, summary = _run(make())
    except UserError as error:
        return RunOutcome(_complain(str(error)))
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    metrics = summary["metrics"]
    name = objective or next((name for name in PREFERRED if name in metrics), "")
    if objective and objective not in metrics:
        raise UserError(f"--objective={objective}: the run has no such metric.{nearest(objective, metrics)}")
    return RunOutcome(code, metrics.get(name, math.nan))


def _bench(argv: list[str]) -> int:
    from alignzoo.bench import main as bench

    return bench.main(argv)


def _report(argv: list[str]) -> int:
    from alignzoo.report import main as report

    return report.main(argv)


def _sample(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "alignzoo sample", description="Completions of a run's policy, beside those of its reference."
    )
    parser.add_argument("run", metavar="RUN", help="a finished run's folder")
    parser.add_argument(
        "--prompt", action="append", help="a prompt; may be given several times. None: the run's held-out prompts"
    )
    parser.add_argument("--file", help="prompts: the column `prompt` of FILE.jsonl, or a prompt a line; -: each line typed")
    parser.add_argument("-n", "--n", "--prompts", dest="prompts", type=int, help="how many held-out prompts (4; 200 --against)")
    parser.add_argument("--temperature", type=float, help="none: the run's own; 0 is greedy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-scores", action="store_true", help="don't ask the run's reward and gold")
    parser.add_argument("--trust", action="store_true", help="also code and secrets that a run from elsewhere names")
    parser.add_argument(
        "--against", metavar="RUN", help="compare with this run's policy instead: differences with intervals, and ten samples"
    )
    parser.add_argument("--judge", nargs="+", default=[], help="with --against: who judges, such as gold=sentiment")
    parser.add_argument("--out", type=Path, help="write everything here: JSON Lines, or JSON with --against")
    parser.add_argument("--overwrite", action="store_true", help="also where --out exists")
    args = parser.parse_args(argv)
    if args.out:
        disk.keep_existing("--out", args.out, args.overwrite)
    if args.against:
        if args.prompt or args.file or args.no_scores:
            raise UserError("--against compares on held-out prompts: leave --prompt, --file and --no-scores out")
        from alignzoo.runs import compare

        count = 200 if args.prompts is None else args.prompts
        found = compare.compare(args.run, args.against, count, args.judge, args.temperature, args.seed, args.trust)
        compare.show(found, args.out)
        return 0
    if args.judge:
        raise UserError("--judge is for --against RUN")
    from alignzoo.runs import sample

    count = 4 if args.prompts is None else args.prompts
    sample.show(
        Path(args.run), args.prompt, args.file, count, args.temperature, args.seed, not args.no_scores, args.out, args.trust
    )
    return 0


def _make(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("alignzoo make", description=MAKE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="+", metavar="OVERRIDE", help="as for alignzoo train, and out=FILE.jsonl")
    args = _with_overrides(parser, argv)
    from alignzoo.cli import make
    from alignzoo.common.cache import cache_folder

    said = make.main(args.overrides, cache_folder())
    for side in (said["train"], said.get("heldout", {})):
        print("  ".join(f"{name.replace('_', ' ')} {value}" for name, value in side.items()))
    print("use with: data=jsonl " + " ".join(f"data.{key}={path}" for key, path in said["files"].items()))
    return 0


def _label(argv: list[str]) -> int:
    from alignzoo.label.main import main as label

    return label(argv)


def _list(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("alignzoo list", description="What there is to choose from.")
    parser.add_argument("group", nargs="?", help="one group alone, such as algorithm")
    args, registry = _registry(parser, argv)
    catalogue.show_list(registry, args.group)
    return 0


def _card(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("alignzoo card", description="The card of a plugin or preset.")
    parser.add_argument("name")
    args, registry = _registry(parser, argv)
    catalogue.show_card(registry, args.name)
    return 0


def _plugin(argv: list[str]) -> int:
    from alignzoo.cli import plugin

    return plugin.main(argv)


def _doctor(argv: list[str]) -> int:
    argparse.ArgumentParser("alignzoo doctor", description="What this machine can do, and what is missing.").parse_args(argv)
    from alignzoo.cli import doctor

    return doctor.main()


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train, "make": _make, "bench": _bench, "report": _report, "sample": _sample, "label": _label, "list": _list,
    "card": _card, "plugin": _plugin, "doctor": _doctor,
}  # fmt: skip


def _registry(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[argparse.Namespace, Registry]:
    """The arguments, and the registry with the local folder that `plugins_dir=` among them names."""
    folders = [a.removeprefix("plugins_dir=") for a in argv if a.startswith("plugins_dir=")]
    args = parser.parse_args([a for a in argv if not a.startswith("plugins_dir=")])
    return args, Registry(folders[-1] if folders else None)


def _complain(message: str) -> int:
    from alignzoo.runs.single import main_process

    if not main_process():
        time.sleep(PATIENCE)  # where the first rank has the same to say, torchrun ends this one meanwhile
    print(f"alignzoo: {message}", file=sys.stderr, flush=True)
    return 2
