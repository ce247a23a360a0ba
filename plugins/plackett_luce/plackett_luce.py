"""Plackett-Luce reward models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.batch import Rankings
from alignzoo.contracts import Algorithm, Kind, Models, Role, Search, UserError, require
from alignzoo.functional import plackett_luce_loss


@dataclass(kw_only=True)
class PlackettLuce(Algorithm):
    """L = - sum_k log( exp(r_k) / sum_{j >= k} exp(r_j) ) over a ranking, best first, + c (sum_k r_k)^2.

    Plackett 1975; Zhu et al. 2023. One loss a ranking, however many it ranks; of two it is Bradley-Terry, centring c
    (Eisenstein et al. 2023) included.
    """

    data = Rankings
    published_rate = 9e-6  # Ouyang et al. 2022, appendix C.2

    centring: float = field(
        default=0.0,
        metadata={"help": "weight of the squared sum of a ranking's scores", "search": Search(options=(0.0, 0.01, 0.1))},
    )

    def __post_init__(self) -> None:
        require(self.centring >= 0, "algorithm.centring", self.centring, ">= 0")

    def roles(self) -> Mapping[str, Role]:
        return {"scorer": Role(kind=Kind.SCORER, trained=True, needs=frozenset({"scores"}))}

    def weights(self, batch: Rankings) -> dict[str, Tensor]:
        """1 for the best of each ranking, where its loss stands; 0 for a ranking of which an item has nothing scored."""
        row, place, present = _arranged(batch)
        whole = torch.ones_like(present, dtype=batch.counted.dtype)
        whole[row, place] = batch.counted
        return {"loss": torch.where(place == 0, whole.amin(1)[row], 0)}

    def loss(self, models: Models, batch: Rankings) -> tuple[Tensor, dict[str, Tensor]]:
        scores = models.scorer.scores(batch)
        row, place, present = _arranged(batch)
        _check(batch, row, place, present)
        ranked = scores.new_zeros(present.shape).index_put((row, place), scores)  # (G, K), best first
        ordered = plackett_luce_loss(ranked, present) + self.centring * ranked.sum(1) ** 2
        metrics = {"score": scores, "accuracy": _accuracy(ranked.detach(), present)[row]}
        return torch.where(place == 0, ordered[row], 0), metrics


def _arranged(batch: Rankings) -> tuple[Tensor, Tensor, Tensor]:
    """Which ranking each completion is of (B,), its place in it (B,), and (G, K) bool the places that a ranking has."""
    # a row of the data and a prompt: rows may share a prompt, and records of one row may come twice
    row = (batch.row * len(batch.prompts) + batch.prompt_of).unique(return_inverse=True)[1]
    order = batch.rank.argsort(stable=True)
    order = order[row[order].argsort(stable=True)]  # by ranking, best first
    sizes = row.bincount()
    place = torch.empty_like(order).index_put((order,), _counted(sizes))
    return row, place, torch.arange(int(sizes.max()), device=row.device) < sizes[:, None]


def _counted(sizes: Tensor) -> Tensor:
    """0, 1, ... for each of the sizes, one after the other."""
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return torch.arange(len(starts), device=sizes.device) - starts


def _check(batch: Rankings, row: Tensor, place: Tensor, present: Tensor) -> None:
    """Raises UserError for a ranking that is none."""
    ranks = torch.full(present.shape, torch.inf, device=row.device).index_put((row, place), batch.rank.float())
    alone, tied = present.sum(1) < 2, (present[:, 1:] & (ranks[:, 1:] == ranks[:, :-1])).any(1)
    bad = (alone | tied)[row].nonzero()[:, 0]
    if len(bad):
        first = int(bad[0])
        what = "holds one completion, which ranks nothing" if alone[row[first]] else "has ties, which Plackett-Luce can't order"
        prompt = batch.prompts.text[int(batch.prompt_of[first])]
        raise UserError(
            f"the ranking in row {int(batch.row[first])} (prompt {prompt[:40]!r}) {what}: drop the row, "
            "or learn from its pairs with algorithm=bradley_terry"
        )


def _accuracy(ranked: Tensor, present: Tensor) -> Tensor:
    """(G,): the share of a ranking's pairs whose better one has the higher score; equal scores count half."""
    before = torch.ones(*[present.shape[1]] * 2, dtype=torch.bool, device=present.device).triu(1)
    better = before & present[:, None]  # (G, K, K): those present come first
    right = ((ranked[:, :, None] - ranked[:, None]).sign() + 1) / 2
    return torch.where(better, right, 0).sum((1, 2)) / better.sum((1, 2)).clamp(min=1)
