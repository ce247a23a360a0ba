"""The pure mathematics of the exact task, against loops over every completion."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from alignzoo.data.exact.optimum import StringTree, best_of_n, completion_logprobs, measures, objective, optimal_policy

TREE = StringTree(tokens=3, length=3)
BETA = 0.7
END = 3


def strings() -> list[tuple[int, ...]]:
    """Every completion in the order of its number: by length, then alphabetically."""
    return [s for t in range(TREE.length + 1) for s in itertools.product(range(TREE.tokens), repeat=t)]


def prefixes() -> list[tuple[int, ...]]:
    return [s for s in strings() if len(s) < TREE.length]


def made(prompts: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A random policy (P, prefixes, tokens + 1) and rewards (P, completions)."""
    generator = torch.Generator().manual_seed(seed)
    policy = torch.randn(prompts, TREE.prefixes, TREE.tokens + 1, generator=generator, dtype=torch.float64).log_softmax(-1)
    return policy, 2 * torch.randn(prompts, TREE.completions, generator=generator, dtype=torch.float64)


def by_hand(policy: torch.Tensor, prompt: int, string: tuple[int, ...]) -> float:
    """log pi(string), one conditional at a time."""
    tokens = (*string, END) if len(string) < TREE.length else string
    place = {prefix: i for i, prefix in enumerate(prefixes())}
    return sum(float(policy[prompt, place[tokens[:t]], tokens[t]]) for t in range(len(tokens)))


def test_counts() -> None:
    assert (TREE.prefixes, TREE.completions) == (1 + 3 + 9, 1 + 3 + 9 + 27)
    assert (StringTree(8, 4).prefixes, StringTree(8, 4).completions) == (585, 4681)


def test_digits_list_every_string_in_order() -> None:
    digits, lengths = TREE.digits()
    listed = [tuple(row[:n]) for row, n in zip(digits.tolist(), lengths.tolist(), strict=True)]
    assert listed == strings()


def test_completion_logprobs_are_products_of_conditionals() -> None:
    policy, _ = made()
    expected = [[by_hand(policy, prompt, string) for string in strings()] for prompt in range(2)]
    found = completion_logprobs(TREE, policy)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2, dtype=torch.float64), atol=1e-9, rtol=0)


def test_optimum_is_the_tilted_reference() -> None:
    reference, rewards = made()
    optimum, log_z = optimal_policy(TREE, reference, rewards, BETA)
    for prompt in range(2):
        weights = [math.exp(by_hand(reference, prompt, s) + float(rewards[prompt, i]) / BETA) for i, s in enumerate(strings())]
        assert float(log_z[prompt]) == pytest.approx(math.log(sum(weights)), abs=1e-9)
        tilted = [w / sum(weights) for w in weights]
        assert [math.exp(by_hand(optimum, prompt, s)) for s in strings()] == pytest.approx(tilted, abs=1e-9)
    torch.testing.assert_close(optimum.exp().sum(-1), torch.ones(2, TREE.prefixes, dtype=torch.float64))


def test_j_star_is_what_gradient_ascent_on_a_table_reaches() -> None:
    """An optimiser that knows nothing of soft values, on a free parameter for every conditional."""
    reference, rewards = made()
    start = completion_logprobs(TREE, reference)
    logits = torch.zeros_like(reference, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], lr=1, max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logprobs = completion_logprobs(TREE, logits.log_softmax(-1))
        value = -(logprobs.exp() * (rewards - BETA * (logprobs - start))).sum(1).mean()
        value.backward()
        return value

    optimizer.step(loss)
    found = measures(TREE, logits.detach().log_softmax(-1), reference, rewards, BETA)
    assert found["J"] == pytest.approx(found["J_star"], abs=1e-5)
    assert found["J"] <= found["J_star"] + 1e-12
    assert found["gap_closed"] == pytest.approx(1, abs=1e-4)


