"""Links of pairs by hand, their values where policy and reference agree, and what the plugins make of tokens."""

import math

import pytest
import torch

from alignzoo import functional as F
from alignzoo.batch import Pairs, Triples
from alignzoo.contracts import EMA
from alignzoo.settings import UserError
from alignzoo.testing.fakes import FakeModels, TablePolicy, completions, prompts
from alignzoo_plugins.paired.aot import AOT
from alignzoo_plugins.paired.cpl import CPL
from alignzoo_plugins.paired.cpo import CPO
from alignzoo_plugins.paired.exo import EXO
from alignzoo_plugins.paired.f_dpo import FDPO, Divergence
from alignzoo_plugins.paired.ipo import IPO
from alignzoo_plugins.paired.ipo_sum import IPOSum
from alignzoo_plugins.paired.ld_dpo import LDDPO
from alignzoo_plugins.paired.orpo import ORPO
from alignzoo_plugins.paired.rdpo_length import RDPOLength
from alignzoo_plugins.paired.rpo_nll import RPONLL
from alignzoo_plugins.paired.simpo import SimPO
from alignzoo_plugins.paired.slic_hf import SLiCHF
from alignzoo_plugins.paired.tpo import TPO
from alignzoo_plugins.paired.tr_dpo import TRDPO
from alignzoo_plugins.paired.wpo import WPO

