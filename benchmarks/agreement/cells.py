"""Algorithm x framework: ours with settings, the other's formula, and, where they differ, by what, with a formula that undoes
exactly that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from alignzoo.config.needs import preset_values
from alignzoo.config.registry import Registry
from benchmarks.agreement import formulas as F
from benchmarks.agreement.batch import LONGEST

VERSIONS = {
    "TRL": "1.16.0", "verl": "0.8.0.dev (b178a3cd5)", "OpenRLHF": "0.11.0 (3c3be623)", "oxRL": "2a2bd5d",
    "NeMo-RL": "7ea279abf", "prime-rl": "559b44772",
}  # fmt: skip
COMPLETIONS = 6
Formula = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Cell:
    """`theirs` under their defaults but for `settings`, which are ours and named alike there. `differs`: by what, and `undone`:
    theirs without that, which is ours; None where that is more than a line. `value`: whether the value means anything."""

    algorithm: str
    framework: str
    theirs: Formula
    settings: dict[str, Any]
    differs: str = ""
    undone: Formula | None = None
    value: bool = True


def made(name: str, settings: dict[str, Any]) -> Any:
    """Our algorithm, or preset, by name, with settings."""
    registry = Registry()
    kind, values = registry.load("algorithm", name), preset_values(registry.get("algorithm", name))
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values, settings))


B = {"beta": F.BETA}
NO_KL = {"beta": 0.0}
EPSILON = "{} instead of 1e-4 is added to sd"
BY_TOKENS = "a clipped ratio of tokens, and the mean over all tokens instead of the sum over a completion's"


def summed(advantages: Callable[[Any], Tensor]) -> Formula:
    """The score-function loss of whole completions."""
    return lambda x: -(x.new * x.tokens * advantages(x)).sum() / COMPLETIONS


def length_weighted(x: Any) -> Tensor:
    lengths = x.tokens.sum(1).view(2, 3)
    return (x.groups - (lengths * x.groups).sum(1, keepdim=True) / lengths.sum(1, keepdim=True)).view(-1, 1)


PAIRS = [
    *(Cell("dpo", framework, lambda x: F.logistic(x.margin), B) for framework in ("OpenRLHF", "oxRL", "NeMo-RL")),
    *(Cell("cdpo", framework, lambda x: F.logistic(x.margin, smooth=F.SMOOTH), B) for framework in ("OpenRLHF", "oxRL")),
    *(Cell("ipo_sum", framework, F.ipo, B) for framework in ("OpenRLHF", "oxRL")),
    Cell(
        "robust", "oxRL", lambda x: F.robust(x, 1), B | {"label_smoothing": F.SMOOTH},
        "the flipped label's loss is added, and not subtracted: cdpo divided by 1 - 2e", lambda x: F.robust(x, -1),
    ),
    Cell("hinge", "oxRL", F.hinge, B),
    Cell("exo", "oxRL", F.exo, B | {"label_smoothing": F.SMOOTH}),
    Cell("nca", "oxRL", F.nca, B),
    Cell("bco_pair", "oxRL", F.bco, B),
    Cell("sppo_hard", "oxRL", F.sppo_hard, B),
    Cell("apo_zero", "oxRL", F.apo_zero, B, value=False),
    Cell("apo_down", "oxRL", F.apo_down, B, value=False),
    Cell("aot", "oxRL", F.sorted_sides, B, "it is aot_unpaired: each side is sorted by itself", F.sorted_margins),
    Cell("aot_unpaired", "oxRL", F.sorted_sides, B),
    Cell("discopop", "oxRL", lambda x: F.discopop(x, 0.5), B | {"tau": 0.5}),
    Cell("dpop", "oxRL", lambda x: F.dpop(x, 2.0), B | {"penalty": 2.0}),
    Cell(
        "rdpo_length", "oxRL", lambda x: F.priced(x, -0.1), B | {"alpha": 0.1}, "the length term has the other sign",
        lambda x: F.priced(x, 0.1),
    ),
    Cell("wpo", "oxRL", F.weighted, B, "weights are of log-probs alone, without log sum pi^2, at most 1, and divide the sum"),
    Cell("simpo", "oxRL", lambda x: F.simpo(x, 2.0, 0.5), {"beta": 2.0, "margin": 0.5}),
    Cell("cpo", "oxRL", lambda x: F.cpo(x, 0.7), B | {"alpha": 0.7}),
    Cell(
        "orpo", "oxRL", lambda x: F.odds(x, 0.2, by_token=True), {"weight": 0.2},
        "the likelihood is a mean over all tokens, and not over completions of theirs",
        lambda x: F.odds(x, 0.2, by_token=False),
    ),
]  # fmt: skip

ON_POLICY = [
    Cell("grpo_verl", "verl", lambda x: F.token_mean(F.clipped(x.ratio, F.z_score(x, 1e-6), bound=3.0), x), {}),
    Cell("dr_grpo", "verl", lambda x: F.sums(F.clipped(x.ratio, F.centred(x), bound=3.0), x, LONGEST), {},
         "the sum is divided by loss_scale_factor, and not by the number of completions too; ratios are bounded by 3",
         lambda x: F.sums(F.clipped(x.ratio, F.centred(x)), x, LONGEST * COMPLETIONS)),
    Cell("gspo", "verl", lambda x: F.mean_of_means(F.clipped(F.by_completion(x), F.z_score(x, 1e-6)), x),
         {"clip": 0.2, "clip_high": 0.2, "epsilon": 1e-6}),
    Cell("sapo", "verl", lambda x: F.mean_of_means(F.sapo(x, F.z_score(x, 1e-6), 1.0, 1.05), x),
         {"temperature": 1.0, "temperature_negative": 1.05}, EPSILON.format("1e-6"),
         lambda x: F.mean_of_means(F.sapo(x, F.z_score(x, 1e-4), 1.0, 1.05), x)),
    Cell("gmpo", "verl", lambda x: F.gmpo(x, F.z_score(x, 1e-6), 0.2).mean(), {"clip": 0.2}, EPSILON.format("1e-6"),
         lambda x: F.gmpo(x, F.z_score(x, 1e-4), 0.2).mean()),
    Cell("cispo", "verl", lambda x: F.token_mean(F.cispo(x, F.z_score(x, 1e-6), 0.8, 1.2), x), {"low": 0.8, "high": 1.2},
         EPSILON.format("1e-6"), lambda x: F.token_mean(F.cispo(x, F.z_score(x, 1e-4), 0.8, 1.2), x)),
    Cell("rloo", "verl", lambda x: F.token_mean(F.clipped(x.ratio, F.others(x), bound=3.0), x), NO_KL, BY_TOKENS,
         summed(F.others), value=False),
    Cell("opo", "verl", lambda x: F.token_mean(F.clipped(x.ratio, length_weighted(x), bound=3.0), x), {}, BY_TOKENS,
         summed(length_weighted), value=False),
    Cell("reinforce_pp", "verl", lambda x: F.normalised(x, F.ahead(x, x.rewards[:, None], 0.1), True, 3.0), {"beta": 0.1},
         "the variance has n - 1; ratios are bounded by 3", lambda x: F.normalised(x, F.ahead(x, x.rewards[:, None], 0.1))),
    Cell("reinforce_pp_baseline", "verl", lambda x: F.normalised(x, F.centred(x), True, 3.0), NO_KL,
         "the variance has n - 1; ratios are bounded by 3", lambda x: F.normalised(x, F.centred(x))),
    Cell("grpo_openrlhf", "OpenRLHF", lambda x: F.token_mean(F.clipped(x.ratio, F.ahead(x, F.z_score(x, 1e-9), 0.1)), x),
         {"beta": 0.1}),
    Cell("dr_grpo", "OpenRLHF", lambda x: F.token_mean(F.clipped(x.ratio, F.ahead(x, F.centred(x), 0.01)), x), {},
         "k1 in the reward (0.01), and the mean over all tokens",
         lambda x: F.sums(F.clipped(x.ratio, F.centred(x)), x, LONGEST * COMPLETIONS)),
    Cell("gspo", "OpenRLHF", lambda x: F.mean_of_means(F.clipped(F.by_completion(x), F.ahead(x, F.z_score(x, 1e-9), 0.01)), x),
         {"clip": 0.2, "clip_high": 0.2, "epsilon": 1e-9}, "k1 in the reward (0.01)",
         lambda x: F.mean_of_means(F.clipped(F.by_completion(x), F.z_score(x, 1e-9)), x)),
    Cell("rloo", "OpenRLHF", lambda x: F.token_mean(F.clipped(x.ratio, F.ahead(x, F.others(x), 0.1)), x), {"beta": 0.1},
         "the KL, of what is ahead of a token, has no part in the baseline; " + BY_TOKENS,
         summed(lambda x: F.others(penalised(x, 0.1))), value=False),
    Cell("reinforce_pp", "OpenRLHF", lambda x: F.normalised(x, F.ahead(x, x.rewards[:, None], 0.1)), {"beta": 0.1}),
    Cell("reinforce_pp_baseline", "OpenRLHF", lambda x: F.normalised(x, F.ahead(x, F.centred(x), 0.1)), {"beta": 0.1},
         "k1 in the reward; equal with --algo.kl.use_loss --algo.kl.estimator k2",
         lambda x: F.normalised(x, F.centred(x)) + F.token_mean(0.1 * F.k2(x), x)),
    Cell("grpo", "oxRL", lambda x: F.token_mean(F.clipped(x.ratio, F.z_score(x, 1e-8)) + 0.1 * F.k3(x), x),
         {"beta": 0.1, "epsilon": 1e-8, "average": "token"}),
    Cell("gspo", "oxRL", lambda x: F.mean_of_means(F.clipped(F.by_completion(x), F.z_score(x, 1e-8)), x),
         {"clip": 0.2, "clip_high": 0.2, "epsilon": 1e-8}),
    Cell("cispo", "oxRL", lambda x: F.token_mean(-x.ratio.clamp(0.8, 1.2).detach() * F.z_score(x, 1e-8) * (x.new - x.old), x),
         {"low": 0.8, "high": 1.2}, EPSILON.format("1e-8"),
         lambda x: F.token_mean(F.cispo(x, F.z_score(x, 1e-4), 0.8, 1.2), x), value=False),
    Cell("grpo", "NeMo-RL", lambda x: F.token_mean(F.clipped(x.ratio, F.others_z_score(x)) + 0.01 * F.nemo_k3(x), x),
         {"beta": 0.01, "average": "token"},
         "mean and deviation are of the group's others; the KL's weight is 1 with the gradient of a ratio",
         lambda x: F.token_mean(F.clipped(x.ratio, F.z_score(x, 1e-4)) + 0.01 * F.k3(x), x)),
    Cell("gspo", "NeMo-RL", lambda x: F.mean_of_means(F.clipped(F.by_completion(x), F.others_z_score(x)), x),
         {"clip": 0.2, "clip_high": 0.2}, "mean and deviation are of the group's others",
         lambda x: F.mean_of_means(F.clipped(F.by_completion(x), F.z_score(x, 1e-4)), x)),
    Cell("cispo", "NeMo-RL", lambda x: F.token_mean(F.cispo(x, F.others_z_score(x), 0.8, 1.2), x), {"low": 0.8, "high": 1.2},
         "mean and deviation are of the group's others",
         lambda x: F.token_mean(F.cispo(x, F.z_score(x, 1e-4), 0.8, 1.2), x)),
    Cell("reinforce_pp_baseline", "NeMo-RL", lambda x: F.normalised(x, F.centred(x)), NO_KL),
    Cell("dppo", "prime-rl", lambda x: F.token_mean(F.trusted(x, F.centred(x), 0.2, 1e-3), x), {"threshold": 0.2},
         "a thousandth of the squared log-ratio to the sampler, and the mean over all tokens",
         lambda x: F.sums(F.trusted(x, F.centred(x), 0.2, 0.0), x, LONGEST * COMPLETIONS)),
    Cell("maxrl", "prime-rl", lambda x: F.token_mean(F.trusted(x, F.over_mean(x), 0.2, 1e-3), x), {},
         "the surrogate is that of dppo there, its mean over all tokens"),
]  # fmt: skip


def penalised(x: Any, beta: float) -> Any:
    """With rewards less beta times the whole log pi_old / ref."""
    return replace(x, rewards=x.rewards - beta * ((x.old - x.reference) * x.tokens).sum(1))


# of tests/functional/test_trl.py: the algorithm, or preset, and the test that holds it to TRL's own trainer
TRL = {
    **{name: f"test_losses_on_pairs[{case}]" for name, case in {
        "hinge": "hinge", "ipo": "ipo", "exo": "exo_pair", "nca": "nca_pair", "robust": "robust", "bco_pair": "bco_pair",
        "sppo_hard": "sppo_hard", "aot": "aot", "aot_unpaired": "aot_unpaired", "ld_dpo": "ld_dpo", "apo_zero": "apo_zero",
        "apo_down": "apo_down", "discopop": "discopop", "f_dpo": "js_divergence", "wpo": "wpo",
    }.items()},
    **{name: f"test_grpo[{name}]" for name in (
        "grpo", "dr_grpo", "dapo", "gspo", "grpo_trl", "luspo", "cispo", "sapo", "gmpo", "vespo", "high_entropy", "rloo_trl",
    )},
    **{name: f"test_losses_on_pairs_without_a_reference[{name}]" for name in ("cpo", "simpo")},
    **{name: f"test_kto[{name}]" for name in ("kto", "apo_zero_unpaired", "kto_trl")},
    "dpo": "test_dpo[0.1]", "tpo": "test_tpo", "sft": "test_sft[nll]", "dft": "test_sft[dft]", "gdpo": "test_gdpo",
    "gkd": "test_generalised_jsd[0.5]", "self_distill": "test_self_distillation[0.3]",
}  # fmt: skip


def gap(first: Tensor, second: Tensor, value: bool, by: Tensor) -> float:
    """The largest difference of the gradients by a table, and of the values, relative to the largest entry."""
    gradients = [torch.autograd.grad(x, by, retain_graph=True)[0] for x in (first, second)]
    scale = max(gradients[0].abs().max().item(), 1e-12)
    apart = (gradients[0] - gradients[1]).abs().max().item() / scale
    return max(apart, abs((first - second).item()) / max(abs(first.item()), 1e-12)) if value else apart
