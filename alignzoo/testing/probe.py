"""What an algorithm asks networks for, the gradient that it sends back to their answers, and signals planted in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Kind, Role, Scores
from alignzoo.testing.lab import Lab

METHODS = ("logprobs", "tokens", "values", "scores", "comparisons", "generate")
Text = tuple[tuple[int, ...], tuple[int, ...]]  # the tokens of a prompt, and of a completion


@dataclass
class Answer:
    """What one call gave: `values` (B, ...) of the completions `c`; its gradient is there after the backward pass."""

    role: str
    method: str
    c: Completions
    values: Tensor


@dataclass
class AnswerLog:
    heard: list[Answer] = field(default_factory=list)

    def of(self, role: str, *methods: str) -> list[Answer]:
        return [a for a in self.heard if a.role == role and (not methods or a.method in methods)]

    def pulls(self) -> dict[Text, float]:
        """The gradient of the objective by the policy's log-prob of each completion."""
        sums: dict[Text, float] = {}
        for a in self.of("policy", "logprobs"):
            if a.values.grad is not None:
                for text, pull in zip(texts(a.c), a.c.sum(a.values.grad).tolist(), strict=True):
                    sums[text] = sums.get(text, 0.0) + pull
        return sums


@contextmanager
def listening(lab: Lab, shift: Callable[[Completions], Tensor] | None = None) -> Iterator[AnswerLog]:
    """Notes every answer of the networks inside. `shift` (B,) is added to the references' log-probs of each completion."""
    answers, networks = AnswerLog(), lab.trainer.views[""].networks
    shifted = references(lab.setup.algorithm.roles()) if shift else []

    def noting(role: str, method: str, answer: Callable[..., Tensor | Completions]) -> Callable[..., Tensor | Completions]:
        def call(c: Completions, *rest: object, **options: object) -> Tensor | Completions:
            values = answer(c, *rest, **options)
            if isinstance(values, Completions):
                answers.heard.append(Answer(role, method, values, values.ids))
                return values
            if shift and role in shifted and method == "logprobs":
                values = values + torch.where(c.scored, (shift(c) / c.length.clamp(min=1))[:, None], 0)
            if values.requires_grad:
                values.retain_grad()
            answers.heard.append(Answer(role, method, c, values))
            return values

        return call

    wrapped = [(networks[name], name, method) for name in networks for method in METHODS if hasattr(networks[name], method)]
    for network, name, method in wrapped:
        setattr(network, method, noting(name, method, getattr(network, method)))
    try:
        yield answers
    finally:
        for network, _, method in wrapped:
            delattr(network, method)


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


def texts(c: Completions) -> list[Text]:
    prompts = [tuple(ids[mask].tolist()) for ids, mask in zip(c.prompts.ids, c.prompts.attended, strict=True)]
    written = [tuple(ids[mask].tolist()) for ids, mask in zip(c.ids, c.attended, strict=True)]
    return list(zip([prompts[p] for p in c.prompt_of.tolist()], written, strict=True))


def references(roles: Mapping[str, Role]) -> list[str]:
    """The roles that the policy is compared with: policies that are not trained, and no teachers."""
    policies = {n: r for n, r in roles.items() if r.kind is Kind.POLICY and not r.trained and r.start != "config"}
    return [n for n in policies if n != "teacher"]


def plant(lab: Lab, score: Callable[[Completions], Tensor], valid: Callable[[Completions], Tensor] | None = None) -> None:
    """Another reward, from here on."""

    def planted(c: Completions) -> Scores:
        return Scores(total=score(c), valid=valid(c) if valid else None)

    for models in (lab.trainer.roles, *lab.trainer.views.values()):
        if models.has_reward:
            models.score, models.compare = planted, None
