"""The reward as algorithms and evaluation call it: checked, its failures dealt with, its parts metered, its scores observed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.common.ranks import gather_objects
from alignzoo.contracts import LearningReward, Reward, Scores, ScoringError, learning
from alignzoo.errors import UserError, printable
from alignzoo.models.networks import Shared
from alignzoo.rewards.timeout import within
from alignzoo.settings import OnError, Scoring

Note = Callable[[Completions, Scores], None]
UNSCORED = 64  # calls; fewer than the rollouts in a row without a record that end a run


class Checked:
    """`reward` with `valid` filled in and every score finite. Raises UserError for a wrong shape.

    A completion that the reward raises on, reports as failed, or gives a score that is not finite is handled as `policy` says:
    the run ends, naming rows, or it has no score, or the default one. `rows` is how many there are to train on; a rollout
    numbers its draws on over the epochs; `note` hears its scores. A UserError that is no ScoringError is a mistake in the
    config, and ends every run.
    """

    def __init__(self, reward: Reward, name: str, shared: Shared, rows: int, policy: Scoring, note: Note | None = None) -> None:
        path = getattr(reward, "path", None)  # of several functions, or models, it says which
        self.name = f"{name} {path}" if path else name
        self.reward, self.shared, self.rows, self.note, self.policy = reward, shared, rows, note, policy
        self.seen: list[tuple[dict[str, Tensor], Completions]] = []  # of the rollout in progress
        observes = type(learning(reward)).observe is not LearningReward.observe
        self.listens = observes or type(reward).after_rollout is not Reward.after_rollout
        self.failures, self.unscored = 0, 0

    def __call__(self, c: Completions) -> Scores:
        scores = self._handled(c, self._checked(c, self._scored(c)))
        self.unscored = 0 if scores.usable.any() else self.unscored + 1
        if self.unscored == UNSCORED:
            raise UserError(
                f"reward {self.name} gave no score to any completion, {UNSCORED} times in a row.\n"
                "Return a number where one can be had; None means that there is none"
            )
        if self.shared.noise.purpose == "rollout":
            if self.note:
                self.note(c, scores)
            if self.listens:
                columns = {**scores.parts, "total": scores.summed(c), "valid": scores.usable}
                self.seen.append(({name: column.detach().cpu() for name, column in columns.items()}, _plain(c)))
        return scores

    @property
    def compares(self) -> bool:
        """Whether the reward knows more of two completions than the difference of their scores."""
        return type(self.reward).preference is not Reward.preference

    def preference(self, first: Completions, second: Completions) -> Scores:
        """The reward's own `preference`, checked as its scores are."""
        asked = partial(self.reward.preference, first, second)
        return self._handled(first, self._checked(first, within(self.policy.timeout, "scoring.timeout", asked)))

    def rollout_done(self) -> None:
        """Hands the rollout's scores, of all ranks, to a reward that learns from them. Called on every rank."""
        if not self.listens:
            return
        seen = [call for calls in gather_objects(self.seen) for call in calls]
        self.seen = []
        if seen:
            most = max(len(columns) for columns, _ in seen)  # where a reward raised on every completion, there are no parts
            full = [call for call in seen if len(call[0]) == most]
            whole = {name: torch.cat([columns[name] for columns, _ in full]) for name in full[0][0]}
            scores = Scores(total=whole.pop("total"), valid=whole.pop("valid"), parts=whole)
            learning(self.reward).observe(Completions.cat([c for _, c in full]), scores)
            self.reward.after_rollout(scores)

    def _scored(self, c: Completions) -> Scores:
        """What the reward says; where it raises, what it says of the completions that it doesn't raise on."""
        try:
            return self._called(c)
        except Exception as error:
            stops = self.policy.on_error is OnError.stop
            if isinstance(error, UserError) and (stops or not isinstance(error, ScoringError)):
                raise
            failed = self._culprits(c) or dict.fromkeys(range(len(c)), _reason(error))
            if stops:
                raise self._stopped(c, failed) from error
        good = [i for i in range(len(c)) if i not in failed]
        if not good:
            return Scores(total=torch.zeros(len(c)), failed=failed)
        scores = self._checked(c.take(good), self._called(c.take(good)))
        return spread(scores, good, c, failed)

    def _called(self, c: Completions) -> Scores:
        try:
            return within(self.policy.timeout, "scoring.timeout", partial(self.reward, c))
        except SystemExit as error:
            raise RuntimeError(f"it called sys.exit({'' if error.code is None else error.code})") from error

    def _culprits(self, c: Completions) -> dict[int, str]:
        """The completions that the reward raises on one by one, and what it raises."""
        failed = {}
        for i in range(len(c)):
            try:
                self._called(c.take([i]))
            except Exception as error:
                failed[i] = _reason(error)
        return failed

    def _checked(self, c: Completions, scores: Scores) -> Scores:
        """With the reasons of those that are not finite, and `valid` False where something failed."""
        check_shape(self.name, scores, c)
        total, valid = scores.total.detach().to(c.ids.device).float(), scores.usable.to(c.ids.device)
        finite = torch.isfinite(total) if total.dim() == 1 else (torch.isfinite(total) | ~c.scored).all(1)
        failed = dict(scores.failed)
        for i in (valid & ~finite).nonzero()[:, 0].tolist():
            value = f"{total[i].item()}" if total.dim() == 1 else "a value that is not finite"
            failed.setdefault(i, f"returned {value}")
        keep = valid & ~_marked(failed, c)
        return Scores(total=_where(keep, total, torch.zeros_like(total)), parts=scores.parts, valid=keep, failed=failed)

    def _handled(self, c: Completions, scores: Scores) -> Scores:
        if not scores.failed:
            return scores
        if self.policy.on_error is OnError.stop:
            raise self._stopped(c, scores.failed)
        self._report(c, scores.failed)
        if self.policy.on_error is OnError.skip:
            return replace(scores, failed={})
        bad = _marked(scores.failed, c)
        default = torch.full((len(c),), self.policy.default, device=c.ids.device)
        total = _where(bad, default if scores.total.dim() == 1 else c.at_last(default), scores.total)
        parts = {name: torch.where(bad.to(part.device), torch.nan_to_num(part), part) for name, part in scores.parts.items()}
        return Scores(total=total, parts=parts, valid=scores.usable | bad)

    def _stopped(self, c: Completions, failed: Mapping[int, str]) -> UserError:
        text = f". The first: {c.text[next(iter(failed))][:60]!r}" if c.prompts.decode else ""
        return UserError(
            f"reward {self.name} {self._described(c, failed)}\n"
            f"return None where no score can be had, or go on without them: scoring.on_error=skip or default{text}"
        )

    def _described(self, c: Completions, failed: Mapping[int, str]) -> str:
        """What went wrong first, and which rows it was."""
        draws = {int(c.row[i]) for i in failed}
        rows = sorted({draw % self.rows for draw in draws} if self.shared.noise.purpose == "rollout" else draws)
        return f"{next(iter(failed.values()))} for {len(failed)} completion(s), of rows {', '.join(map(str, rows[:10]))}."

    def _report(self, c: Completions, failed: Mapping[int, str]) -> None:
        """On the first failure, and whenever there are ten times as many."""
        before, self.failures = self.failures, self.failures + len(failed)
        if not before or len(str(before)) < len(str(self.failures)):
            done = "left out" if self.policy.on_error is OnError.skip else f"scored {self.policy.default:g}"
            text = f"reward {self.name} {self._described(c, failed)} {self.failures} so far, {done} (scoring.on_error)"
            print(printable(f"alignzoo: {text}"), file=sys.stderr, flush=True)


