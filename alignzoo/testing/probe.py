"""What an algorithm asks networks for, the gradient that it sends back to their answers, and signals planted in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Kind, Role, Scores
from alignzoo.testing.lab import Lab

METHODS = ("logprobs", "tokens", "values", "scores", "generate")
Text = tuple[tuple[int, ...], tuple[int, ...]]  # the tokens of a prompt, and of a completion


@dataclass
class Answer:
    """What one call gave: `values` (B, ...) of the completions `c`; its gradient is there after the backward pass."""

    role: str
    method: str
    c: Completions
    values: Tensor


@dataclass
class Answers:
    heard: list[Answer] = field(default_factory=list)

    def of(self, role: str, *methods: str) -> list[Answer]:
        return [a for a in self.heard if a.role == role and (not methods or a.method in methods)]

    def pulls(self) -> dict[Text, float]:
        """The gradient of the objective by the policy's log-prob of each completion."""
        found: dict[Text, float] = {}
        for a in self.of("policy", "logprobs"):
            if a.values.grad is not None:
                for text, pull in zip(texts(a.c), a.c.sum(a.values.grad).tolist(), strict=True):
                    found[text] = found.get(text, 0.0) + pull
        return found


@contextmanager
def listening(lab: Lab, shift: Callable[..., Tensor] | None = None) -> Iterator[Answers]:
    """Notes every answer of the networks inside. `shift` (B,) is added to the references' log-probs of each completion."""
    answers, networks = Answers(), lab.trainer.views[""].networks
    shifted = references(lab.setup.algorithm.roles()) if shift else []

    def heard(role: str, method: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def call(c: Any, *rest: Any, **options: Any) -> Any:
            values = answer(c, *rest, **options)
            if method == "generate":
                answers.heard.append(Answer(role, method, values, values.ids))
                return values
            if shift and role in shifted and method == "logprobs":
                values = values + torch.where(c.scored, (shift(c) / c.length.clamp(min=1))[:, None], 0)
            if values.requires_grad:
                values.retain_grad()
            answers.heard.append(Answer(role, method, c, values))
            return values

        return call

    wrapped = [(n, m) for n, v in networks.items() for m in METHODS if hasattr(v, m)]
    for name, method in wrapped:
        setattr(networks[name], method, heard(name, method, getattr(networks[name], method)))
    try:
        yield answers
    finally:
        for name, method in wrapped:
            delattr(networks[name], method)


class Signs:
    """1 and -1 in turn for the completions of a prompt, beginning with the other for the next prompt; remembered by text."""

    def __init__(self) -> None:
        self.by_text: dict[Text, float] = {}

    def __call__(self, c: Completions) -> Tensor:
        return torch.tensor([self._sign(text) for text in texts(c)], device=c.ids.device)

    def _sign(self, text: Text) -> float:
        if text not in self.by_text:
            prompts = [prompt for prompt, _ in self.by_text]
            order = list(dict.fromkeys([*prompts, text[0]]))
            self.by_text[text] = 1.0 - 2.0 * ((order.index(text[0]) + prompts.count(text[0])) % 2)
        return self.by_text[text]

    def compared(self) -> dict[Text, float]:
        """The signs of completions that have others of their prompt beside them."""
        prompts = [prompt for prompt, _ in self.by_text]
        return {text: sign for text, sign in self.by_text.items() if prompts.count(text[0]) > 1}


def texts(c: Completions) -> list[Text]:
    prompts = [tuple(ids[mask].tolist()) for ids, mask in zip(c.prompts.ids, c.prompts.attended, strict=True)]
    written = [tuple(ids[mask].tolist()) for ids, mask in zip(c.ids, c.attended, strict=True)]
    return list(zip([prompts[p] for p in c.prompt_of.tolist()], written, strict=True))


def references(roles: Any) -> list[str]:
    """The roles that the policy is compared with: policies that are not trained, and no teachers of a task or config."""
    declared: dict[str, Role] = dict(roles)
    return [n for n, r in declared.items() if r.kind is Kind.POLICY and not r.trained and r.start != "config"]


def plant(lab: Lab, score: Callable[..., Tensor], valid: Callable[..., Tensor] | None = None) -> None:
    """Another reward, from here on."""
    lab.trainer.roles.score = lambda c: Scores(
        total=score(c), valid=valid(c) if valid else torch.ones_like(c.row, dtype=torch.bool)
    )
    lab.trainer.views = lab.trainer.make_views()
