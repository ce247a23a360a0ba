"""Runs that train no policy but a scorer: what they build, evaluate, save, and how it is used as a reward."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from alignzoo.batch import Pairs
from alignzoo.common.noise import Noise
from alignzoo.contracts import Context
from alignzoo.data.files import JsonLines
from alignzoo.engine import checkpoint
from alignzoo.models import modules
from alignzoo.models.networks import Shared
from alignzoo.models.scorer import ScorerNetwork, scorer
from alignzoo.rewards.model import RewardModel
from alignzoo.runs.sample import PairSampler
from alignzoo.runs.saving import save
from alignzoo.settings import Forward, Model, Peft, Sampling, UserError
from alignzoo.testing import toys
from alignzoo_plugins.bradley_terry.bradley_terry import BradleyTerry

ENCODER = {
    "model_type": "bert", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 128, "initializer_range": 0.5,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128}
MODELS = {"llama": toys.LLAMA, "gpt2": GPT2, "bert": ENCODER}


def run(folder, **changes):
    return toys.trainer(toys.setup(BradleyTerry(), "bradley_terry", **changes), folder)


def network(config, forward=Forward.auto, seed=0):
    settings = Model(config=dict(config))
    made = modules.config(settings, modules.tokenizer(settings))
    return ScorerNetwork(scorer(settings, made, 0, seed), Shared(Noise(0), {2}, forward=forward))


def plain(module, c) -> Tensor:
    """The scores that transformers gives each completion by itself, without padding."""
    rows = []
    for i, p in enumerate(c.prompt_of):
        ids = torch.cat([c.prompts.ids[p][c.prompts.attended[p]], c.ids[i][c.attended[i]]])
        rows.append(module(input_ids=ids[None]).logits[0, 0])
    return torch.stack(rows)


@pytest.mark.parametrize("forward", [Forward.auto, Forward.flat, Forward.padded])
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_scores_are_those_that_transformers_gives_each_row_alone(config, forward):
    scores, c = network(config, forward), toys.completions([0, 1, 2, 3], unscored=True)
    torch.testing.assert_close(scores.scores(c), plain(scores.module, c), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_no_completions_have_no_scores(config):
    assert network(config).scores(toys.completions([0]).take([])).shape == (0,)


def test_a_fresh_scorer_is_a_function_of_the_seed():
    first, again, other = (network(toys.LLAMA, seed=seed).module.score.weight for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("config", [toys.LLAMA, ENCODER], ids=["decoder", "encoder"])
def test_the_saved_model_is_the_scorer_as_a_reward_model_loads_it(tmp_path, config):
    trainer = run(tmp_path, model=Model(config=dict(config)))
    trainer.train()
    save(trainer, tmp_path)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").config.num_labels == 1
    c, reward = toys.completions([0, 1, 2]), RewardModel(path=str(tmp_path / "model"))
    reward.setup(Context(tokenizer=trainer.tokenizer, seed=0, sampling=Sampling(), context_length=128, cache=tmp_path))
    expected = trainer.roles.scorer.scores(c).detach()
    torch.testing.assert_close(reward(c).total, expected, atol=1e-5, rtol=0)
    assert expected.std() > 1e-3


def test_a_saved_scorer_goes_on_with_its_head(tmp_path):
    trainer = run(tmp_path / "first")
    trainer.train()
    save(trainer, tmp_path)
    again = run(tmp_path / "second", model=Model(path=str(tmp_path / "model")))
    c = toys.completions([0, 1, 2])
    torch.testing.assert_close(again.roles.scorer.scores(c), trainer.roles.scorer.scores(c))


def test_a_language_model_gives_its_trunk(tmp_path):
    language = modules.policy(
        Model(config=dict(toys.LLAMA)), config := modules.config(Model(config=dict(toys.LLAMA)), tokenizer()), 3
    )
    language.save_pretrained(tmp_path / "lm")
    tokenizer().save_pretrained(tmp_path / "lm")
    made = scorer(Model(path=str(tmp_path / "lm")), config, 0, 0)
    for name, weight in language.base_model.state_dict().items():
        assert torch.equal(made.base_model.state_dict()[name], weight), name


def tokenizer():
    return modules.tokenizer(Model(config=dict(toys.LLAMA)))


@pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning")  # peft 0.18, of a model made from a config
def test_adapters_are_trained_saved_resumed_and_merged(tmp_path):
    peft = Peft(enabled=True, rank=2)
    trainer = run(tmp_path, peft=peft, training={"save_steps": 2})
    start = {n: x.clone() for n, x in trainer.trained.main.state_dict().items()}
    trainer.train()
    moved = {n for n, x in trainer.trained.main.state_dict().items() if not torch.equal(x, start[n])}
    assert moved and all("lora_" in n or "score" in n for n in moved), moved
    again = run(tmp_path / "again", peft=peft)
    again.train(resume_from_checkpoint=str(checkpoint.latest(tmp_path / "checkpoints")))
    c = toys.completions([0, 1, 2])
    torch.testing.assert_close(again.roles.scorer.scores(c), trainer.roles.scorer.scores(c))
    save(trainer, tmp_path)
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(plain(merged, c), trainer.roles.scorer.scores(c), atol=1e-5, rtol=0)


def test_evaluation_measures_the_held_out_records_and_samples_nothing(tmp_path):
    trainer = run(tmp_path)
    trainer.train()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"eval/loss", "eval/accuracy"} <= rows[-1].keys()
    assert not {"eval/length", "eval/kl", "eval/reward"} & rows[-1].keys()
    assert not (tmp_path / "completions.jsonl").exists()


def test_a_task_that_brings_a_policy_gives_its_trunk(tmp_path):
    class Started(toys.ToySource):
        def start(self, policy, context):
            torch.nn.init.constant_(policy.base_model.embed_tokens.weight, 0.25)

    trainer = run(tmp_path, data=Started())
    assert (trainer.trained.main.base_model.embed_tokens.weight == 0.25).all()


@pytest.mark.parametrize(("group", "name"), [("reward", "model"), ("reference", "cached")])
def test_what_a_scorer_has_no_use_for_is_refused(tmp_path, group, name):
    made = toys.setup(BradleyTerry(), "bradley_terry")
    made.choices[group] = name
    with pytest.raises(UserError, match=f"bradley_terry trains a scorer and no policy, so {group}={name} would do nothing"):
        toys.trainer(made, tmp_path)


def test_an_architecture_without_a_sequence_classifier_is_refused(tmp_path):
    with pytest.raises(UserError, match="no scorer can be made of model_type=t5"):
        run(tmp_path, model=Model(config=dict(toys.T5)))


def test_sampling_from_a_scorer_says_what_it_is_for(tmp_path, monkeypatch):
    monkeypatch.setattr("alignzoo.runs.sample.load_run", lambda *_: None)
    monkeypatch.setattr("alignzoo.runs.sample.instantiate", lambda cfg: SimpleNamespace(algorithm=BradleyTerry()))
    with pytest.raises(UserError, match="trained no policy that could write, but a scorer: use it with reward=model"):
        PairSampler(tmp_path, scored=False)


def text_rows(source_folder, tokenizer, pairs):
    """(N,) the scores' records of these texts, as a data source makes them."""
    path = source_folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(dict(zip(("prompt", "chosen", "rejected"), row, strict=True))) + "\n" for row in pairs))
    context = Context(tokenizer=tokenizer, seed=0, sampling=Sampling(max_new_tokens=4), context_length=64, cache=source_folder)
    return JsonLines(path=str(path), heldout=0.0).tables(Pairs, context).train.batch(range(len(pairs))).both