def test_measures_against_loops() -> None:
    policy, rewards = made(seed=1)
    reference, _ = made(seed=2)
    reward = kl = entropy = base = 0.0
    log_z = []
    for prompt in range(2):
        z = 0.0
        for i, string in enumerate(strings()):
            mine, theirs, r = by_hand(policy, prompt, string), by_hand(reference, prompt, string), float(rewards[prompt, i])
            reward += math.exp(mine) * r / 2
            kl += math.exp(mine) * (mine - theirs) / 2
            entropy -= math.exp(mine) * mine / 2
            base += math.exp(theirs) * r / 2
            z += math.exp(theirs + r / BETA)
        log_z.append(math.log(z))
    best = BETA * sum(log_z) / 2
    expected = {
        "expected_reward": reward, "exact_kl": kl, "exact_entropy": entropy, "J": reward - BETA * kl, "J_star": best,
        "J_reference": base, "gap_closed": (reward - BETA * kl - base) / (best - base),
    }  # fmt: skip
    assert measures(TREE, policy, reference, rewards, BETA) == pytest.approx(expected, abs=1e-9)


def test_reference_closes_nothing_and_optimum_everything() -> None:
    reference, rewards = made()
    optimum, _ = optimal_policy(TREE, reference, rewards, BETA)
    assert measures(TREE, reference, reference, rewards, BETA)["gap_closed"] == pytest.approx(0, abs=1e-12)
    assert measures(TREE, optimum, reference, rewards, BETA)["gap_closed"] == pytest.approx(1, abs=1e-12)


def test_objective_counts_nothing_where_the_policy_never_goes() -> None:
    policy = torch.tensor([[0.0, -math.inf]], dtype=torch.float64)
    reference = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    found = objective(policy, reference, torch.tensor([[3.0, 1.0]], dtype=torch.float64), BETA)
    assert found == pytest.approx({"expected_reward": 3, "exact_kl": math.log(2), "J": 3 - BETA * math.log(2)})


def test_best_of_n_against_all_tuples() -> None:
    """Every n-tuple of draws, its best taken, ties shared: no distribution function involved."""
    probs, rewards, n = [0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 1.0, -2.0], 3
    expected = np.zeros(4)
    for draws in itertools.product(range(4), repeat=n):
        mass = math.prod(probs[i] for i in draws)
        top = max(rewards[i] for i in draws)
        best = [i for i in draws if rewards[i] == top]
        for i in best:
            expected[i] += mass / len(best)
    found = best_of_n(torch.tensor([probs], dtype=torch.float64).log(), torch.tensor([rewards], dtype=torch.float64), n)
    np.testing.assert_allclose(found.exp()[0].numpy(), expected, atol=1e-12)


def test_best_of_one_is_the_reference() -> None:
    reference, rewards = made()
    logprobs = completion_logprobs(TREE, reference)
    torch.testing.assert_close(best_of_n(logprobs, rewards, 1), logprobs)


def test_the_population_optimum_of_dpo_is_the_optimum() -> None:
    """DPO's expected loss over Bradley-Terry labels, minimised over a free policy, ends at pi*."""
    tree = StringTree(2, 2)
    generator = torch.Generator().manual_seed(3)
    reference = torch.randn(1, tree.prefixes, 3, generator=generator, dtype=torch.float64).log_softmax(-1)
    rewards = torch.randn(1, tree.completions, generator=generator, dtype=torch.float64)
    start = completion_logprobs(tree, reference)
    first, second = torch.combinations(torch.arange(tree.completions)).unbind(1)
    wins = (rewards[0, first] - rewards[0, second]).sigmoid()
    logits = torch.zeros_like(reference, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], lr=1, max_iter=1000, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        implicit = BETA * (completion_logprobs(tree, logits.log_softmax(-1)) - start)[0]
        margin = implicit[first] - implicit[second]
        value = -(wins * torch.nn.functional.logsigmoid(margin) + (1 - wins) * torch.nn.functional.logsigmoid(-margin)).mean()
        value.backward()
        return value

    optimizer.step(loss)
    optimum, _ = optimal_policy(tree, reference, rewards, BETA)
    torch.testing.assert_close(logits.detach().softmax(-1), optimum.exp(), atol=1e-4, rtol=0)
