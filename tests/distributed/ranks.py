"""Runs of the engine in one process or, under torchrun, in several; writes down what they did. A script of test_ranks."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import TrainerCallback

from alignzoo.batch import Rated
from alignzoo.contracts import Algorithm, Couples, Kind, Role
from alignzoo.engine.build import Builder
from alignzoo.engine.callbacks import Interrupt
from alignzoo.functional import masked_mean
from alignzoo.models.references import Cached
from alignzoo.rewards.adaptive import Normalise
from alignzoo.settings import Rollout
from alignzoo.testing import toys
from alignzoo_plugins.distill.distill import Distill, Source
from alignzoo_plugins.dpo.dpo import DPO
from alignzoo_plugins.grpo.grpo import GRPO
from alignzoo_plugins.ppo.ppo import PPO


@dataclass
class Repeating(toys.ToyTable):
    """Four prompts and several demonstrations of each; a batch holds a prompt once, as tables of text do."""

    def batch(self, rows: Any) -> Any:
        c = super().batch(rows)
        used, prompt_of = (c.row % 4).unique(return_inverse=True)
        return replace(c, prompts=toys.completions(used.tolist(), seed=self.seed).prompts, prompt_of=prompt_of)


class RepeatingSource(toys.ToySource):
    def tables(self, view: Any, context: Any) -> Any:
        return replace(super().tables(view, context), train=Repeating(view, self.size, self.seed))


TRAINING = {"batch": 16, "max_steps": 5, "max_grad_norm": 1e6}


@dataclass(frozen=True, eq=False, kw_only=True)
class Centred(Rated):
    centre: Tensor  # (B,): the mean log-prob of the optimizer step


@dataclass(kw_only=True)
class Lopsided(Algorithm):
    """A loss coupled over the optimizer step, in which one record, hence one rank, has nearly all the weight."""

    couples = Couples.STEP
    data = Rated

    def roles(self) -> dict[str, Role]:
        return {"policy": Role(kind=Kind.POLICY, trained=True)}

    def prepare(self, models: Any, batches: list[Rated]) -> list[Centred]:
        logprobs = torch.cat([b.sum(models.policy.logprobs(b)) for b in batches])
        centre = masked_mean(logprobs, torch.ones_like(logprobs, dtype=torch.bool), models.sum)
        return [Centred(**vars(b), centre=centre.expand(len(b))) for b in batches]

    def loss(self, models: Any, batch: Centred) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        logprobs = models.policy.logprobs(batch)
        off = batch.sum(logprobs) - batch.centre
        return {"heavy": (batch.rating - torch.sigmoid(off)) ** 2, "tokens": -logprobs}, {"off": off}

    def weights(self, batch: Rated) -> dict[str, Tensor]:
        return {"heavy": 1.0 + 1000.0 * (batch.row % 16 == 5)}


CASES: dict[str, dict[str, Any]] = {
    "ppo": {  # under a reward that learns its scale from the scores of all ranks
        "algorithm": lambda: PPO(epochs=2, whiten=True),
        "rollout": Rollout(prompts=16, samples=2),
        "reward": Normalise(parts={"count": {"kind": "task"}}),
    },
    "dpo": {"algorithm": DPO},
    "cached": {"algorithm": DPO, "reference": Cached()},  # ranks write into one file at once
    "lopsided": {"algorithm": Lopsided, "data": toys.ToySource(size=16)},
    # a quarter of the prompts are the teacher's: of four prompts a rank, sometimes none
    "mixed": {"algorithm": lambda: Distill(lam=0.5), "data": RepeatingSource(), "rollout": Rollout(prompts=8, samples=4)},
    "ptx": {
        "algorithm": lambda: PPO(epochs=2, ptx_coef=1.0),
        "data": RepeatingSource(),
        "rollout": Rollout(prompts=8, samples=2),
    },
    "refill": {  # prompts of which some leave a rank nothing to draw
        "algorithm": lambda: GRPO(beta=0.0, skip_equal=True),
        "reward": toys.CountReward(coarse=True),
        "rollout": Rollout(prompts=8, samples=2),
    },
    "distill": {"algorithm": lambda: Distill(source=Source.teacher, lam=0.75), "rollout": Rollout(prompts=8, samples=4)},
}


class Record(TrainerCallback):
    """The gradient of the first update, the weights after the third, and what each rollout sampled."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.found = trainer, {"completions": []}
        done = trainer.rollout_done
        trainer.rollout_done = lambda rollout: (self.found["completions"].append(_texts(rollout)), done(rollout))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step == 0:
            self.found["gradient"] = {n: p.grad.clone() for n, p in self.trainer.trained.named_parameters()}

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step == 3:
            self.found["weights"] = {n: p.detach().clone() for n, p in self.trainer.trained.named_parameters()}