PAIRS = [("the cat ", "sat here", "ran"), ("a dog ", "ran here now", "sat")]


def word_pieces(folder, ends):
    """The tokenizer of an encoder (with [CLS] and [SEP]), or of a language model, of a few words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "a", "dog", "sat", "ran", "here", "now", "<e>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if not ends:
        special = [("[CLS]", 2), ("[SEP]", 3)]
        inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    named = {"eos_token": "<e>"} if ends else {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", **named).save_pretrained(folder)
    return modules.tokenizer(Model(tokenizer=str(folder), config={"model_type": "llama"}))


@pytest.mark.parametrize(("config", "ends"), [(toys.LLAMA, True), (ENCODER, False)], ids=["decoder", "encoder"])
def test_a_scorer_with_another_tokenizer_reads_the_policys_text_as_it_was_trained_to(tmp_path, config, ends):
    own = word_pieces(tmp_path / "tokenizer", ends)
    settings = Model(config=dict(config))
    module = scorer(settings, modules.config(settings, own), own.pad_token_id, 0)
    checkpoint.save_main(module, tmp_path / "model", own)
    trained = text_rows(tmp_path, own, PAIRS)
    assert [row[mask][-1].item() for row, mask in zip(trained.ids, trained.attended, strict=True)] == [own.eos_token_id] * 4
    expected = ScorerNetwork(module, Shared(Noise(0), {own.eos_token_id})).scores(trained).detach()
    written = text_rows(tmp_path, tokenizer(), PAIRS)
    reward = RewardModel(path=str(tmp_path / "model"))
    reward.setup(Context(tokenizer=tokenizer(), seed=0, sampling=Sampling(), context_length=64, cache=tmp_path))
    torch.testing.assert_close(reward(written).total, expected, atol=1e-6, rtol=1e-5)
    cut = replace(written, truncated=torch.tensor([True, False, False, False]))
    assert (reward(cut).total - expected).abs().gt(1e-5).tolist() == [True, False, False, False]
