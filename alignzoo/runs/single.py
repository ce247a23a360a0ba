"""One run: from a composed config to a folder with the trained model and a summary, resumable at any moment."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from omegaconf import DictConfig, OmegaConf

from alignzoo.common import disk, fingerprint
from alignzoo.common import folder as folders
from alignzoo.common.cache import cache_folder
from alignzoo.common.disk import write_whole
from alignzoo.common.folder import CHECKPOINTS, CONFIG, ENVIRONMENT, FRONTIER, MODEL, SUMMARY
from alignzoo.errors import UserError, masked, tell
from alignzoo.runs.results import Document, flat
from alignzoo.setup import RunConfig

if TYPE_CHECKING:
    from alignzoo.engine.build import Builder
    from alignzoo.engine.run_trainer import RunTrainer

ABSENT = "nothing"
PACKAGES = ("alignzoo", "torch", "transformers", "accelerate", "trl", "peft", "datasets", "hydra-core", "numpy")
# say where a run is and how it was started, not what it is
VOLATILE = ("resume", "accept", "trust", "run_dir", "stages_dir", "pipeline", "override_keys")


def train(cfg: DictConfig) -> Document:
    """One run of what `cfg` says; see `alignzoo.pipeline.train.train`."""
    folder = run_folder(cfg)
    summary = _finished(cfg, folder)
    if summary is None:
        # what other ranks look at, the first changes once all have: building the trainer, they wait for each other
        with folders.held(folder, _option(cfg, folder)) if main_process() else nullcontext():
            summary = _finished(cfg, folder) or _carry_out(cfg, folder)
    return summary


def _carry_out(cfg: DictConfig, folder: Path) -> Document:
    """In a folder that is this run's."""
    from transformers.utils.logging import disable_progress_bar

    from alignzoo.config.run import instantiate
    from alignzoo.engine.callbacks import Interrupt
    from alignzoo.engine.unused import unused
    from alignzoo.runs import made_of, saving
    from alignzoo.runs.display import Display, each_once

    disable_progress_bar()  # of saving and loading: ours shows the run
    checkpoint = _starting_point(cfg, folder)
    if main_process():
        folders.sweep(folder)
    fresh = checkpoint is None and main_process()
    setup, interrupt, displays = instantiate(cfg), Interrupt(), list[Display]()
    builder = _builder(setup)(setup, folder, cache_folder())
    if checkpoint and main_process():
        origin = made_of.checked(setup, contents(cfg), folder, checkpoint)
        _unused(folder)  # a damaged file is told now, and not when the run is over
        if (folder / CONFIG).read_bytes() != identity(cfg).encode():  # of another version, or without its last newline
            folders.rewrite(folder, identity(cfg))

    def show(step: int, row: dict[str, float]) -> None:
        for display in displays:
            display.update(step, row, trainer.allowance.share)

    with interrupt.listening(), each_once():
        with folders.begun(folder, identity(cfg)) if fresh else nullcontext():
            trainer = builder.trainer(interrupt, show)
        if trainer.inner.is_world_process_zero():
            if fresh:
                origin = made_of.Origin(folder, made_of.parts(setup, contents(cfg)))
                idle = unused(builder, cfg.override_keys)
                for cause, keys in idle.items():
                    _say(f"no effect with {cause}: {', '.join(keys)}")
                about = {"command": command(), "unused": sorted({key for keys in idle.values() for key in keys})}
                write_whole(folder / ENVIRONMENT, json.dumps(about | environment(), indent=1))
            origin.write()
            total = None if trainer.allowance.limited else trainer.inner.args.max_steps
            displays.append(Display(total, f"{setup.choices['algorithm']} on {setup.choices['data']}"))
        trainer.inner.accelerator.wait_for_everyone()
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            return _finish(trainer, setup, folder)
        except Exception as error:
            if disk.is_full(error) and trainer.inner.is_world_process_zero():
                raise UserError(f"{disk.what_is_full(error)}.\n{saving.salvage(trainer, folder)}") from error
            raise
        finally:
            for display in displays:
                display.close()


def check(cfg: DictConfig) -> None:
    """For one run; see `alignzoo.pipeline.train.check`."""
    from alignzoo.config.run import instantiate

    setup = instantiate(cfg)
    _builder(setup)(setup, run_folder(cfg), cache_folder()).check(ranks=1)


def _builder(setup: RunConfig) -> type[Builder]:
    from alignzoo.contracts import TrainerPlugin
    from alignzoo.engine.build import Builder
    from alignzoo.engine.hosted import HostBuilder

    return HostBuilder if isinstance(setup.algorithm, TrainerPlugin) else Builder


def run_folder(cfg: DictConfig) -> Path:
    """Where the run is: `resume`, `run_dir`, or a name made from the config, the same on every rank."""
    if cfg.resume:
        return Path(cfg.resume)
    if cfg.run_dir:
        return Path(cfg.run_dir)
    digest = hashlib.sha256(identity(cfg).encode()).hexdigest()[:8]
    return Path("runs") / f"{cfg.choices.algorithm}-{cfg.choices.data}-{digest}"


def contents(cfg: DictConfig) -> Document:
    """The config without what says only where the run is, and without secrets."""
    return {key: value for key, value in fingerprint.written(cfg).items() if key not in VOLATILE}


def identity(cfg: DictConfig) -> str:
    """`contents` as text: config.yaml."""
    return OmegaConf.to_yaml(contents(cfg))


def _option(cfg: DictConfig, folder: Path) -> str:
    return f"{'resume' if cfg.resume else 'run_dir'}={folder}"


