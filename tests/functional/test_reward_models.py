"""Losses of reward models: worked by hand, and Bradley-Terry's against TRL's RewardTrainer."""

from __future__ import annotations

import copy
import math
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from alignzoo.batch import Completions, Pairs, Rankings, Rated
from alignzoo.common.noise import Noise
from alignzoo.functional import bradley_terry_loss, plackett_luce_loss, rating_cross_entropy, rating_squared_error
from alignzoo.models.networks import Shared
from alignzoo.models.scorer import ScorerNetwork
from alignzoo.models.tokenizers import byte_level
from alignzoo.settings import UserError
from alignzoo.testing.fakes import completions, prompts
from alignzoo_plugins.bradley_terry.bradley_terry import BradleyTerry
from alignzoo_plugins.plackett_luce.plackett_luce import PlackettLuce
from alignzoo_plugins.rating_regression.rating_regression import Fit, RatingRegression

LN2, LN3 = math.log(2), math.log(3)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def models(*scores: float) -> Any:
    """A scorer that gives these scores, whatever the completions."""
    return SimpleNamespace(scorer=SimpleNamespace(scores=lambda c: doubles(*scores).requires_grad_()))


def pairs(count: int, margin: Tensor | None = None) -> Pairs:
    of, rows = prompts(*[1] * count), list(range(count))
    sides = [completions(of, rows, [[token]] * count) for token in (0, 1)]
    return Pairs(chosen=sides[0], rejected=sides[1], margin=margin)


def marked(kind: Any, prompt_of: list[int], ids: list[list[int]], **columns: Tensor) -> Any:
    of = replace(prompts(*[1] * (max(prompt_of) + 1)), decode=lambda rows: [f"prompt {row}" for row in rows])
    made = completions(of, prompt_of, ids)
    return kind(**{f.name: getattr(made, f.name) for f in fields(Completions)}, **columns)


def rankings(*ranks: list[float], scored: list[list[int]] | None = None) -> Rankings:
    """A ranking for each list."""
    of = [i for i, ranking in enumerate(ranks) for _ in ranking]
    made = marked(Rankings, of, [[1]] * len(of), rank=torch.tensor([rank for ranking in ranks for rank in ranking]))
    return made if scored is None else replace(made, scored=torch.tensor(scored).bool())


# --- Bradley-Terry ---


def test_bradley_terry_is_minus_the_log_odds_won() -> None:
    """d = log 3: sigma = 3/4, the loss log 4/3; d = - log 3: log 4; d = 0: log 2."""
    found = bradley_terry_loss(doubles(LN3, 0, 5), doubles(0, LN3, 5))
    torch.testing.assert_close(found, doubles(math.log(4 / 3), math.log(4), LN2))


def test_a_margin_is_taken_off_the_difference() -> None:
    """d = log 3 - log 3 = 0."""
    torch.testing.assert_close(bradley_terry_loss(doubles(LN3), doubles(0), margin=doubles(LN3)), doubles(LN2))


def test_label_smoothing_mixes_in_the_other_label() -> None:
    """0.9 log 4/3 + 0.1 log 4 = 0.258914 + 0.138629."""
    found = bradley_terry_loss(doubles(LN3), doubles(0), label_smoothing=0.1)
    torch.testing.assert_close(found, doubles(0.397543), atol=1e-6, rtol=0)


def test_centring_adds_the_squared_sum() -> None:
    """log 2 + 0.01 (2 + 2)^2."""
    torch.testing.assert_close(bradley_terry_loss(doubles(2), doubles(2), centring=0.01), doubles(LN2 + 0.16))


def test_bradley_terry_reports_scores_and_counts_equal_ones_half() -> None:
    loss, metrics = BradleyTerry().loss(models(LN3, 1, 0, 0, 1, 2), pairs(3))
    torch.testing.assert_close(loss, doubles(math.log(4 / 3), LN2, math.log1p(math.exp(2))))
    assert metrics["score/chosen"].tolist() == [LN3, 1, 0]
    assert metrics["score/rejected"].tolist() == [0, 1, 2]
    assert metrics["score/margin"].tolist() == [LN3, 0, -2]
    assert metrics["accuracy"].tolist() == [1, 0.5, 0]


def test_the_datas_margin_is_used_times_the_coefficient_and_only_if_asked_for() -> None:
    batch = pairs(1, margin=doubles(LN3 / 2))
    torch.testing.assert_close(BradleyTerry(margin=2.0).loss(models(LN3, 0), batch)[0], doubles(LN2))
    torch.testing.assert_close(BradleyTerry().loss(models(LN3, 0), batch)[0], doubles(math.log(4 / 3)))


def test_a_margin_that_the_data_has_not_got_is_an_error() -> None:
    with pytest.raises(UserError, match=r"algorithm.margin=1.0 takes the pairs' margins, and the data has none"):
        BradleyTerry(margin=1.0).loss(models(1, 0), pairs(1))


