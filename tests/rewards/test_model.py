"""Reward models: the policy's tokens or the text, a score a completion or a token."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from alignzoo.contracts import Context
from alignzoo.models.tokenizers import byte_level, train_bpe
from alignzoo.rewards.model import RewardModel, ScoreLevel
from alignzoo.settings import Sampling, UserError


def saved(folder, tokenizer, labels=1, **settings):
    config = AutoConfig.for_model(
        "llama", vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_labels=labels, pad_token_id=tokenizer.pad_token_id, **settings,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.fixture
def context(tokenizer, tmp_path):
    return Context(tokenizer=tokenizer, seed=0, sampling=Sampling(), context_length=64, cache=Path(tmp_path))


def ready(path, context, **settings):
    reward = RewardModel(path=str(path), **settings)
    reward.setup(context)
    return reward


def one_by_one(model, sequences):
    """The model's logits of each sequence by itself, unpadded."""
    model.config.pad_token_id = None
    with torch.no_grad():
        return torch.cat([model(input_ids=torch.tensor([ids])).logits for ids in sequences])


def bytes_of(*texts):
    return [[3 + byte for byte in text.encode()] + [2] for text in texts]


SEQUENCES = bytes_of("pthe cat", "qqa", "qqThe the dog")


def test_the_policys_tokens_are_scored_as_they_are(tmp_path, context, completions):
    model = saved(tmp_path, byte_level())
    expected = one_by_one(model, SEQUENCES)[:, 0]
    scores = ready(tmp_path, context, batch=2)(completions)
    torch.testing.assert_close(scores.total, expected)
    assert scores.valid.all()
    assert expected.unique().numel() == 3


def test_of_several_labels_the_score_is_a_log_probability(tmp_path, context, completions):
    model = saved(tmp_path, byte_level(), labels=3)
    expected = one_by_one(model, SEQUENCES).log_softmax(-1)[:, 2]
    torch.testing.assert_close(ready(tmp_path, context, label=2)(completions).total, expected)


def test_every_token_is_scored_by_what_stands_before_it(tmp_path, context, completions):
    model = saved(tmp_path, byte_level())
    total = ready(tmp_path, context, level=ScoreLevel.token)(completions).total
    torch.testing.assert_close(
        total.gather(1, completions.length.long()[:, None] - 1)[:, 0], one_by_one(model, SEQUENCES)[:, 0]
    )
    torch.testing.assert_close(total[0, 0], one_by_one(model, [SEQUENCES[0][:2]])[0, 0])
    assert torch.all(total[~completions.scored] == 0)


def test_another_vocabulary_reads_the_text(tmp_path, context, completions):
    tokenizer = train_bpe(["the cat the dog"] * 5, 268)
    model = saved(tmp_path, tokenizer)
    expected = one_by_one(model, [tokenizer(text).input_ids for text in ("pthe cat", "qqa", "qqThe the dog")])[:, 0]
    torch.testing.assert_close(ready(tmp_path, context)(completions).total, expected)


def test_another_vocabulary_reads_messages_through_its_own_template(tmp_path, context, completions):
    tokenizer = train_bpe(["the cat the dog"] * 5, 268)
    model = saved(tmp_path, tokenizer)
    made_of = [[{"role": "user", "content": "p"}], "qq"]
    completions = replace(completions, prompts=replace(completions.prompts, made_of=made_of))
    texts = ["user: p\nassistant: the cat", "qqa", "qqThe the dog"]
    expected = one_by_one(model, [tokenizer(text).input_ids for text in texts])[:, 0]
    torch.testing.assert_close(ready(tmp_path, context)(completions).total, expected)


@pytest.mark.parametrize("pad", [None, "<eos>"])
def test_padding_is_no_token_of_a_text(pad, tmp_path, context, completions):
    """Chat models pad with EOS, with which every completion ends."""
    tokenizer = byte_level()
    tokenizer.pad_token = pad
    model = saved(tmp_path, tokenizer)
    torch.testing.assert_close(ready(tmp_path, context)(completions).total, one_by_one(model, SEQUENCES)[:, 0])


def test_text_longer_than_the_models_context_has_no_score(tmp_path, context, completions):
    saved(tmp_path, byte_level(), max_position_embeddings=9)
    for level in ScoreLevel:
        scores = ready(tmp_path, context, level=level)(completions)
        assert scores.valid.tolist() == [True, True, False]


def test_what_cannot_be_a_reward_model_is_named(tmp_path, context, source):
    saved(tmp_path / "bytes", byte_level(), labels=2)
    saved(tmp_path / "bpe", train_bpe(["the"] * 5, 261))
    for settings, message in (
        ({"path": tmp_path / "bytes", "label": 2}, "reward.label=2: .* has labels 0 to 1"),
        (
            {"path": tmp_path / "bpe", "level": ScoreLevel.token},
            "has another vocabulary than the policy; use reward.level=sequence",
        ),
        ({"path": "no/such"}, "reward.path=no/such: "),
    ):
        with pytest.raises(UserError, match=message):
            ready(context=context, **settings)
    with pytest.raises(UserError, match=r"reward=model needs a model: give reward.path=PATH"):
        RewardModel().resolve(source)
    with pytest.raises(UserError, match=r"reward.path=/no/such does not exist"):
        RewardModel(path="/no/such").resolve(source)
    with pytest.raises(UserError, match=r"reward.batch=0 is out of range"):
        RewardModel(batch=0)
