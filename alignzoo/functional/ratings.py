"""Losses on completions that were rated one by one."""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus


def kto_loss(
    log_ratio: Tensor,
    desirable: Tensor,
    reference_point: Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimisation: gains and losses of the implicit reward beta h against a reference point.

        L = w_D (1 - sigma(beta (h - z)))    where desirable
        L = w_U (1 - sigma(beta (z - h)))    elsewhere                 h = sum_t log pi(y_t | x, y_<t) - log ref(y_t | x, y_<t)

    With z = 0 it is the unpaired APO-zero of D'Oosterlinck et al. 2024. At pi = ref and z = 0 the loss is w / 2.

    log_ratio (B,): h; desirable (B,) bool; reference_point (B,) or (): z, which carries no gradient -> (B,).

    Ethayarajh et al. 2024, KTO: model alignment as prospect theoretic optimization, section 4.1.
    """
    gain = beta * (log_ratio - reference_point.detach())
    return torch.where(desirable, desirable_weight * (-gain).sigmoid(), undesirable_weight * gain.sigmoid())


def bco_loss(log_ratio: Tensor, desirable: Tensor, reference_point: Tensor, beta: float) -> Tensor:
    """Binary classifier optimisation: the implicit reward beta h, shifted by delta, is the logit of being desirable.

        L = - log sigma(beta h - delta)    where desirable
        L = - log sigma(delta - beta h)    elsewhere                 h = sum_t log pi(y_t | x, y_<t) - log ref(y_t | x, y_<t)

    log_ratio (B,): h; desirable (B,) bool; reference_point (B,) or (): delta / beta, which carries no gradient -> (B,).

    Jung et al. 2024, Binary classifier optimization for large language model alignment. At pi = ref and delta = 0 it is log 2.
    """
    logit = beta * (log_ratio - reference_point.detach())
    return torch.where(desirable, softplus(-logit), softplus(logit))


def unlikelihood(logprobs: Tensor, floor: float = 1e-5) -> Tensor:
    """- log max(1 - p, floor): tokens that should not be written become unlikely.

    logprobs (...): log p -> (...). Below the floor there is no gradient, as in the authors' code.

    Welleck et al. 2020, Neural text generation with unlikelihood training.
    """
    return -(-logprobs.expm1()).clamp(min=floor).log()


def expectile_loss(values: Tensor, targets: Tensor, tau: float) -> Tensor:
    """The squared error whose minimum is the expectile: the mean at tau 1/2, near the largest target at tau near 1.

        L = |tau - 1[u < 0]| u^2        u = target - value

    values, targets (...), of which targets carry no gradient -> (...).

    Kostrikov et al. 2022, Offline reinforcement learning with implicit Q-learning, eq. 1; by token Snell et al. 2023, ILQL.
    """
    excess = targets.detach() - values
    return torch.where(excess < 0, 1 - tau, tau) * excess**2


def advantage_weights(advantages: Tensor, temperature: float, limit: float = math.inf) -> Tensor:
    """min(exp(A / beta), limit), of what has no gradient. (...) -> (...).

    Peng et al. 2019, Advantage-weighted regression; without a baseline and a limit Peters and Schaal
    2007, Reinforcement learning by reward-weighted regression.
    """
    return (advantages.detach() / temperature).clamp(max=math.log(limit)).exp()


def rotations(group: Tensor, together: int) -> Tensor:
    """The record before in each `together` neighbours, the last one's before the first, whatever prompts they have: whose
    completion TRL puts under each record's prompt. group (N,) -> (N,) indices."""
    place = torch.arange(len(group), device=group.device)
    first = place - place % together
    last = (first + together).clamp(max=len(group)) - 1
    return torch.where(place == first, last, place - 1)


def mismatches(group: Tensor) -> Tensor:
    """Whose completion stands under each record's prompt where it must not be the prompt's own: KTO's estimate of the KL.

    Records of one prompt are put together, in order of the first of each, and everyone gets the completion as many places
    before as the largest prompt has records: each completion is used once, and where prompts are all different it is that of
    the record before, the first record getting the last one's. Where one prompt has more than half of the records, those left
    over share the others'; where there is but one prompt, they get the record's before.

    group (N,) integers: which prompt -> (N,) indices.
    """
    places = torch.arange(len(group), device=group.device)
    _, member, count = group.unique(return_inverse=True, return_counts=True)
    first = torch.full_like(count, len(group)).scatter_reduce(0, member, places, "amin")
    together = first[member].argsort(stable=True)
    source = torch.empty_like(places)
    source[together] = together.roll(int(count.max()))
    left_over = member[source] == member
    smaller = together[member[together] != count.argmax()]  # records of all prompts but the largest
    spare = smaller[places % len(smaller)] if len(smaller) else places - 1
    return torch.where(left_over, spare, source) % len(group)
