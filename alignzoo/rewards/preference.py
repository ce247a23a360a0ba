"""`reward=preference`: a trained model of preferences, which reads both completions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Scores
from alignzoo.rewards.model import SequenceReward
from alignzoo.rewards.pretrained import Ids


@dataclass(kw_only=True)
class PreferenceModel(SequenceReward):
    """A model that `pairwise_preference` trained: the probability that one completion is preferred to another.

    Algorithms that compare two ask for that. To those that want a score it gives the probability to beat one of the prompt's
    completions in the batch, drawn at random, the completion itself among them: of one that is alone, 1/2.
    """

    name = "preference"
    pairs = True

    def __call__(self, c: Completions) -> Scores:
        same = c.prompt_of[:, None] == c.prompt_of[None, :]
        first, second = same.triu(1).nonzero(as_tuple=True)
        scores = self.preference(c.take(first), c.take(second))
        wins = scores.total.new_zeros(len(c), len(c))
        wins[first, second], wins[second, first] = scores.total, 1 - scores.total
        unread = torch.zeros_like(same)
        unread[first, second] = unread[second, first] = ~scores.usable
        return Scores(total=(wins.sum(1) + 0.5) / same.sum(1), valid=~unread.any(1))

    @torch.no_grad()
    def preference(self, first: Completions, second: Completions) -> Scores:
        sides = [self._parts(c) for c in (first, second)]
        ended = [
            [
                (prompt, ids + [self._tokenizer.eos_token_id] * cut)
                for (prompt, ids), cut in zip(side, c.truncated.tolist(), strict=True)
            ]
            for side, c in zip(sides, (first, second), strict=True)
        ]
        orders = ((ended[0], sides[1]), (ended[1], sides[0]))
        both = [[p + one + two for (p, one), (_, two) in zip(*order, strict=True)] for order in orders]
        short = [len(a) <= self._longest and len(b) <= self._longest for a, b in zip(*both, strict=True)]
        log_odds = torch.sub(*(self._scores([row[: self._longest] for row in rows]) for rows in both)).to(first.ids.device)
        return Scores(total=log_odds.sigmoid(), valid=torch.tensor(short, dtype=torch.bool, device=first.ids.device))

    def _scores(self, rows: list[Ids]) -> Tensor:
        """(n,): the score of each."""
        chunks = [self._logits(rows[i : i + self.batch])[:, 0] for i in range(0, len(rows), self.batch)]
        return torch.cat(chunks) if chunks else torch.zeros(0, device=self._device)
