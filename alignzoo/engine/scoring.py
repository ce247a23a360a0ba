"""The reward as algorithms and evaluation call it: checked, and its parts metered."""

from __future__ import annotations

from collections.abc import Callable

import torch

from alignzoo.batch import Completions
from alignzoo.contracts import Reward, Scores
from alignzoo.models.networks import Shared
from alignzoo.settings import UserError


def checked(
    reward: Reward, name: str, shared: Shared, rows: int, note: Callable[[Completions, Scores], None]
) -> Callable[[Completions], Scores]:
    """`reward` with `valid` filled in. Raises UserError for a wrong shape and, naming rows, for scores that are not finite.

    rows: how many there are to train on; a rollout numbers its draws on over the epochs.
    """

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
            draws = {int(c.row[i]) for i in bad}
            named = sorted({draw % rows for draw in draws} if shared.noise.purpose == "rollout" else draws)
            raise UserError(
                f"reward {name} returned {value} for {len(bad)} completion(s), of rows {', '.join(map(str, named[:10]))}. "
                "Return None where no score can be had"
            )
        keep = valid if total.dim() == 1 else valid[:, None]
        made = Scores(total=torch.where(keep, total, 0), parts=scores.parts, valid=valid)
        if shared.noise.purpose == "rollout":
            note(c, made)
        return made

    return score