def check_shape(name: str, scores: Scores, c: Completions) -> None:
    """Raises UserError, naming the reward, unless there is one score a completion, or one a token."""
    if scores.total.shape not in ((len(c),), c.ids.shape):
        raise UserError(
            f"reward {name} returned scores of shape {tuple(scores.total.shape)} for {len(c)} completions: "
            f"return one a completion, ({len(c)},), or one a token, {tuple(c.ids.shape)}"
        )


def spread(scores: Scores, places: Sequence[int], c: Completions, failed: Mapping[int, str]) -> Scores:
    """Scores of the completions at `places`, as scores of all of `c`: zeros, and the reasons, where there are none."""

    def whole(x: Tensor) -> Tensor:
        out = x.new_zeros(len(c), *((c.ids.shape[1],) if x.dim() == 2 else ()))
        if x.dim() == 2:
            out[list(places), : x.shape[1]] = x
        else:
            out[list(places)] = x
        return out

    reasons = {**failed, **{places[i]: why for i, why in scores.failed.items()}}
    parts = {name: whole(part) for name, part in scores.parts.items()}
    return Scores(total=whole(scores.total), parts=parts, valid=whole(scores.usable), failed=reasons)


def _marked(places: Mapping[int, str], c: Completions) -> Tensor:
    """(B,) bool: the completions at these places."""
    marked = torch.zeros(len(c), dtype=torch.bool, device=c.ids.device)
    marked[list(places)] = True
    return marked


def _where(rows: Tensor, values: Tensor, otherwise: Tensor) -> Tensor:
    """`values` (B,) or (B, T) in these rows, `otherwise` in the rest."""
    return torch.where(rows if values.dim() == 1 else rows[:, None], values, otherwise)


def _plain(c: Completions) -> Completions:
    """What travels between ranks and into checkpoints: without what an algorithm added, the sampler's log-probs, and text."""
    columns = {f.name: getattr(c, f.name) for f in fields(Completions)} | {"logprobs": None, "stamp": None}
    return Completions(**columns | {"prompts": replace(c.prompts, decode=None)}).to("cpu")


def _reason(error: Exception) -> str:
    message = (str(error).strip().splitlines() or [""])[0]
    where = "".join(f" {note}" for note in getattr(error, "__notes__", []))  # in which part of a reward
    return message if isinstance(error, UserError) else f"failed with {type(error).__name__}: {message}{where}"
