"""A Bradley-Terry reward model that is linear in the words, and pairs of neighbouring words, that a completion has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

WORD = re.compile(r"\w+|[^\w\s]")
PENALTY = 1e-3  # of the squared weights
Pair = tuple[str, str]  # chosen, rejected


def terms(text: str) -> set[str]:
    """The words and neighbours that are there, however often."""
    words = WORD.findall(text.lower())
    return {*words, *(" ".join(two) for two in pairwise(words))}


class BagOfWords:
    """The score of a completion is the sum of its terms' weights, which maximise the penalised likelihood of `pairs`."""

    def __init__(self, pairs: Sequence[Pair], penalty: float = PENALTY) -> None:
        self.column = {term: i for i, term in enumerate(sorted({t for pair in pairs for text in pair for t in terms(text)}))}
        features = self._differences(pairs)
        self.weight = torch.zeros(len(self.column), requires_grad=True)
        optimizer = torch.optim.LBFGS([self.weight], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.softplus(-self._margins(features)).mean() + penalty * self.weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)

    @torch.no_grad()
    def margins(self, pairs: Sequence[Pair]) -> Tensor:
        """(N,): the score of the chosen less that of the rejected; terms never seen count nothing."""
        return self._margins(self._differences(pairs))

    def _margins(self, features: tuple[Tensor, Tensor, int]) -> Tensor:
        row, signed, count = features
        weights = self.weight[signed.abs() - 1] * signed.sign()
        return weights.new_zeros(count).index_add(0, row, weights)

    def _differences(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, int]:
        """Which row, and which column (from 1), negative for terms that only the rejected one has; the number of rows."""
        entries = [
            (row, sign * (self.column[term] + 1))
            for row, (chosen, rejected) in enumerate(pairs)
            for sign, here, there in ((1, terms(chosen), terms(rejected)), (-1, terms(rejected), terms(chosen)))
            for term in sorted(here - there)
            if term in self.column
        ]
        row, signed = torch.tensor(entries, dtype=torch.long).reshape(-1, 2).T
        return row, signed, len(pairs)
