"""The command `alignzoo train`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from alignzoo.cli.main import INTERRUPTED, complain
from alignzoo.config import catalogue
from alignzoo.config.foreign_names import flag
from alignzoo.errors import UserError, masked, nearest

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from alignzoo.common.folder import Row
    from alignzoo.pipeline.sweep import RunOutcome


def main(argv: Sequence[str]) -> int:
    """Composes, shows or trains; Hydra and torch are imported only where they are needed."""
    parser = argparse.ArgumentParser("alignzoo train", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--objective", metavar="METRIC")
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER")
    parser.add_argument("-cn", "--config-name", metavar="NAME")
    parser.add_argument("--cfg", choices=("job",))
    parser.add_argument("--stages", action="store_true")
    args = with_overrides(parser, argv)
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
        return _show_stages(compose(args.overrides))
    if args.multirun:
        from alignzoo.pipeline.sweep import multirun

        return max(outcome.code for outcome in multirun(args.overrides, partial(one_of_several, args.objective)))
    if args.objective:
        raise UserError(f"--objective={args.objective} is for the sweeper of -m, such as hydra/sweeper=optuna")
    return _run(compose(args.overrides))[0]


def with_overrides(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Raises UserError for an option that there is not: who types it means an override."""
    args, flags = parser.parse_known_intermixed_args(argv)
    if flags:
        raise UserError(flag(flags[0]))
    return args


def _show_stages(cfg: DictConfig) -> int:
    from alignzoo.pipeline import status

    if not cfg.pipeline.stages:
        raise UserError("--stages shows those of a pipeline: give pipeline=NAME. `alignzoo list pipeline` shows them")
    status.show(cfg, overrides=True)
    return 0


def _run(cfg: DictConfig) -> tuple[int, Row]:
    """The exit code and the summary."""
    from alignzoo.pipeline import status
    from alignzoo.pipeline.train import train
    from alignzoo.report import table
    from alignzoo.runs import single

    summary = train(cfg)
    code = INTERRUPTED if summary["status"] == "interrupted" else 0
    if not single.main_process():
        return code, summary
    if cfg.pipeline.stages and not cfg.resume:
        status.show(cfg)
    if not code:
        table.show([summary])
    elif stage := summary.get("stage"):
        print(f"interrupted in {stage}, at step {summary['steps']}, and saved; the same command goes on from there")
    else:
        print(f"interrupted at step {summary['steps']} and saved; go on with: alignzoo train resume={summary['run_dir']}")
    return code, summary


def one_of_several(objective: str | None, make: Callable[[], DictConfig]) -> RunOutcome:
    """A user's mistake in one run doesn't stop the others; Ctrl-C does."""
    from alignzoo.common.metric_table import ShownIn, shown
    from alignzoo.pipeline.sweep import RunOutcome

    try:
        code, summary = _run(make())
    except UserError as error:
        return RunOutcome(complain(str(error)))
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    metrics = summary["metrics"]
    if objective and objective not in metrics:
        raise UserError(f"--objective={objective}: the run has no such metric.{nearest(objective, metrics)}")
    name = objective or next((name for name in shown(ShownIn.COMPARED) if name in metrics), "")
    return RunOutcome(code, metrics.get(name, math.nan))