def _finished(cfg: DictConfig, folder: Path) -> Document | None:
    """The summary of this run where it has ended; nothing is changed. Raises UserError where the folder is another run's, or
    somebody's who is none."""
    # only the first rank complains: another could see the folder before and after what the first does to it
    option, saved = _option(cfg, folder), folder / CONFIG
    if not saved.exists():
        if cfg.resume:
            raise UserError(f"{option} is not a run: it has no config.yaml")
        if main_process() and (names := folders.strangers(folder)):
            more = ", ..." if len(names) > 3 else ""
            raise UserError(f"{option} holds no run, but {', '.join(names[:3])}{more}: choose another run_dir")
        return None
    if saved.read_bytes() != identity(cfg).encode() and not _same_settings(folder, cfg):
        if main_process():
            what = first_difference(saved.read_text("utf-8", "replace"), identity(cfg))
            raise UserError(
                f"{option} holds a run with other settings ({what}; see {saved}): choose another run_dir, or remove it"
            )
        return None
    if summary := summary_of(folder):
        _say(f"{option} is finished: nothing is left to do; from its weights, model=hf model.path={folder / MODEL} goes on")
    return summary


def _same_settings(folder: Path, cfg: DictConfig) -> bool:
    """Whether they are only written otherwise, by a version that had more settings or fewer; of a stranger's run whose settings
    name code nothing is loaded to find out, and they are not."""
    from alignzoo.config.composition import load_run

    try:
        return identity(load_run(folder, cfg.trust)) == identity(cfg)
    except UserError:
        return False


def first_difference(there: str, here: str) -> str:
    """The first setting that differs between two configs, as text."""
    try:
        before, now = (flat(yaml.safe_load(text)) for text in (there, here))
    except yaml.YAMLError:
        return "it is damaged"
    key = next((key for key in {**before, **now} if before.get(key, ABSENT) != now.get(key, ABSENT)), "their order")
    return f"{key}: {before.get(key, ABSENT)} there, {now.get(key, ABSENT)} asked for"


def _starting_point(cfg: DictConfig, folder: Path) -> Path | None:
    """The newest checkpoint that is whole; None for a run that starts at step 0. Raises UserError where there are some, and
    none is whole."""
    from alignzoo.engine import checkpoint

    broken = {}
    for path in reversed(checkpoint.saved(folder / CHECKPOINTS)):
        if fault := checkpoint.fault(path):
            broken[path] = fault
            continue
        for newer, why in broken.items():
            if main_process():
                _say(f"{newer} is not whole ({why}): it is set aside as {folders.set_aside(newer).name}")
        _say(f"{folder} goes on from {path.name}")
        return path
    for path, fault in broken.items():
        raise UserError(
            f"{_option(cfg, folder)}: {path.name} is not whole, and there is no other: {fault}.\n"
            f"Put it back from a copy, or remove {path} to begin again; nothing was changed"
        )
    if (folder / CONFIG).exists():
        _say(f"{folder} begins again: no checkpoint yet")
    return None


def _say(text: str) -> None:
    if main_process():
        tell(text)


def main_process() -> bool:
    """Under torchrun the first rank speaks for all that have the same to say."""
    return os.environ.get("RANK", "0") == "0"


def command() -> list[str]:
    """The command line of this process, as it would be typed, but for passwords."""
    program, *arguments = map(masked, sys.argv)
    return [*(["alignzoo"] if Path(program).name in ("alignzoo", "__main__.py") else ["python", program]), *arguments]


def environment() -> Document:
    """Versions, hardware and commit: what another person needs to see the same numbers."""
    import torch

    versions = {name: fingerprint.version(name) for name in PACKAGES}
    return {
        "versions": versions, "python": platform.python_version(), "platform": platform.platform(), "commit": _commit(),
        "cpus": os.cpu_count(), "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
    }  # fmt: skip


def _commit() -> str | None:
    """The commit of the source tree that runs, where it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _finish(trainer: RunTrainer, setup: RunConfig, folder: Path) -> Document:
    """Save the model and the summary; an interrupted run has its checkpoint already."""
    from alignzoo.common.account import peak_memory
    from alignzoo.runs import saving
    from alignzoo.runs.card import card

    cost = trainer.cost.columns()  # a collective: every rank takes part
    summary: Document = {
        **{group: setup.choices[group] for group in ("algorithm", "data", "model", "reward", "reference")},
        "seed": setup.seed, "status": "finished" if trainer.ended else "interrupted", "run_dir": str(folder),
        "steps": trainer.inner.state.global_step, **cost,
        **({"budget_used": cost[str(setup.budget.unit.value)]} if trainer.allowance.limited else {}),
        "unused": _unused(folder),
        "peak_memory": peak_memory(), "data_report": trainer.tables_report,
        **({"early_stop": trainer.stopping.tell()} if trainer.stopping.active else {}),
        "metrics": {name.removeprefix("eval/"): value for name, value in trainer.evaluated[1].items()},
    }  # fmt: skip
    if trainer.inner.is_world_process_zero() and trainer.ended:
        saving.save(trainer, folder, card(setup, summary, trainer.encoder))
        if curves := setup.data.curves():
            write_whole(folder / FRONTIER, json.dumps(curves))
        write_whole(folder / SUMMARY, json.dumps(summary, indent=1, default=str))
    trainer.inner.accelerator.wait_for_everyone()
    return summary


def _unused(folder: Path) -> list[str]:
    """What the command that began the run set without effect."""
    path = folder / ENVIRONMENT
    return list(folders.read(path).get("unused", [])) if path.exists() else []


def summary_of(folder: Path) -> Document | None:
    """What a finished run says of itself; None where there is none."""
    path = folder / SUMMARY
    return dict(folders.read(path)) if path.exists() else None
