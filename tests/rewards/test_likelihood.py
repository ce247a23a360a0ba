"""Log-likelihood under a scorer, against its own logits of each sequence by itself."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from alignzoo.models.tokenizers import byte_level, train_bpe
from alignzoo.rewards.likelihood import Likelihood
from alignzoo.settings import UserError

PROMPTS, TEXTS = ["p", "qq", "qq"], ["the cat", "a", "The the dog"]


def saved(folder, tokenizer, context=64):
    config = AutoConfig.for_model(
        "llama", vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=context, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def ready(path, context, **settings):
    reward = Likelihood(path=str(path), **settings).resolve(None)
    reward.setup(context)
    return reward


def by_hand(model, prompt, completion):
    """The sum over the completion's tokens of log p(token | before)."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].double()
    probabilities = logits.softmax(-1)
    return sum(probabilities[len(prompt) + i - 1, token].log().item() for i, token in enumerate(completion))


def bytes_of(text):
    return [3 + byte for byte in text.encode()]


@pytest.mark.parametrize("mean", [False, True])
def test_the_policys_tokens_are_read_as_they_are(tmp_path, context, completions, mean):
    model = saved(tmp_path, byte_level())
    sums = [by_hand(model, bytes_of(p), [*bytes_of(text), 2]) for p, text in zip(PROMPTS, TEXTS, strict=True)]
    expected = [total / (len(text) + 1) if mean else total for total, text in zip(sums, TEXTS, strict=True)]
    scores = ready(tmp_path, context, mean=mean, batch=2)(completions)
    assert scores.total.tolist() == pytest.approx(expected, abs=1e-4)
    assert scores.usable.all()


def test_what_the_policy_did_not_write_is_read_but_does_not_count(tmp_path, context, completions):
    model = saved(tmp_path, byte_level())
    c = copy.copy(completions)
    scored = c.scored.clone()
    scored[:, :1] = False
    object.__setattr__(c, "scored", scored)
    expected = by_hand(model, bytes_of("pt"), [*bytes_of("he cat"), 2])
    assert ready(tmp_path, context, mean=False)(c).total[0].item() == pytest.approx(expected, abs=1e-4)


def test_another_tokenizer_reads_the_text(tmp_path, context, completions):
    own = train_bpe([*PROMPTS, *TEXTS] * 5, 300)
    model = saved(tmp_path, own)
    expected = []
    for prompt, text in zip(PROMPTS, TEXTS, strict=True):
        ids = own(text, add_special_tokens=False)["input_ids"]
        expected.append(by_hand(model, own(prompt)["input_ids"], [*ids, own.eos_token_id]))
    assert ready(tmp_path, context, mean=False)(completions).total.tolist() == pytest.approx(expected, abs=1e-4)
    cut = completions.take([0])
    object.__setattr__(cut, "truncated", torch.tensor([True]))
    without_end = by_hand(model, own("p")["input_ids"], own("the cat", add_special_tokens=False)["input_ids"])
    assert ready(tmp_path, context, mean=False)(cut).total.item() == pytest.approx(without_end, abs=1e-4)


def test_what_is_longer_than_its_context_has_no_score(tmp_path, context, completions):
    saved(tmp_path, byte_level(), context=10)
    assert ready(tmp_path, context)(completions).usable.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "reward=likelihood needs a model: give reward.path=PATH"),
        ({"path": "/nowhere/at/all"}, "reward.path=/nowhere/at/all does not exist"),
        ({"path": "x", "batch": 0}, "reward.batch=0"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(UserError, match=message):
        Likelihood(**settings).resolve(None)


def test_a_folder_without_a_model_is_named(tmp_path, context):
    with pytest.raises(UserError, match=r"^no model at reward.path=\S+: \S"):
        ready(tmp_path, context)