def _texts(rollout: Any) -> list[tuple[int, list[int]]]:
    return [
        (row, ids[mask].tolist()) for row, ids, mask in zip(rollout.row.tolist(), rollout.ids, rollout.attended, strict=True)
    ]


def build(case: str, folder: Path, interrupt: Interrupt | None = None, **training: Any) -> Any:
    changes = copy.deepcopy({name: value for name, value in CASES[case].items() if name != "algorithm"})
    made = toys.setup(CASES[case]["algorithm"](), case, training=TRAINING | training, **changes)
    return Builder(made, folder, folder.parent / "cache").trainer(interrupt or Interrupt(), lambda step, row: None)


def run(case: str, folder: Path, micro_batch: str = "auto", resume: Path | None = None, **training: Any) -> dict[str, Any]:
    """Train, and return what `Record` saw with the final weights. `folder` is there."""
    trainer = build(case, folder, micro_batch=micro_batch, **training)
    record = Record(trainer)
    trainer.add_callback(record)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    final = {n: p.detach().clone() for n, p in trainer.trained.named_parameters()}
    return record.found | {"final": final, "summary": trainer.cost.state_dict()["counts"]}


def interrupted(folder: Path) -> dict[str, Any]:
    """SIGTERM reaches the last rank alone, in its second step."""
    interrupt = Interrupt()
    trainer = build("dpo", folder, interrupt)

    class Strike(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if state.global_step == 1 and dist.get_rank() == dist.get_world_size() - 1:
                os.kill(os.getpid(), signal.SIGTERM)

    trainer.add_callback(Strike())
    with interrupt.listening():
        trainer.train()
    return {"step": trainer.state.global_step, "struck": interrupt.requested}


def main(folder: Path) -> None:
    written: list[str] = []
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    if rank == 0:
        for run_folder in (*CASES, "interrupted"):
            (folder / run_folder).mkdir()
    dist.barrier()
    if rank:
        sys.addaudithook(lambda event, values: written.extend(_writes(event, values, folder)))
    found: dict[str, Any] = {case: run(case, folder / case) for case in CASES if case != "ppo"}
    found["ppo"] = run("ppo", folder / "ppo", save_steps=3)
    if rank == 0:
        shutil.copytree(folder / "ppo", folder / "resumed")
    dist.barrier()
    resumed = folder / "resumed" / "checkpoints" / "checkpoint-3"
    found["resumed"] = run("ppo", folder / "resumed", save_steps=3, resume=resumed)
    found["interrupted"] = interrupted(folder / "interrupted")
    found["written"] = written
    torch.save(found, f"{folder}-rank-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def _writes(event: str, values: tuple[Any, ...], folder: Path) -> list[str]:
    """What an audited event would write into a run; the cache is every rank's."""
    changes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.copytree", "shutil.rmtree")
    opened = event == "open" and isinstance(values[1], str) and set(values[1]) & set("wax+")
    path = str(values[0]) if changes or opened else ""
    in_a_run = path.startswith(str(folder)) and not path.startswith(str(folder / "cache"))
    return [f"{event} {path}"] if in_a_run else []


if __name__ == "__main__":
    main(Path(sys.argv[1]))
