"""The reward as algorithms and evaluation call it: checked, and its parts metered."""

from __future__ import annotations

from collections.abc import Callable

import torch

from alignzoo.batch import Completions
from alignzoo.contracts import Reward, Scores
from alignzoo.models.networks import Shared
from alignzoo.settings import UserError


def checked(
    reward: Reward, name: str, shared: Shared, note: Callable[[Completions, Scores], None]
) -> Callable[[Completions], Scores]:
    """`reward` with `valid` filled in. Raises UserError for a wrong shape and, naming rows, for scores that are not finite."""

    def score(c: Completions) -> Scores:
        scores = reward(c)
        if scores.total.shape not in ((len(c),), c.ids.shape):
            raise UserError(
                f"reward {name} returned {tuple(scores.total.shape)} scores for {len(c)} completions: one each, or one a token"
            )
        valid = torch.ones(len(c), dtype=torch.bool) if scores.valid is None else scores.valid
        valid = valid.to(c.ids.device)
        total = scores.total.detach().to(c.ids.device).float()
        finite = torch.isfinite(total) if total.dim() == 1 else (torch.isfinite(total) | ~c.scored).all(1)
        bad = (valid & ~finite).nonzero()[:, 0].tolist()
        if bad:
            value = total[bad[0]].flatten()[0].item() if total.dim() == 1 else "a value that is not finite"
            rows = ", ".join(str(c.row[i].item()) for i in bad[:10])
            raise UserError(
                f"reward {name} returned {value} for {len(bad)} completion(s), of rows {rows}. "
                "Return None where no score can be had"
            )
        keep = valid if total.dim() == 1 else valid[:, None]
        made = Scores(total=torch.where(keep, total, 0), parts=scores.parts, valid=valid)
        if shared.noise.purpose == "rollout":
            note(c, made)
        return made

    return score