@pytest.mark.parametrize(
    ("field", "value"), [("margin", -0.1), ("label_smoothing", -0.1), ("label_smoothing", 0.5), ("centring", -0.1)]
)
def test_bradley_terry_refuses_what_is_out_of_range(field: str, value: float) -> None:
    with pytest.raises(UserError, match=f"algorithm.{field}={value} is out of range"):
        BradleyTerry(**{field: value})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("margin", "centring"), [(0.0, 0.0), (1.0, 0.0), (0.0, 0.02), (1.0, 0.02)])
def test_bradley_terry_is_trls(tmp_path: Path, margin: float, centring: float) -> None:
    """Loss to 1e-6, every gradient to 1e-5 of its largest entry, on the batch that TRL's own trainer collates."""
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    texts = [("1+1? 2", "1+1? three or so"), ("Say hi. Hi there, friend", "Say hi. no"), ("A? B", "A? C")]
    extra = [{"margin": 0.5 * i} if margin else {} for i in range(len(texts))]
    rows = Dataset.from_list(
        [{"chosen": good, "rejected": bad, **more} for (good, bad), more in zip(texts, extra, strict=True)]
    )
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(byte_level()), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.5, pad_token_id=byte_level().pad_token_id, num_labels=1,
    )  # fmt: skip
    module = LlamaForSequenceClassification(shape).eval()
    theirs = copy.deepcopy(module)
    arguments = RewardConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", max_length=None,
        per_device_train_batch_size=3, center_rewards_coefficient=centring or None, disable_dropout=True,
    )  # fmt: skip
    trainer = RewardTrainer(theirs, args=arguments, train_dataset=rows, processing_class=byte_level())
    batch = next(iter(trainer.get_train_dataloader()))
    network = ScorerNetwork(module, Shared(Noise(0), {byte_level().eos_token_id}))
    mine, metrics = BradleyTerry(margin=margin, centring=centring).loss(SimpleNamespace(scorer=network), whole(batch))
    expected = trainer.compute_loss(theirs, batch)
    torch.testing.assert_close(mine.mean(), expected, rtol=1e-6, atol=1e-6)
    mine.mean().backward()
    expected.backward()
    for (name, own), (_, other) in zip(module.named_parameters(), theirs.named_parameters(), strict=True):
        assert own.grad is not None and other.grad is not None and other.grad.any(), name
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-5, atol=1e-5 * other.grad.abs().max().item())
    assert metrics["accuracy"].mean().item() == pytest.approx(trainer._metrics["eval"]["accuracy"][0])


def whole(batch: Any) -> Pairs:
    """TRL's rows, chosen before rejected: the first token as the prompt, the rest as the completion."""
    ids, attended = batch["input_ids"], batch["attention_mask"].bool()
    count = len(ids) // 2
    of = replace(prompts(*[0] * count), ids=ids[:count, :1], attended=attended[:count, :1])
    assert torch.equal(ids[:count, 0], ids[count:, 0])
    sides = [
        Completions(
            prompts=of, prompt_of=of.row, ids=ids[part, 1:], attended=attended[part, 1:], scored=attended[part, 1:],
            truncated=torch.zeros(count, dtype=torch.bool), row=of.row,
        )
        for part in (slice(count), slice(count, None))
    ]  # fmt: skip
    return Pairs(chosen=sides[0], rejected=sides[1], margin=batch.get("margin"))


# --- Plackett-Luce ---


def test_plackett_luce_by_hand() -> None:
    """Odds 6 : 3 : 1, in that order: 6/10 times 3/4; the other way round: 1/10 times 3/9; equal scores: 1/3!."""
    scores = torch.stack([doubles(6, 3, 1).log(), doubles(1, 3, 6).log(), doubles(4, 4, 4).log()])
    found = plackett_luce_loss(scores, torch.ones(3, 3, dtype=torch.bool))
    torch.testing.assert_close(found, doubles(-math.log(0.45), math.log(30), math.log(6)))


def test_plackett_luce_reads_nothing_beyond_a_rankings_end() -> None:
    scores = torch.stack([doubles(6, 3, math.nan), doubles(3, 1, math.inf)]).log().requires_grad_()
    found = plackett_luce_loss(scores, torch.tensor([[True, True, False]] * 2))
    torch.testing.assert_close(found, doubles(math.log(9 / 6), math.log(4 / 3)))
    found.sum().backward()
    # dL/dr_1 = sigma(d) - 1 = - 3/9 and - 1/4
    torch.testing.assert_close(scores.grad, torch.stack([doubles(-1 / 3, 1 / 3, 0), doubles(-1 / 4, 1 / 4, 0)]))


def test_a_ranking_of_two_is_bradley_terry() -> None:
    scores = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    found = plackett_luce_loss(scores, torch.ones(50, 2, dtype=torch.bool))
    torch.testing.assert_close(found, bradley_terry_loss(scores[:, 0], scores[:, 1]), rtol=1e-12, atol=1e-12)


