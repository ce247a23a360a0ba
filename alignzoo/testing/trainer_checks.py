"""What a hosted trainer promises: it builds, trains, is evaluated like any other, and what it saves can be loaded."""

from __future__ import annotations

import math
import shutil
from functools import lru_cache

import torch

from alignzoo.common.folder import CHECKPOINTS, METRICS, MODEL, rows
from alignzoo.contracts import TrainerPlugin
from alignzoo.engine.run_trainer import RunTrainer
from alignzoo.settings import Model, Rollout
from alignzoo.testing import toys
from alignzoo.testing.expect import expect, expect_finite
from alignzoo.testing.hyperparameters import search_spaces
from alignzoo.testing.subject import STARTS_FROM_A_MODEL, Part, saved_model

STEPS = 3
Hosted = Part[TrainerPlugin]


def builds(part: Hosted) -> None:
    """`build` returns a `transformers.Trainer`."""
    _trainer(part, "built")


def trains(part: Hosted) -> None:
    """Three steps move the policy, or scorer; the losses are finite, and logged."""
    start, end = (
        torch.cat([p.detach().flatten() for p in trainer.trained.main.parameters()])
        for trainer in (_trainer(part, "start"), _trained(part))
    )
    expect_finite(end, "finite weights", "an unbounded loss")
    moved = start.shape != end.shape or not torch.equal(start, end)
    expect(moved, "the model to learn", "weights that don't move", "the trainer trains a model that is not `trainer.model`")
    losses = [row["loss"] for row in rows(part.folder / "trained" / METRICS) if "loss" in row]
    logged = len(losses) == STEPS and all(map(math.isfinite, losses))
    expect(logged, f"{STEPS} finite losses in metrics.jsonl", f"{losses}", "`arguments` is not given to the trainer")


def evaluates(part: Hosted) -> None:
    """Evaluation measures the policy, or scorer, that was trained."""
    trainer = _trained(part)
    metrics = trainer.evaluated[1]
    wanted = "eval/reward" if "policy" in trainer.trained.roles else "eval/accuracy"
    right = wanted in metrics and all(math.isfinite(value) for value in metrics.values())
    expect(right, f"a finite {wanted} and others", f"{metrics}", "evaluation did not run")


def reloads(part: Hosted) -> None:
    """The saved model is the trained one, and training goes on from a checkpoint."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from alignzoo.runs.saving import save

    trainer, folder = _trained(part), part.folder / "trained"
    save(trainer, folder)
    scorer = "policy" not in trainer.trained.roles
    loaded = (AutoModelForSequenceClassification if scorer else AutoModelForCausalLM).from_pretrained(folder / MODEL)
    with torch.no_grad():
        a, b = (model.eval()(input_ids=torch.arange(3, 9)[None]).logits for model in (trainer.trained.main.cpu(), loaded))
    off = (a - b).abs().max().item()
    expect(off < 1e-4, "the same logits after loading", f"a difference of {off:.1e}", "the model saved is not the one trained")
    resumed = _trainer(part, "resumed")
    resumed.train(resume_from_checkpoint=str(folder / CHECKPOINTS / "checkpoint-2"))
    step = resumed.inner.state.global_step
    expect(step == STEPS, f"a resumed run to end at step {STEPS}", f"{step}", "the trainer keeps its own count")


@lru_cache(maxsize=1)
def _trained(part: Hosted) -> RunTrainer:
    trainer = _trainer(part, "trained")
    trainer.train()
    return trainer


def _trainer(part: Hosted, label: str) -> RunTrainer:
    from alignzoo.engine.callbacks import Interrupt
    from alignzoo.engine.hosted import HostBuilder

    folder, plugin = part.folder / label, part.fresh()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    roles = [name for name, role in plugin.roles().items() if role.start in STARTS_FROM_A_MODEL]
    # what the policy wrote is all there is: a foreign trainer may know no other
    setup = toys.setup(
        plugin, part.name, training={"max_steps": STEPS, "save_steps": 2, "batch": 4, "learning_rate": 0.01},
        roles={name: str(saved_model(part.folder / "model")) for name in roles}, model=Model(config=dict(toys.LLAMA)),
        data=toys.ToySource(unscored=False), rollout=Rollout(prompts=2, samples=2),
    )  # fmt: skip
    return HostBuilder(setup, folder, folder / "cache").trainer(Interrupt(), lambda step, row: None)


CHECKS = (search_spaces, builds, trains, evaluates, reloads)
