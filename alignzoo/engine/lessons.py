"""What a reward learns apart from the policy: an optimizer for each of its networks, steps of its own, and their account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from alignzoo.batch import Completions
from alignzoo.contracts import Lesson, Reward, Scores
from alignzoo.engine import checkpoint
from alignzoo.engine.cost import tokens_in
from alignzoo.engine.trainer import default_weights, named_terms, weight_of, weighted_sum
from alignzoo.errors import UserError
from alignzoo.models.roles import Models, gather_objects


class Lessons:
    """Gives a reward's lessons after each step of the policy.

    Every rank holds the whole batch, computes its share of the gradient, and takes the same step: these networks are no part of
    what data-parallel wrappers see. `modules` are those of the trained roles that are apart, and the reward's own.
    """

    def __init__(self, reward: Reward, modules: Mapping[str, nn.Module], trainer: Any, micro_batch: int) -> None:
        self.reward, self.modules, self.trainer, self.micro_batch = reward, dict(modules), trainer, micro_batch
        self.updates = 0
        kind, options = Trainer.get_optimizer_cls_and_kwargs(trainer.args)
        options |= {"weight_decay": trainer.args.weight_decay}
        self.optimizers = {name: kind(list(module.parameters()), **options) for name, module in self.modules.items()}

    def after(self, step: int) -> None:
        """The lessons that are due after this step of the policy."""
        trainer = self.trainer
        with trainer.cost.phase("training"), trainer.roles.shared.noise.during("lessons", step):
            for lesson in self.reward.lessons(step):
                self._learn(lesson, step)
                self.updates += 1
                trainer.cost.count(reward_updates=int(trainer.is_world_process_zero()))

    def _learn(self, lesson: Lesson, step: int) -> None:
        names = [name for name in self.modules if name in {*lesson.learner.apart(), *self._own(lesson)}]
        prefix = "reward/" + (f"{lesson.name}/" if lesson.name else "")
        loss = self._gradients(lesson, prefix)
        for name in names:
            self._share_gradient(self.modules[name])
            norm = nn.utils.clip_grad_norm_(self.modules[name].parameters(), self.trainer.args.max_grad_norm or float("inf"))
            if not torch.isfinite(norm + loss):
                raise UserError(
                    f"what the reward learns by itself is not finite after step {step} (its loss is {loss:.4g}): "
                    f"lower its learning rate, which is {lesson.learning_rate:g}"
                )
            for group in self.optimizers[name].param_groups:
                group["lr"] = lesson.learning_rate
            self.optimizers[name].step()
            self.optimizers[name].zero_grad()
        for name, value in lesson.metrics.items():
            self.trainer.window.add(prefix + name, value)

    def _own(self, lesson: Lesson) -> list[str]:
        """The names, among all modules, of the networks that are the learner's own."""
        return [f"{lesson.name}/{name}" if lesson.name else name for name in lesson.learner.networks()]

    def _gradients(self, lesson: Lesson, prefix: str) -> Tensor:
        """Adds this rank's share to every gradient; returns the loss over all ranks."""
        trainer, learner = self.trainer, lesson.learner
        batch = lesson.batch.to(trainer.args.device)
        totals = {name: weight.double().sum() for name, weight in weights(learner, batch).items()}
        view: Models = trainer.roles.only(set(learner.roles()), learner.apart())
        loss = torch.zeros((), device=trainer.args.device)
        for part in self._cut(batch):
            with torch.enable_grad(), trainer.accelerator.autocast():
                terms, metrics = named_terms(learner.loss(view, part))
            own, total = weights(learner, part), torch.zeros((), device=loss.device)
            for name, term in terms.items():
                total = total + weighted_sum(term, *weight_of(name, term, own, totals))
            total.backward()
            loss = loss + total.detach()
            for name, value in metrics.items():
                trainer.window.add(prefix + name, value, part.counted if value.dim() == 1 else 1.0)
            trainer.cost.count(trained_tokens=tokens_in(part))
        loss = trainer.roles.sum(loss)
        trainer.window.add(f"{prefix}loss", loss)
        return loss

    def _cut(self, batch: Any) -> Iterator[Any]:
        """This rank's records, as many at once as the policy learns from."""
        accelerator = self.trainer.accelerator
        mine = range(accelerator.process_index, len(batch), accelerator.num_processes)
        for start in range(0, len(mine), self.micro_batch):
            yield batch.take(list(mine[start : start + self.micro_batch]))

    def _share_gradient(self, module: nn.Module) -> None:
        for p in module.parameters():
            if p.requires_grad:
                p.grad = self.trainer.roles.sum(torch.zeros_like(p) if p.grad is None else p.grad)

    def save(self, folder: Path) -> None:
        """What was learnt, where the run's result is saved."""
        for name, module in self.modules.items():
            checkpoint.save_module(module, folder / name)
        self.reward.export(folder)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "optimizers": {name: one.state_dict() for name, one in self.optimizers.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for name, own in state["optimizers"].items():
            self.optimizers[name].load_state_dict(own)


def labelled(trainer: Any, c: Completions) -> Scores:
    """The judge's scores of completions that every rank holds: asked by one rank, and counted as labels."""
    asks = trainer.is_world_process_zero()
    with trainer.cost.phase("reward"):
        told: list[Any] = gather_objects(trainer.evaluator.gold(c) if asks else None)
    scores: Scores = told[0]
    trainer.cost.count(labels=int(scores.usable.sum()) if asks else 0)
    return scores


def weights(learner: Reward, batch: Any) -> dict[str, Tensor]:
    return default_weights(batch) | learner.weights(batch)
