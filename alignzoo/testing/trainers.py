"""What a hosted trainer promises: it builds, trains, is evaluated like any other, and what it saves can be loaded."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import torch

from alignzoo.common.folder import CHECKPOINTS, METRICS, MODEL, rows
from alignzoo.settings import Model, Rollout
from alignzoo.testing import search, toys
from alignzoo.testing.part import Part
from alignzoo.testing.subject import expect, saved_model

STEPS = 3


def search_spaces(part: Part) -> None:
    """Declared search ranges hold the default, and values that the trainer takes."""
    search.check(part.made)


def builds(part: Part) -> None:
    """`build` returns a `transformers.Trainer`."""
    _trainer(part, "built")


def trains(part: Part) -> None:
    """Three steps move the policy, or scorer; the losses are finite, and logged."""
    trainer, folder = _trained(part)
    start = torch.cat([p.flatten() for p in _trainer(part, "start").trained.main.parameters()])
    end = torch.cat([p.detach().flatten() for p in trainer.trained.main.parameters()])
    expect(bool(end.isfinite().all()), "finite weights", "NaN or Inf", "an unbounded loss")
    moved = start.shape != end.shape or not torch.equal(start, end)
    expect(moved, "the model to learn", "weights that don't move", "the trainer trains a model that is not `trainer.model`")
    losses = [row["loss"] for row in rows(folder / METRICS) if "loss" in row]
    logged = len(losses) == STEPS and all(map(math.isfinite, losses))
    expect(logged, f"{STEPS} finite losses in metrics.jsonl", f"{losses}", "`arguments` is not given to the trainer")


def evaluates(part: Part) -> None:
    """Evaluation measures the policy, or scorer, that was trained."""
    trainer, _ = _trained(part)
    found = trainer.evaluated[1]
    finite = found and all(math.isfinite(value) for value in found.values())
    wanted = "eval/reward" if "policy" in trainer.trained.roles else "eval/accuracy"
    expect(bool(finite) and wanted in found, f"a finite {wanted} and others", f"{found}", "evaluation did not run")


def reloads(part: Part) -> None:
    """The saved model is the trained one, and training goes on from a checkpoint."""
    trainer, folder = _trained(part)
    from alignzoo.runs.saving import save_model

    save_model(trainer, folder / MODEL)
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind: Any = AutoModelForCausalLM if "policy" in trainer.trained.roles else AutoModelForSequenceClassification
    loaded: Any = kind.from_pretrained(folder / MODEL)
    ids = torch.arange(3, 9)[None]
    with torch.no_grad():
        pairs = [model.eval()(input_ids=ids).logits for model in (trainer.trained.main.cpu(), loaded)]
    off = (pairs[0] - pairs[1]).abs().max().item()
    expect(off < 1e-4, "the same logits after loading", f"a difference of {off:.1e}", "the model saved is not the one trained")
    again = _trainer(part, "resumed")
    again.train(resume_from_checkpoint=str(folder / CHECKPOINTS / "checkpoint-2"))
    step = again.state.global_step
    expect(step == STEPS, f"a resumed run to end at step {STEPS}", f"{step}", "the trainer keeps its own count")


def _trained(part: Part) -> tuple[Any, Path]:
    folder = part.folder / "trained"
    if "trained" not in vars(part):
        trainer = _trainer(part, "trained")
        trainer.train()
        part.__dict__["trained"] = trainer
    return vars(part)["trained"], folder


def _trainer(part: Part, label: str) -> Any:
    from alignzoo.engine.callbacks import Interrupt
    from alignzoo.engine.hosted import HostBuilder

    folder = part.folder / label
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    algorithm = part.fresh()
    wanted = [name for name, role in algorithm.roles().items() if role.start in ("config", "reward")]
    roles = {name: str(saved_model(part.folder / "model")) for name in wanted}
    training = {"max_steps": STEPS, "save_steps": 2, "batch": 4, "learning_rate": 0.01}
    # what the policy wrote is all there is: a foreign trainer may know no other
    made = toys.setup(
        algorithm, part.name, training=training, roles=roles, model=Model(config=dict(toys.LLAMA)),
        data=toys.ToySource(unscored=False), rollout=Rollout(prompts=2, samples=2),
    )  # fmt: skip
    return HostBuilder(made, folder, folder / "cache").trainer(Interrupt(), lambda step, row: None)


CHECKS = (search_spaces, builds, trains, evaluates, reloads)