def test_rankings_of_two_give_the_plugins_the_same_objective() -> None:
    scores = [0.3, -1.0, 2.0, 0.1, 0.4, 0.4]
    ranked, paired = rankings([0.0, 1.0], [1.0, 0.0], [0.0, 1.0]), pairs(3)
    algorithm, other = PlackettLuce(centring=0.1), BradleyTerry(centring=0.1)
    terms, metrics = algorithm.loss(models(*scores), ranked)
    weights = algorithm.weights(ranked)["loss"]
    expected, measured = other.loss(models(0.3, 0.1, 0.4, -1.0, 2.0, 0.4), paired)
    torch.testing.assert_close((terms * weights).sum() / weights.sum(), expected.mean())
    assert metrics["accuracy"].mean() == measured["accuracy"].mean() == 0.5


def test_a_rankings_loss_stands_at_its_best_and_counts_once() -> None:
    """Ranks 2, 0, 1 of odds 1 : 6 : 3, and a ranking of two of equal odds, whatever the numbers of the ranks."""
    batch, algorithm = rankings([2.0, 0.0, 1.0], [7.0, 3.0]), PlackettLuce()
    terms, metrics = algorithm.loss(models(*doubles(1, 6, 3, 1, 1).log().tolist()), batch)
    torch.testing.assert_close(terms, doubles(0, -math.log(0.45), 0, 0, LN2))
    assert algorithm.weights(batch)["loss"].tolist() == [0, 1, 0, 0, 1]
    assert metrics["accuracy"].tolist() == [1, 1, 1, 0.5, 0.5]


def test_centring_of_a_ranking() -> None:
    terms, _ = PlackettLuce(centring=0.01).loss(models(1, 1, 1), rankings([0.0, 1.0, 2.0]))
    torch.testing.assert_close(terms, doubles(math.log(6) + 0.09, 0, 0))


def test_rankings_of_the_same_prompt_stay_apart() -> None:
    batch = rankings([0.0, 1.0], [0.0, 1.0])
    shared = replace(batch, prompt_of=torch.zeros(4, dtype=torch.long))
    terms, _ = PlackettLuce().loss(models(LN3, 0, 0, 0), shared)
    torch.testing.assert_close(terms, doubles(math.log(4 / 3), 0, LN2, 0))


def test_a_ranking_with_an_unscored_completion_has_no_weight() -> None:
    batch = rankings([0.0, 1.0], [0.0, 1.0], scored=[[1], [1], [1], [0]])
    assert PlackettLuce().weights(batch)["loss"].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("ranks", "why"),
    [([0.0, 1.0, 1.0], "has ties, which Plackett-Luce can't order"), ([0.0], "holds one completion, which ranks nothing")],
)
def test_what_is_no_ranking_is_named(ranks: list[float], why: str) -> None:
    batch = rankings([0.0, 1.0], ranks)
    with pytest.raises(UserError, match=rf"the ranking in row 1 \(prompt 'prompt \[0, 1\]'\) {why}: .*algorithm=bradley_terry"):
        PlackettLuce().loss(models(*range(2 + len(ranks))), batch)


def test_plackett_luce_refuses_what_is_out_of_range() -> None:
    with pytest.raises(UserError, match=r"algorithm\.centring=-1"):
        PlackettLuce(centring=-1)


# --- ratings ---


def test_rating_errors_by_hand() -> None:
    """(0.5 - 0.25)^2; sigma(log 3) = 3/4 against 1, 0 and 1/2: log 4/3, log 4, their mean."""
    torch.testing.assert_close(rating_squared_error(doubles(0.5), doubles(0.25)), doubles(0.0625))
    found = rating_cross_entropy(doubles(LN3, LN3, LN3), doubles(1, 0, 0.5))
    torch.testing.assert_close(found, doubles(math.log(4 / 3), math.log(4), (math.log(4 / 3) + math.log(4)) / 2))


def rated(*ratings: float) -> Any:
    return marked(Rated, list(range(len(ratings))), [[1]] * len(ratings), rating=torch.tensor(ratings))


def test_ratings_are_read_on_their_scale() -> None:
    """4 of 0 to 8 is 0.5, of which a score of 0.75 is 0.25 too much, 2 on the scale."""
    loss, metrics = RatingRegression(low=0.0, high=8.0).loss(models(0.75), rated(4.0))
    torch.testing.assert_close(loss, doubles(0.0625))
    assert (metrics["score"].item(), metrics["rating_error"].item()) == (0.75, 2.0)
    loss, metrics = RatingRegression(fit=Fit.logistic, low=-1.0, high=1.0).loss(models(LN3), rated(0.0))
    torch.testing.assert_close(loss, doubles((math.log(4 / 3) + math.log(4)) / 2))
    assert metrics["rating_error"].item() == pytest.approx(0.5)


@pytest.mark.parametrize("rating", [5.5, -1.0, math.nan])
def test_a_rating_outside_its_scale_is_named(rating: float) -> None:
    with pytest.raises(
        UserError, match=rf"the rating {rating:g} in row 1 \(prompt 'prompt \[0, 1\]'\) is outside the scale, 0 to 5"
    ):
        RatingRegression(high=5.0).loss(models(0, 0), rated(5.0, rating))


def test_a_scale_upside_down_is_refused() -> None:
    with pytest.raises(UserError, match=r"algorithm.high=1.0 is out of range: must be > algorithm.low=1.0"):
        RatingRegression(low=1.0)
