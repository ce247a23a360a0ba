"""What losses optimise, where it is known."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch

from alignzoo.config.registry import Registry
from benchmarks.optima import __main__ as command
from benchmarks.optima.task import Categorical, Task
from benchmarks.optima.trained import RunTask, distances

TASK = Task(tokens=2, length=2)


@pytest.fixture(autouse=True)
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def row(name: str) -> command.Row:
    found = command.measured(name, Registry().load("algorithm", name), TASK)
    assert found is not None
    return found


def test_cards_say_what_came_out() -> None:
    registry, solved = Registry(), json.loads((command.RESULTS / "results.json").read_text())
    assert len(solved) >= 20
    for line in solved:
        card = registry.card("algorithm", line["algorithm"])
        assert f"{command.sentence(command.Row.read(line), Task().tree.completions)}." in card.text, line["algorithm"]


def test_all_data_are_there_once() -> None:
    for _, mass in (TASK.pairs, TASK.rated, TASK.demonstrations):
        assert mass.sum().item() == pytest.approx(1, abs=1e-12)
    pairs, mass = TASK.pairs
    first, second = TASK.reference[1], TASK.reference[2]
    assert len(pairs.chosen) == 49
    drawn = 2 * (first + second).exp() * (TASK.rewards[1] - TASK.rewards[2]).sigmoid()
    torch.testing.assert_close(mass[7 + 2], drawn)  # completion 1 chosen, completion 2 rejected


def test_a_policy_has_the_probabilities_it_is_made_of() -> None:
    scores = torch.randn(TASK.tree.completions)
    c, _ = TASK.demonstrations
    torch.testing.assert_close(c.sum(Categorical(TASK, scores).logprobs(c)), scores.log_softmax(0))


@pytest.mark.parametrize("name", ["dpo", "sft"])
def test_where_the_optimum_is_that_of_rlhf(name: str) -> None:
    """DPO: Rafailov et al. 2023, section 4. Of demonstrations by pi*, the likelihood is greatest under pi*."""
    solved = row(name)
    assert solved.to_optimum == pytest.approx(0, abs=1e-7) and solved.off == pytest.approx(0, abs=1e-7)
    assert solved.nearest == pytest.approx(1, abs=1e-4)


def test_the_squared_loss_has_its_normal_equations() -> None:
    """IPO's equation 17: h minimises sum_ab mass_ab (h_a - h_b - 1 / 2)^2 with h the log-ratio and beta 1, for which
    sum_b (mass_ab + mass_ba) (h_a - h_b) = sum_b (mass_ab - mass_ba) / 2."""
    _, mass = TASK.pairs
    won = mass.view(7, 7)
    both = won + won.T
    h = torch.linalg.lstsq(both.sum(1).diag() - both, (won - won.T).sum(1, keepdim=True) / 2, driver="gelsd").solution[:, 0]
    own = (TASK.reference + h).log_softmax(0)
    solved = row("ipo_sum")
    assert solved.to_reference == pytest.approx(command.divergence(own, TASK.reference), abs=1e-7)
    assert solved.to_optimum == pytest.approx(command.divergence(own, TASK.tilted(1.0)), abs=1e-7)


def test_pairs_of_a_run_are_two_completions() -> None:
    """Of three completions with probabilities 1/2, 1/4, 1/4, the second is drawn among the rest: the pair of the first two
    comes as (1/2)(1/4) / (1/2) + (1/4)(1/2) / (3/4) = 5/12 in either order."""
    task = RunTask(tokens=2, length=1, tables=(torch.tensor([0.5, 0.25, 0.25]).log(), torch.zeros(3)))
    _, mass = task.pairs
    torch.testing.assert_close(mass.view(3, 3)[0], torch.tensor([0, 5 / 24, 5 / 24]))
    assert mass.sum().item() == pytest.approx(1, abs=1e-12)


def test_a_run_ends_nearer_to_its_own_minimum() -> None:
    """IPO's lies elsewhere than pi*."""
    run = distances("ipo", 4000)
    assert run.end_to_own is not None and run.start_to_own is not None
    assert run.end_to_own < run.start_to_own / 2
    assert run.start_to_optimum > 2 * run.start_to_own


def test_what_runs_off_is_told() -> None:
    """APO-down is better the less likely both sides are: what is left for the policy to write is one completion."""
    solved = row("apo_down")
    assert solved.to_optimum is None and solved.favoured >= 1
    page = command.page(TASK, [solved, row("dpo")])
    assert f"| `apo_down` | pairs | none finite: towards the completion whose reward is number {solved.favoured} |" in page
    assert "| `dpo` | pairs | finite | 0 | 1 | 0 |" in page
