"""What a reward learns apart from the policy: an optimizer for each of its networks, steps of its own, and their account."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict, TypeVar

import torch
from torch import Tensor, nn
from transformers import Trainer

from alignzoo.batch import Batch, Completions
from alignzoo.common.account import Account, tokens_in
from alignzoo.common.ranks import gather_objects
from alignzoo.contracts import LearningReward, Lesson, Scores
from alignzoo.engine import checkpoint
from alignzoo.engine.meters import Meter
from alignzoo.engine.objective import averaging_weight, named_terms, weight_of, weighted_sum, weights_of
from alignzoo.errors import UserError
from alignzoo.models.roles import RoleNetworks, Score

B = TypeVar("B", bound=Batch)


class LessonsState(TypedDict):
    updates: int
    optimizers: dict[str, dict[str, object]]


class Lessons:
    """Gives a reward's lessons after each step of the policy.

    Every rank holds the whole batch, computes its share of the gradient, and takes the same step: these networks are no part of
    what data-parallel wrappers see. `modules` are those of the trained roles that are apart, and the reward's own.
    """

    def __init__(
        self, reward: LearningReward, models: RoleNetworks, trainer: Trainer, window: Meter, cost: Account, micro_batch: int
    ) -> None:
        self.reward, self.models, self.trainer, self.window, self.cost = reward, models, trainer, window, cost
        self.micro_batch, self.updates = micro_batch, 0
        roles = {name: models.networks[name].module for name in sorted(reward.apart())}
        self.modules: dict[str, nn.Module] = {**roles, **reward.networks()}
        kind, options = Trainer.get_optimizer_cls_and_kwargs(trainer.args)
        options |= {"weight_decay": trainer.args.weight_decay}
        self.optimizers = {name: kind(list(module.parameters()), **options) for name, module in self.modules.items()}

    def after(self, step: int) -> None:
        """The lessons that are due after this step of the policy."""
        with self.cost.phase("training"), self.models.shared.noise.during("lessons", step):
            for lesson in self.reward.lessons(step):
                self._learn(lesson, step)
                self.updates += 1
                self.cost.count(reward_updates=int(self.trainer.is_world_process_zero()))

    def _learn(self, lesson: Lesson, step: int) -> None:
        prefix = f"{lesson.name}/" if lesson.name else ""
        learning = {*lesson.learner.apart(), *(prefix + name for name in lesson.learner.networks())}
        loss = self._gradients(lesson, f"reward/{prefix}")
        for name in [name for name in self.modules if name in learning]:
            parameters = [p for p in self.modules[name].parameters() if p.requires_grad]
            for p in parameters:
                p.grad = self.models.sum(torch.zeros_like(p) if p.grad is None else p.grad)
            norm = nn.utils.clip_grad_norm_(parameters, self.trainer.args.max_grad_norm or float("inf"))
            if not torch.isfinite(norm + loss):
                raise UserError(
                    f"what the reward learns by itself is not finite after step {step} (its loss is {loss:.4g}): "
                    f"lower its learning rate, which is {lesson.learning_rate:g}"
                )
            optimizer = self.optimizers[name]
            for group in optimizer.param_groups:
                group["lr"] = lesson.learning_rate
            optimizer.step()
            optimizer.zero_grad()
        for name, value in lesson.metrics.items():
            self.window.add(f"reward/{prefix}{name}", value)

    def _gradients(self, lesson: Lesson, prefix: str) -> Tensor:
        """Adds this rank's share to every gradient; returns the loss over all ranks."""
        learner, batch = lesson.learner, lesson.batch.to(self.trainer.args.device)
        totals = {name: weight.double().sum() for name, weight in weights_of(learner, batch).items()}
        view = self.models.only(set(learner.roles()), learner.apart())
        loss = torch.zeros((), device=self.trainer.args.device)
        for part in self._cut(batch):
            with torch.enable_grad(), self.trainer.accelerator.autocast():
                terms, metrics = named_terms(learner.loss(view, part))
            weights, total = weights_of(learner, part), torch.zeros((), device=loss.device)
            for name, term in terms.items():
                total = total + weighted_sum(term, *weight_of(name, term, weights, totals))
            total.backward()
            loss = loss + total.detach()
            for name, (value, mask) in metrics.items():
                self.window.add(prefix + name, value, averaging_weight(value, mask, part))
            self.cost.count(trained_tokens=tokens_in(part))
        loss = self.models.sum(loss)
        self.window.add(f"{prefix}loss", loss)
        return loss

    def _cut(self, batch: B) -> Iterator[B]:
        """This rank's records, as many at once as the policy learns from."""
        accelerator = self.trainer.accelerator
        places = range(accelerator.process_index, len(batch), accelerator.num_processes)
        for start in range(0, len(places), self.micro_batch):
            yield batch.take(list(places[start : start + self.micro_batch]))

    def save(self, folder: Path) -> None:
        """What was learnt, where the run's result is saved."""
        for name, module in self.modules.items():
            checkpoint.save_module(module, folder / name)
        self.reward.export(folder)

    def state_dict(self) -> LessonsState:
        return {"updates": self.updates, "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()}}

    def load_state_dict(self, state: LessonsState) -> None:
        self.updates = state["updates"]
        for name, optimizer_state in state["optimizers"].items():
            self.optimizers[name].load_state_dict(optimizer_state)


def labelled(gold: Score, cost: Account, asks: bool, c: Completions) -> Scores:
    """The judge's scores of completions that every rank holds: asked by one rank, and counted as labels."""
    with cost.phase("reward"):
        scores = gather_objects(gold(c) if asks else None)[0]
    assert scores is not None
    cost.count(labels=int(scores.usable.sum()) if asks else 0)
    return scores
