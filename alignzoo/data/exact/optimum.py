"""KL-regularised reward maximisation where every completion can be enumerated: the optimum, and how far a policy is from it.

    J(pi) = E_x E_(y ~ pi) [r(x, y)] - beta KL(pi || pi_ref)        pi*(y|x) = pi_ref(y|x) exp(r(x, y) / beta) / Z(x)
    J* = J(pi*) = beta E_x log Z(x)

A policy is a table (P, prefixes, tokens + 1): log-probs of the next token after each prefix, the end last. Rewards and the
log-probs of whole completions are (P, completions). Everything is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignzoo.statistics.frontier import BEST_OF, STRENGTHS


@dataclass(frozen=True)
class StringTree:
    """All strings of at most `length` tokens out of `tokens`. Shorter ones are closed by an end token.

    A string of t tokens, read as a number c in base `tokens`, is number first(t) + c: of the prefixes if t < length, and of the
    completions (the string, and then the end).
    """

    tokens: int
    length: int

    def first(self, t: int) -> int:
        """How many strings have fewer than t tokens."""
        return sum(self.tokens**s for s in range(t))

    @property
    def prefixes(self) -> int:
        return self.first(self.length)

    @property
    def completions(self) -> int:
        return self.first(self.length + 1)

    def level(self, t: int) -> slice:
        """The numbers of the strings of t tokens."""
        return slice(self.first(t), self.first(t + 1))

    def digits(self) -> tuple[Tensor, Tensor]:
        """The tokens of every completion (completions, length), 0 beyond its end, and how many it has (completions,)."""
        rows, lengths = [], []
        for t in range(self.length + 1):
            codes = torch.arange(self.tokens**t)[:, None]
            powers = self.tokens ** torch.arange(t - 1, -1, -1)
            rows.append(torch.nn.functional.pad(codes // powers % self.tokens, (0, self.length - t)))
            lengths.append(torch.full((len(codes),), t))
        return torch.cat(rows), torch.cat(lengths)


def completion_logprobs(tree: StringTree, policy: Tensor) -> Tensor:
    """(P, prefixes, tokens + 1) -> (P, completions): log pi(y|x) of every completion."""
    reach = policy.new_zeros(len(policy), 1)
    ended = []
    for t in range(tree.length):
        level = policy[:, tree.level(t)]
        ended.append(reach + level[..., -1])
        reach = (reach[..., None] + level[..., :-1]).flatten(1)
    return torch.cat([*ended, reach], 1)


def optimal_policy(tree: StringTree, reference: Tensor, rewards: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The policy that maximises J, and log Z(x), by backward recursion over prefixes.

        V(prefix) = log sum_token pi_ref(token | prefix) exp(V(prefix token))        V(completion) = r / beta
        pi*(token | prefix) = pi_ref(token | prefix) exp(V(prefix token) - V(prefix))

    reference (P, prefixes, tokens + 1), rewards (P, completions) -> policy (P, prefixes, tokens + 1), log Z (P,).
    """
    scaled = rewards / beta
    value = scaled[:, tree.level(tree.length)]
    levels: list[Tensor] = []
    for t in reversed(range(tree.length)):
        after = torch.cat([value.unflatten(1, (-1, tree.tokens)), scaled[:, tree.level(t), None]], -1)
        scores = reference[:, tree.level(t)] + after
        value = scores.logsumexp(-1)
        levels.insert(0, scores - value[..., None])
    return torch.cat(levels, 1), value[:, 0]


def best_of_n(reference: Tensor, rewards: Tensor, n: int) -> Tensor:
    """Log-probs of the best of n samples, ties broken by chance.

        pi(y) = (F(r)^n - F(<r)^n) pi_ref(y) / pi_ref(level r)

    reference (P, completions) log-probs, rewards (P, completions) -> (P, completions).
    """
    rewards = rewards.contiguous()
    ordered, order = (x.contiguous() for x in rewards.sort(1))
    mass = torch.nn.functional.pad(reference.exp().gather(1, order).cumsum(1), (1, 0))
    mass = mass / mass[:, -1:]
    below = mass.gather(1, torch.searchsorted(ordered, rewards))
    upto = mass.gather(1, torch.searchsorted(ordered, rewards, right=True))
    return reference + (upto**n - below**n).log() - (upto - below).log()


def objective(policy: Tensor, reference: Tensor, rewards: Tensor, beta: float) -> dict[str, float]:
    """E[r], KL(pi || pi_ref) and J, means over prompts, from the log-probs of completions (P, completions) each."""
    probs = policy.exp()
    reward = _expectation(probs, rewards)
    kl = _expectation(probs, policy - reference)
    return {"expected_reward": reward, "exact_kl": kl, "J": reward - beta * kl}


def measures(tree: StringTree, policy: Tensor, reference: Tensor, rewards: Tensor, beta: float) -> dict[str, float]:
    """What there is to know about a policy: `objective`, entropy, J*, J of the reference, and the share of the gap closed.

    policy, reference (P, prefixes, tokens + 1), rewards (P, completions).
    """
    logprobs, start = completion_logprobs(tree, policy), completion_logprobs(tree, reference)
    best = float(beta * optimal_policy(tree, reference, rewards, beta)[1].mean())
    least = objective(start, start, rewards, beta)["J"]
    reached = objective(logprobs, start, rewards, beta)
    gap = {"gap_closed": (reached["J"] - least) / (best - least), "J_star": best, "J_reference": least}
    return reached | gap | {"exact_entropy": _expectation(logprobs.exp(), -logprobs)}


def _expectation(probs: Tensor, values: Tensor) -> float:
    """The mean over prompts of the expectation; what has no probability does not count, -inf included."""
    return float(torch.where(probs > 0, probs * values, 0).sum(1).mean())


def exact_curves(
    reference: Tensor, rewards: Tensor, counts: Sequence[int] = BEST_OF, betas: Sequence[float] = STRENGTHS
) -> dict[str, object]:
    """What is known where completions can be enumerated, for a run's `frontier.json`: the reference's reward, best-of-n, and
    the optimal frontier, pi* for every beta. From reference log-probs and rewards (P, completions).
    """

    def point(policy: Tensor) -> dict[str, float]:
        reached = objective(policy, reference, rewards, 1.0)
        return {"kl": reached["exact_kl"], "reward": reached["expected_reward"]}

    return {
        "exact": True,
        "reference": point(reference)["reward"],
        "best_of_n": [{"n": n, **point(best_of_n(reference, rewards, n))} for n in counts],
        "optimum": [{"beta": b, **point((reference + rewards / b).log_softmax(1))} for b in betas],
    }