# h_chosen 1.5, h_rejected -0.5, beta 0.1: beta Delta = 0.2. - log sigma: of 0.2 0.598139, of -0.2 0.798139, of 0.15 0.620957,
# of -0.15 0.770957, of 0.05 0.668460. sigma: of 0.2 0.549834, of 0.15 0.537430, of -0.05 0.487503.
BY_HAND = {
    "robust": (lambda c, r: F.robust_dpo_loss(c, r, 0.1, 0.1), 0.573139),  # (0.9 * 0.598139 - 0.1 * 0.798139) / 0.8
    "hinge": (lambda c, r: F.hinge_loss(c, r, 0.1), 0.8),
    "ipo": (lambda c, r: F.ipo_loss(c, r, 0.1), 9.0),  # (2 - 5)^2
    # 0.549834 (-0.598139 - log 0.9) + 0.450166 (-0.798139 - log 0.1)
    "exo": (lambda c, r: F.exo_loss(c, r, 0.1, 0.1), 0.406305),
    "nca": (lambda c, r: F.nca_loss(c, r, 0.1), 1.340666),  # 0.620957 + (0.770957 + 0.668460) / 2
    "bco_pair": (lambda c, r: F.bco_pair_loss(c, r, 0.1), 1.289417),  # 0.620957 + 0.668460
    "sppo_hard": (lambda c, r: F.sppo_hard_loss(c, r, 0.1), 32.5),  # (1.5 - 5)^2 + (-0.5 + 5)^2
    "apo_zero": (lambda c, r: F.apo_zero_loss(c, r, 0.1), 0.950073),  # 1 - 0.537430 + 0.487503
    "apo_down": (lambda c, r: F.apo_down_loss(c, r, 0.1), 0.987596),  # 0.537430 + 1 - 0.549834
    "dpop": (lambda c, r: F.dpop_loss(c, r, 0.1, 50.0), 0.598139),
    # the chosen side fell by 0.5: beta (-2 - 50 * 0.5) = -2.7, and - log sigma(-2.7) = 2.7 + log(1 + exp(-2.7))
    "dpop, fallen": (lambda c, r: F.dpop_loss(r, c, 0.1, 50.0), 2.765043),
    # m = sigma(4) = 0.982014: 0.982014 exp(-0.2) + 0.017986 * 0.598139
    "discopop": (lambda c, r: F.discopop_loss(c, r, 0.1, 0.05), 0.814763),
    "forward KL": (lambda c, r: F.forward_kl_score(c) - F.forward_kl_score(r), 1.425591),  # exp(0.5) - exp(-1.5)
    # log sigma(1.5) - log sigma(-0.5) = -0.201413 + 0.974077
    "Jensen-Shannon": (lambda c, r: F.jensen_shannon_score(c) - F.jensen_shannon_score(r), 0.772664),
    "alpha": (lambda c, r: F.alpha_score(c, 0.5) - F.alpha_score(r, 0.5), 1.623318),  # 2 (exp(0.25) - exp(-0.75))
    "cpl": (lambda c, r: F.cpl_loss(0.1 * c, 0.1 * r, 0.5), 0.609471),  # log(1 + exp(-0.025 - 0.15))
    "simpo": (lambda c, r: F.simpo_loss(c, r, 2.0, 1.0), 0.048587),  # log(1 + exp(-3))
    "slic": (lambda c, r: F.slic_loss(c, r, 3.0), 1.0),
    "odds": (lambda c, r: F.log_odds(r), 0.432752),  # p = exp(-0.5) = 0.606531: log(0.606531 / 0.393469)
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_link_by_hand(name: str) -> None:
    link, value = BY_HAND[name]
    assert link(torch.tensor([1.5]).double(), torch.tensor([-0.5]).double()).item() == pytest.approx(value, abs=1e-6)


# at h = 0 on both sides: the loss, and its derivatives by h of chosen and of rejected, in units of beta
AT_THE_REFERENCE = {
    # (-(1 - e) / 2 - e / 2) / (1 - 2 e)
    "robust": (lambda c, r: F.robust_dpo_loss(c, r, 0.5, 0.1), math.log(2), -0.625, 0.625),
    "hinge": (lambda c, r: F.hinge_loss(c, r, 0.5), 1, -1, 1),
    "ipo": (lambda c, r: F.ipo_loss(c, r, 0.5), 1, -4, 4),  # 2 (0 - 1) = -2 = -4 beta
    # log(1 / 2) - (log 0.9 + log 0.1) / 2; a quarter of the derivative of q by beta Delta times log((1 - e) / e)
    "exo": (lambda c, r: F.exo_loss(c, r, 0.5, 0.1), 0.510826, -0.549306, 0.549306),
    "nca": (lambda c, r: F.nca_loss(c, r, 0.5), 2 * math.log(2), -0.25, 0.25),
    "bco_pair": (lambda c, r: F.bco_pair_loss(c, r, 0.5), 2 * math.log(2), -0.5, 0.5),
    "sppo_hard": (lambda c, r: F.sppo_hard_loss(c, r, 0.5), 2, -4, 4),
    "apo_zero": (lambda c, r: F.apo_zero_loss(c, r, 0.5), 1, -0.25, 0.25),
    "apo_down": (lambda c, r: F.apo_down_loss(c, r, 0.5), 1, 0, 0.25),  # both terms pull at the chosen side, and cancel
    # m = 1/2, of slope 1 / (4 tau): log 2 / 2 + 1 / 2; (1 - log 2) / (4 tau) - 1/4 - 1/2, which points away from chosen
    "discopop": (lambda c, r: F.discopop_loss(c, r, 0.5, 0.05), 0.846574, 0.784264, -0.784264),
}


@pytest.mark.parametrize("name", AT_THE_REFERENCE)
def test_a_link_where_policy_and_reference_agree(name: str) -> None:
    link, value, up, down = AT_THE_REFERENCE[name]
    sides = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    loss = link(sides[0], sides[1])
    (gradient,) = torch.autograd.grad(loss.sum(), sides)
    assert loss.tolist() == pytest.approx([value] * 3, abs=1e-6)
    assert gradient[0].tolist() == pytest.approx([up / 2] * 3, abs=1e-6)
    assert gradient[1].tolist() == pytest.approx([down / 2] * 3, abs=1e-6)


def test_the_exponential_of_pairs_far_wrong_does_not_overflow() -> None:
    """m exp(-rho) = exp(-19 * 200) at rho = -200: what is left is - log sigma(rho) = 200."""
    sides = torch.tensor([[-100.0], [100.0]], requires_grad=True)
    F.discopop_loss(sides[0], sides[1], 1.0, 0.05).backward()
    assert F.discopop_loss(sides[0], sides[1], 1.0, 0.05).item() == pytest.approx(200)
    assert sides.grad is not None and sides.grad.flatten().tolist() == pytest.approx([-1, 1])


def test_robust_is_dpo_on_the_true_labels_on_average() -> None:
    """(1 - e) L(c, r) + e L(r, c) = - log sigma(beta Delta), whatever e."""
    chosen, rejected = torch.tensor([1.5, -2.0]).double(), torch.tensor([-0.5, 3.0]).double()
    for flipped in (0.1, 0.4):
        mean = (1 - flipped) * F.robust_dpo_loss(chosen, rejected, 0.7, flipped)
        mean = mean + flipped * F.robust_dpo_loss(rejected, chosen, 0.7, flipped)
        torch.testing.assert_close(mean, F.dpo_loss(chosen, rejected, 0.7))


def test_the_alpha_divergence_lies_between_both_kls() -> None:
    ratio = torch.tensor([-1.0, 0.3]).double()
    torch.testing.assert_close(F.alpha_score(ratio, 1e-6), ratio, atol=1e-5, rtol=0)
    torch.testing.assert_close(F.alpha_score(ratio, 1.0), F.forward_kl_score(ratio))


# The policy's next token is 0 with probability 1/2, 1 and 2 with 1/4, whatever came before; the reference's is uniform.
# Chosen (0, 0), rejected (1): log pi = 2 log 1/2 and log 1/4; h = 2 log 3/2 = 0.810930 and log 3/4 = -0.287682.
HALF = torch.tensor([[0.5, 0.25, 0.25]] * 3, dtype=torch.float64).log()


def models() -> FakeModels:
    return FakeModels(TablePolicy(HALF), reference=TablePolicy(torch.zeros(3, 3, dtype=torch.float64)))


def pairs(*sides: tuple[list[int], list[int]]) -> Pairs:
    of, rows = prompts(*[1] * len(sides)), list(range(len(sides)))
    return Pairs(chosen=completions(of, rows, [c for c, _ in sides]), rejected=completions(of, rows, [r for _, r in sides]))


def terms(algorithm, batch: Pairs) -> dict[str, torch.Tensor]:
    loss, _ = algorithm.loss(models(), batch)
    return loss if isinstance(loss, dict) else {"loss": loss}


ONE = pairs(([0, 0], [1]))


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (IPOSum(beta=1.0), {"loss": 0.358336}),  # Delta = log 3 = 1.098612: (1.098612 - 0.5)^2
        (IPO(beta=1.0), {"loss": 0.037306}),  # a token's mean: (0.405465 + 0.287682 - 0.5)^2
        (RPONLL(beta=1.0, alpha=2.0), {"preference": 0.287682, "nll": 1.386294}),  # 2 log 2
        # sum_v pi(v)^2 = 3/8: w = exp(log(1/2) - log(3/8)) exp(log(1/4) - log(3/8)) = 4/3 * 2/3 = 8/9
        (WPO(beta=1.0), {"loss": 0.255717}),
        (RDPOLength(beta=1.0, alpha=0.5), {"loss": 0.184134}),  # log 3 + 1/2 (2 - 1): log(1 + e^-1.598612)
        (LDDPO(beta=1.0, alpha=0.5), {"loss": 0.342347}),  # (1 + 1/2) log 3/2 - log 3/4 = 0.895880
        (SimPO(beta=1.0, margin=0.0), {"loss": 0.405465}),  # a token's mean: log 1/2 less log 1/4: - log sigma(log 2) = log 3/2
        # log pi are equal, - 2 log 2: log 2, and of the chosen tokens log 2 each
        (CPO(beta=1.0, alpha=3.0), {"preference": 0.693147, "nll": [[2.079442, 2.079442]]}),
        # odds 1 and 1/3: - log sigma(log 3) = log 4/3 = 0.287682
        (ORPO(weight=0.5), {"odds": 0.143841, "nll": 0.693147}),
        (SLiCHF(margin=1.0, likelihood=0.5), {"rank": 1.0, "nll": 0.693147}),
        # alpha 1: A = - log 2 (1 + gamma) = -1.039721 and - log 4; lambda 1/2: log(1 + exp(1.039721 - 0.693147))
        (CPL(alpha=1.0, gamma=0.5, bias=0.5), {"loss": 0.881373}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, dict) else "",
)  # fmt: skip
def test_an_algorithm_by_hand(algorithm, expected: dict[str, object]) -> None:
    values = {name: value[0].tolist() if value.dim() == 1 else value.tolist() for name, value in terms(algorithm, ONE).items()}
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(torch.tensor(values[name]), torch.tensor(value), atol=1e-5, rtol=0)


