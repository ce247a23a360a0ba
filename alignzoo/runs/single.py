"""One run: from a composed config to a folder with the trained model and a summary, resumable at any moment."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignzoo.setup import RunConfig
from alignzoo.common.disk import write_whole
from alignzoo.common.folder import CHECKPOINTS, CONFIG, ENVIRONMENT, FRONTIER, MODEL, SUMMARY
from alignzoo.errors import UserError

PACKAGES = ("alignzoo", "torch", "transformers", "accelerate", "trl", "peft", "datasets", "hydra-core", "numpy")
VOLATILE = ("resume", "run_dir", "stages_dir", "pipeline")  # say where a run is and how it was started, not what it is


def train(cfg: DictConfig) -> dict[str, Any]:
    """One run of what `cfg` says; see `alignzoo.pipeline.train.train`."""
    from transformers.utils.logging import disable_progress_bar

    from alignzoo.config.run import instantiate
    from alignzoo.runs.display import Display
    from alignzoo.engine.callbacks import Interrupt

    disable_progress_bar()  # of saving and loading: ours shows the run
    folder = run_folder(cfg)
    checkpoint = _starting_point(cfg, folder)
    if (done := summary_of(folder)) and cfg.resume:
        return done
    setup, interrupt, displays = instantiate(cfg), Interrupt(), list[Display]()

    def show(step: int, row: dict[str, float]) -> None:
        for display in displays:
            display.update(step, row, trainer.allowance.share)

    with interrupt.listening():
        trainer = _builder(setup)(setup, folder, cache_folder()).trainer(interrupt, show)
        if trainer.is_world_process_zero():
            if checkpoint is None:
                _begin(cfg, folder)
            total = None if trainer.allowance.limited else trainer.args.max_steps
            displays.append(Display(total, f"{setup.choices['algorithm']} on {setup.choices['data']}"))
        trainer.accelerator.wait_for_everyone()
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            for display in displays:
                display.close()
    return _finish(trainer, setup, folder)


def check(cfg: DictConfig) -> None:
    """For one run; see `alignzoo.pipeline.train.check`."""
    from alignzoo.config.run import instantiate

    setup = instantiate(cfg)
    _builder(setup)(setup, run_folder(cfg), cache_folder()).check(ranks=1)


def _builder(setup: RunConfig) -> Any:
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


def cache_folder() -> Path:
    """What runs share, such as a task's reference model: $ALIGNZOO_CACHE, else ~/.cache/alignzoo."""
    return Path(os.environ.get("ALIGNZOO_CACHE") or Path.home() / ".cache" / "alignzoo")


def contents(cfg: DictConfig) -> dict[str, Any]:
    """The config without what says only where the run is."""
    container: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    return {key: value for key, value in container.items() if key not in VOLATILE}


def identity(cfg: DictConfig) -> str:
    """`contents` as text: config.yaml."""
    return OmegaConf.to_yaml(contents(cfg))


def _starting_point(cfg: DictConfig, folder: Path) -> Path | None:
    """The checkpoint to go on from, or None for a run that starts at step 0. Raises UserError rather than touch another
    run's folder.
    """
    from alignzoo.engine import checkpoint

    saved = folder / CONFIG
    if cfg.resume:
        if not saved.exists():
            raise UserError(f"resume={folder} is not a run: it has no config.yaml")
        if saved.read_text() != identity(cfg):
            raise UserError(
                f"resume={folder} was made with another configuration: see {saved}. Start a new run with run_dir=FOLDER"
            )
        return checkpoint.latest(folder / CHECKPOINTS)
    if not folder.exists() or all(path.name.startswith(".") for path in folder.iterdir()):
        return None
    if not saved.exists() or saved.read_text() != identity(cfg):
        raise UserError(
            f"run_dir={folder} exists and is not an unfinished run of this command: choose another run_dir, or remove it"
        )
    if summary_of(folder):
        raise UserError(f"run_dir={folder} holds this run, finished: choose another run_dir, or remove it")
    if newest := checkpoint.latest(folder / CHECKPOINTS):
        raise UserError(
            f"run_dir={folder} holds this run, unfinished at {newest.name}: go on with alignzoo train resume={folder}"
        )
    return None


def _begin(cfg: DictConfig, folder: Path) -> None:
    """A fresh folder: what an attempt killed before its first checkpoint left is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # first, and in one piece: it tells the next attempt whose folder this is
    write_whole(folder / CONFIG, identity(cfg))
    write_whole(folder / ENVIRONMENT, json.dumps({"command": command(), **environment()}, indent=1))


def main_process() -> bool:
    """Under torchrun the first rank speaks for all that have the same to say."""
    return os.environ.get("RANK", "0") == "0"


def command() -> list[str]:
    """The command line of this process, as it would be typed."""
    program, *arguments = sys.argv
    return [*(["alignzoo"] if Path(program).name in ("alignzoo", "__main__.py") else ["python", program]), *arguments]


def environment() -> dict[str, Any]:
    """Versions, hardware and commit: what another person needs to see the same numbers."""
    import torch

    versions = {name: _version(name) for name in PACKAGES}
    return {
        "versions": versions, "python": platform.python_version(), "platform": platform.platform(), "commit": _commit(),
        "cpus": os.cpu_count(), "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
    }  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree that runs, where it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _finish(trainer: Any, setup: RunConfig, folder: Path) -> dict[str, Any]:
    """Save the model and the summary; an interrupted run has its checkpoint already."""
    from alignzoo.engine.cost import peak_memory

    finished = trainer.ended or trainer.state.global_step >= trainer.state.max_steps
    cost = trainer.cost.columns()  # a collective: every rank takes part
    summary = {
        **{group: setup.choices[group] for group in ("algorithm", "data", "model", "reward", "reference")},
        "seed": setup.seed, "status": "finished" if finished else "interrupted", "run_dir": str(folder),
        "steps": trainer.state.global_step, **cost,
        **({"budget_used": cost[str(setup.budget.unit.value)]} if trainer.allowance.limited else {}),
        "peak_memory": peak_memory(), "data_report": trainer.tables_report,
        **({"early_stop": trainer.stopping.tell()} if trainer.stopping.active else {}),
        "metrics": {name.removeprefix("eval/"): value for name, value in trainer.evaluated[1].items()},
    }  # fmt: skip
    if trainer.is_world_process_zero() and finished:
        save_model(trainer, folder / MODEL)
        if curves := setup.data.curves():
            write_whole(folder / FRONTIER, json.dumps(curves))
        write_whole(folder / SUMMARY, json.dumps(summary, indent=1, default=str))
    trainer.accelerator.wait_for_everyone()
    return summary


def save_model(trainer: Any, folder: Path) -> None:
    """The policy, or scorer, as `from_pretrained` loads it, adapters merged; the other trained roles beside it."""
    from alignzoo.engine import checkpoint

    main = trainer.trained.main
    merged = copy.deepcopy(main).merge_and_unload() if hasattr(main, "merge_and_unload") else main

    def fill(partial: Path) -> None:
        checkpoint.save_main(merged, partial, trainer.tokenizer)
        for name, module in trainer.trained.roles.items():
            if module is not main:
                checkpoint.save_module(module, partial / name)
        if lessons := getattr(trainer, "lessons", None):
            lessons.save(partial)

    checkpoint.write(folder, fill)


def summary_of(folder: Path) -> dict[str, Any] | None:
    """What a finished run says of itself; None where there is none."""
    path = folder / SUMMARY
    return json.loads(path.read_text()) if path.exists() else None
