"""Each named preset is the mathematics its name stands for: golden values through the plugin's own loss or rollout."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import alignzoo_plugins
from alignzoo.batch import Completions, Pairs, Prompts, Rated
from alignzoo.functional import forward_kl, generalised_jsd, reverse_kl
from alignzoo.kl import Estimator
from alignzoo.testing.fakes import FakeModels, TablePolicy, TableValue, completions, constant, prompts, table
from alignzoo_plugins.bradley_terry.bradley_terry import BradleyTerry
from alignzoo_plugins.distill.distill import Distill
from alignzoo_plugins.dpo.dpo import DPO
from alignzoo_plugins.grpo.grpo import GRPO
from alignzoo_plugins.kto.kto import KTO
from alignzoo_plugins.ppo.ppo import PPO
from alignzoo_plugins.rating_regression.rating_regression import RatingRegression
from alignzoo_plugins.reinforce.reinforce import Reinforce

PLUGINS = Path(next(iter(alignzoo_plugins.__path__)))
CLASSES = {
    "dpo": DPO, "reinforce": Reinforce, "ppo": PPO, "distill": Distill, "grpo": GRPO, "kto": KTO, "bradley_terry": BradleyTerry,
    "rating_regression": RatingRegression,
}  # fmt: skip
PRESETS = {path.stem: path for path in sorted(PLUGINS.glob("*/presets/*.yaml"))}
UNIFORM = torch.zeros(3, 3, dtype=torch.float64)
SKEWED = torch.tensor([[0.5, 0.25, 0.25]] * 3, dtype=torch.float64).log()
TEACHER = table(1, 3).detach()
OF = prompts(1)
SAMPLES = completions(OF, [0, 0, 0], [[0], [1], [2]])


def preset(name: str) -> Any:
    """The algorithm of a preset, by its file alone."""
    fields = OmegaConf.load(PRESETS[name])
    parent = fields.pop("defaults")[0]
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(CLASSES[parent]), fields))


def models(**changes: Any) -> FakeModels:
    given = {
        "policy": TablePolicy(SKEWED, SAMPLES), "reference": TablePolicy(UNIFORM), "score": constant([1.0, 2.0, 6.0]),
        "value": TableValue(torch.zeros(1, dtype=torch.float64)), "teacher": TablePolicy(TEACHER),
    }  # fmt: skip
    return FakeModels(**given | changes)  # type: ignore[arg-type]


def test_every_preset_has_a_golden_test_and_says_what_it_is() -> None:
    tested = {name.removeprefix("test_preset_") for name in globals() if name.startswith("test_preset_")}
    assert tested == set(PRESETS)
    assert all(path.read_text("utf-8").startswith("# ") for path in PRESETS.values())


def test_preset_cdpo() -> None:
    """Delta = log 2 at beta 0.1: 0.9 log(1 + 2^-0.1) + 0.1 log(1 + 2^0.1) = 0.659090 + 0.1 * 0.0693147 = 0.666021."""
    pairs = Pairs(chosen=completions(OF, [0], [[0]]), rejected=completions(OF, [0], [[1]]))
    loss, _ = preset("cdpo").loss(models(), pairs)
    assert loss.item() == pytest.approx(0.666021, abs=1e-5)


def test_preset_apo_zero_unpaired() -> None:
    """h = log 3/2 (desirable) and log 3/4 (undesirable) at beta 0.1: sigma(-0.0405465) and sigma(-0.0287682)."""
    of = prompts(1, 1)
    rated = Rated(**vars(completions(of, [0, 1], [[0], [1]])), rating=torch.tensor([1.0, 0.0]))
    algorithm = preset("apo_zero_unpaired")
    loss, _ = algorithm.loss(models(), *algorithm.prepare(models(), [rated]))
    assert loss.tolist() == pytest.approx([0.489865, 0.492808], abs=1e-6)


def _scored(name: str, *scores: float, margin: float = 0.0) -> float:
    """The loss of one pair, or one completion rated 1, with these scores."""
    network = SimpleNamespace(scores=lambda c: torch.tensor(scores, dtype=torch.float64))
    one = completions(OF, [0], [[0]])
    pair = Pairs(chosen=one, rejected=completions(OF, [0], [[1]]), margin=torch.tensor([margin], dtype=torch.float64))
    records = pair if len(scores) == 2 else Rated(**vars(one), rating=torch.ones(1))
    return preset(name).loss(SimpleNamespace(scorer=network), records)[0].item()


def test_preset_bradley_terry_margin() -> None:
    """log 3 - log 3 = 0: log 2."""
    assert _scored("bradley_terry_margin", math.log(3), 0.0, margin=math.log(3)) == pytest.approx(0.693147, abs=1e-6)


def test_preset_bradley_terry_smoothed() -> None:
    """0.9 log 4/3 + 0.1 log 4."""
    assert _scored("bradley_terry_smoothed", math.log(3), 0.0) == pytest.approx(0.397543, abs=1e-6)


def test_preset_bradley_terry_centred() -> None:
    """log 2 + 0.01 (2 + 2)^2."""
    assert _scored("bradley_terry_centred", 2.0, 2.0) == pytest.approx(0.853147, abs=1e-6)


def test_preset_rating_regression_logistic() -> None:
    """- log sigma(log 3) = log 4/3."""
    assert _scored("rating_regression_logistic", math.log(3)) == pytest.approx(0.287682, abs=1e-6)


def _surrogate(name: str, longest: int = 64, ratio: float = 1.25) -> list[list[float]]:
    """Of this ratio and advantages -2, -1, 3, unless scaled by sqrt 7."""
    algorithm, given = preset(name), models()
    given.sampling.max_new_tokens = longest
    made = algorithm.experience(given, OF)
    moved = replace(made, old_logprobs=made.old_logprobs - math.log(ratio))
    assert "reference" not in algorithm.roles()
    return algorithm.loss(given, moved)[0].tolist()


def test_preset_dr_grpo() -> None:
    """2 * 1.25 / 4, 1.25 / 4, and - 3 * 1.2 / 4, cut at 1.2."""
    assert _surrogate("dr_grpo", longest=4) == pytest.approx([0.625, 0.3125, -0.9])


def test_preset_dapo() -> None:
    """1.25 is inside 1.28; one value a token; equal rewards leave nothing."""
    assert [row[0] for row in _surrogate("dapo")] == pytest.approx([0.944875, 0.472437, -1.417312], abs=1e-5)
    assert len(preset("dapo").experience(models(score=constant([2.0, 2.0, 2.0])), OF)) == 0


def test_preset_gspo() -> None:
    """Cut at 1.0004: 0.755900 and 0.377950 times 1.25, -1.133850 times 1.0004."""
    assert _surrogate("gspo") == pytest.approx([0.944875, 0.472437, -1.134303], abs=1e-5)


def test_preset_grpo_trl() -> None:
    """One value a token, cut at 1.2: 0.755900 and 0.377950 times 1.25, -1.133850 times 1.2."""
    assert [row[0] for row in _surrogate("grpo_trl")] == pytest.approx([0.944875, 0.472437, -1.360620], abs=1e-5)


def test_preset_grpo_verl() -> None:
    """sd is the square root of 7 and a millionth: 0.755929, 0.377964, 1.133893. At ratio 4 the loss of the first is bounded by
    3, and that of the last cut at 1.2."""
    assert [row[0] for row in _surrogate("grpo_verl")] == pytest.approx([0.944911, 0.472455, -1.360672], abs=2e-6)
    assert [row[0] for row in _surrogate("grpo_verl", ratio=4.0)] == pytest.approx([2.267786, 1.133893, -1.360672], abs=2e-6)


def test_preset_luspo() -> None:
    """Advantages -+ 0.707007, ratio 1.25, one token and two: 1.25 * 0.707007, and 2 * 1.0025 * -0.707007."""
    algorithm = preset("luspo")
    given = models(policy=TablePolicy(SKEWED, completions(OF, [0, 0], [[0], [1, 2]])), score=constant([1.0, 2.0]))
    made = algorithm.experience(given, OF)
    moved = replace(made, old_logprobs=made.old_logprobs - math.log(1.25) * made.scored)
    assert algorithm.loss(given, moved)[0].tolist() == pytest.approx([0.883759, -1.417549], abs=2e-6)


def test_preset_rloo() -> None:
    """Returns 1 - 0.05 log 3/2 = 0.979727, 2 - 0.05 log 3/4 = 2.014384, 6.014384; each minus the mean of the other two."""
    made = preset("rloo").experience(models(), OF)
    assert made.advantages[:, 0].tolist() == pytest.approx([-3.034657, -1.482671, 4.517329], abs=1e-5)


def test_preset_opo() -> None:
    """Rewards 4 over one token and 0 over three: the baseline is 4 / 4."""
    given = models(policy=TablePolicy(SKEWED, completions(OF, [0, 0], [[0], [1, 1, 2]])), score=constant([4.0, 0.0]))
    algorithm = preset("opo")
    assert algorithm.experience(given, OF).advantages[:, 0].tolist() == [3, -1]
    assert algorithm.least_samples() == 2 and "reference" not in algorithm.roles()


def test_preset_remax() -> None:
    """The greedy completion is worth 2, without KL: 0.979727 - 2, 2.014384 - 2, 6.014384 - 2."""
    greedy = completions(OF, [0], [[1]])
    score = lambda c: constant([2.0] if len(c) == 1 else [1.0, 2.0, 6.0])(c)  # noqa: E731
    made = preset("remax").experience(models(policy=TablePolicy(SKEWED, SAMPLES, greedy), score=score), OF)
    assert made.advantages[:, 0].tolist() == pytest.approx([-1.020273, 0.014384, 4.014384], abs=1e-5)


def test_preset_ppo_adaptive() -> None:
    """512 samples at KL 12 raise 0.15 by 0.2 * 512 / 10000 to 0.151536."""
    algorithm = preset("ppo_adaptive")
    algorithm.after_rollout({"kl": 12.0, "samples": 512.0})
    assert algorithm.kl.coefficient == pytest.approx(0.151536)


def test_preset_ppo_kl_loss() -> None:
    """0.2 k3: of token 0, 2/3 - 1 + log 3/2 = 0.072132; of the others, 4/3 - 1 + log 3/4 = 0.045651.
    The returns are the bare rewards."""
    algorithm = preset("ppo_kl_loss")
    made = algorithm.experience(models(), OF)
    terms, _ = algorithm.loss(models(), made)
    assert made.returns[:, 0].tolist() == [1, 2, 6]
    assert terms["kl_penalty"][:, 0].tolist() == pytest.approx([0.0144264, 0.0091303, 0.0091303], abs=1e-6)
    assert algorithm.kl.estimator is Estimator.k3


def test_preset_ppo_shared() -> None:
    assert preset("ppo_shared").roles()["value"].shares == "policy"


def test_preset_ppo_ptx() -> None:
    """27.8 log 4 on a demonstration of token 1; returns 1 - 0.02 log 3/2, ...; one pass; value model from the reward model."""
    algorithm = preset("ppo_ptx")
    made = algorithm.experience(models(), completions(OF, [0], [[1]]))
    terms, _ = algorithm.loss(models(), made)
    assert made.returns[:, 0].tolist() == pytest.approx([0.991891, 2.005754, 6.005754], abs=1e-5)
    assert terms["pretraining"][:, 0].tolist() == pytest.approx([38.538983] * 3, abs=1e-5)
    assert (algorithm.passes(), algorithm.roles()["value"].start) == (1, "reward")


def _token_level(name: str, expected: torch.Tensor, student: list[int], data: type) -> None:
    """The divergence at the prompt's token 1; of draws 0.1, 0.5, 0.9 those below lambda give the student's own sequences."""
    of = prompts(0, 1, 2)
    own = completions(of, [0, 1, 2], [[1], [1], [1]])
    given = models(policy=TablePolicy(SKEWED, own), uniforms={0: 0.1, 1: 0.5, 2: 0.9})
    algorithm = preset(name)
    made = algorithm.experience(given, of if data is Prompts else completions(of, [0, 1, 2], [[0], [0], [0]]))
    assert algorithm.data is data
    assert sorted(set(made.row[made.ids[:, 0] == 1].tolist())) == student
    torch.testing.assert_close(algorithm.loss(given, SAMPLES)[0][:, 0], expected.expand(3))


def test_preset_kd() -> None:
    _token_level("kd", forward_kl(SKEWED[1], TEACHER[1]), [], Completions)


def test_preset_gkd() -> None:
    _token_level("gkd", generalised_jsd(SKEWED[1], TEACHER[1], 0.5), [0], Completions)


def test_preset_on_policy_distill() -> None:
    _token_level("on_policy_distill", reverse_kl(SKEWED[1], TEACHER[1]), [0, 1, 2], Prompts)


def test_preset_seqkd() -> None:
    """The teacher's samples 0, 1, 2 at the student's log 2, log 4, log 4."""
    given = models(uniforms={0: 0.0}, teacher=TablePolicy(UNIFORM, SAMPLES))
    algorithm = preset("seqkd")
    made = algorithm.experience(given, OF)
    assert algorithm.loss(given, made)[0][:, 0].tolist() == pytest.approx([0.693147, 1.386294, 1.386294], abs=1e-6)