def test_the_anchor_takes_the_place_of_the_reference() -> None:
    """A uniform anchor, beta 1: h = 2 log 3/2 and log 3/4, Delta = log 3: - log sigma = log 4/3. The roles say how it moves."""
    algorithm = TRDPO(beta=1.0, alpha=0.25, steps=7)
    uniform = TablePolicy(torch.zeros(3, 3, dtype=torch.float64))
    loss, _ = algorithm.loss(FakeModels(TablePolicy(HALF), others={"anchor": uniform}), ONE)
    assert loss.tolist() == pytest.approx([math.log(4 / 3)], abs=1e-9)
    assert algorithm.roles()["anchor"].follows == EMA(decay=0.75, steps=7)


def test_the_forward_kl_scores_by_hand() -> None:
    """1 - 1 / u at u = 9/4 and 3/4: 5/9 and -1/3; - log sigma(8/9) = 0.344378."""
    (loss,) = terms(FDPO(beta=1.0, divergence=Divergence.forward_kl), ONE).values()
    assert loss.item() == pytest.approx(math.log1p(math.exp(-8 / 9)), abs=1e-9)


def test_triples_compare_two_and_imitate_the_third() -> None:
    """log pi of (0, 0) and (1) are both - 2 log 2: log 2; of each token of the demonstration (2, 0) 2 log 2 and log 2, times 3.
    The second row's rejected side is empty: its demonstration is not learnt from either."""
    of = prompts(1, 1)
    sides = [completions(of, [0, 1], ids) for ids in ([[0, 0], [0]], [[1], []], [[2, 0], [1]])]
    batch = Triples(chosen=sides[0], rejected=sides[1], demonstration=sides[2])
    algorithm = TPO(beta=1.0, alpha=3.0)
    loss = terms(algorithm, batch)
    assert loss["preference"][0].item() == pytest.approx(0.693147, abs=1e-6)
    assert loss["nll"][0].tolist() == pytest.approx([4.158883, 2.079442], abs=1e-6)
    assert algorithm.weights(batch)["nll"].tolist() == [[1, 1], [0, 0]]


def test_optimal_transport_sorts_both_networks_margins_by_themselves() -> None:
    """Margins of log pi: 0 of ((0, 0), (1)) and log 2 of ((0), (1)); of the reference: - log 3 and 0. In order 0 - (-log 3) and
    log 2 - 0, whichever pair comes first; - log sigma: log 4/3 and log 3/2."""
    for batch in (pairs(([0, 0], [1]), ([0], [1])), pairs(([0], [1]), ([0, 0], [1]))):
        (loss,) = terms(AOT(beta=1.0), batch).values()
        assert loss.tolist() == pytest.approx([math.log(4 / 3), math.log(3 / 2)], abs=1e-9)


def test_a_pair_with_an_empty_side_takes_no_place_in_the_order() -> None:
    (loss,) = terms(AOT(beta=1.0), pairs(([0, 0], [1]), ([], [1]), ([0], [1]))).values()
    assert loss.tolist() == pytest.approx([math.log(4 / 3), 0, math.log(3 / 2)], abs=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_what_a_loss_cannot_take_is_refused(smoothing: float) -> None:
    with pytest.raises(UserError, match=r"algorithm\.label_smoothing"):
        EXO(label_smoothing=smoothing)
