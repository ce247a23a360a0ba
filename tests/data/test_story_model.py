"""The story model that comes with alignzoo."""

import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import alignzoo
from alignzoo.data.stories import Stories, StoryPart
from alignzoo.models import modules
from alignzoo.rewards.likelihood import Likelihood
from alignzoo.rewards.model import RewardModel
from alignzoo.settings import Model, UserError, embedded

FOLDER = Path(embedded("alignzoo://stories"))
WORDS = Path(__file__).with_name("story_words.txt")
LOSS = 3.0  # nats a token; knowing nothing is 7.6
# written for this test
TALES = (
    "once upon a time there was a little boy named sam. sam had a red ball. he liked to play with his ball in the park. "
    "one day, the ball fell into the water. sam was very sad. his mom said, \"do not cry, sam. i will help you.\"",
    "there was a big dog who lived in a small house. the dog was hungry. he went into the garden to look for food. "
    "a little cat saw him and gave him some of her fish. the dog was happy, and they became good friends.",
    "one day, anna and her mom went to the store. anna saw a pretty doll and wanted to have it. "
    "\"can we buy it, please?\" she asked. her mom smiled and said yes. anna hugged her mom and they went home.",
)  # fmt: skip


@cache
def shipped() -> tuple[Any, Any]:
    """Network and tokenizer as `model=stories` makes them."""
    settings = Model(path="alignzoo://stories")
    tokenizer = modules.tokenizer(settings)
    return modules.policy(settings, modules.config(settings, tokenizer), seed=0), tokenizer


@torch.no_grad()
def loss(text: str) -> float:
    """Nats a token, EOS included, after BOS."""
    network, tokenizer = shipped()
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
    return F.cross_entropy(network(input_ids=ids).logits[0, :-1], ids[0, 1:]).item()


def test_it_expects_english_and_not_its_words_in_any_order() -> None:
    rng = random.Random(0)
    for tale in TALES:
        words = tale.split()
        shuffled = " ".join(rng.sample(words, len(words)))
        assert loss(tale) < LOSS
        assert loss(shuffled) > loss(tale) + 2


def test_it_expects_the_right_word() -> None:
    pairs = [
        ("the bird could fly.", "the bird could soup."),
        ("she was very happy.", "she was very of."),
        ("he said,", "him said,"),
    ]
    for right, wrong in pairs:
        assert loss("once upon a time there was a bird. " + right) + 0.1 < loss("once upon a time there was a bird. " + wrong)


@torch.no_grad()
def test_what_it_writes_is_made_of_words() -> None:
    network, tokenizer = shipped()
    prompts = [row["prompt"] for row in Stories().rows()[1]][:96:4]
    encoded = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
    torch.manual_seed(0)
    made = network.generate(**encoded, do_sample=True, temperature=0.7, top_k=0, max_new_tokens=60)
    texts = tokenizer.batch_decode(made[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    # the last word may have been cut, and the first may go on with the prompt
    words = [word for text in texts for word in re.findall("[a-z]+", text.rpartition(" ")[0])]
    known = set(WORDS.read_text("utf-8").split())
    assert len(words) > 600
    assert len(set(words)) > 150
    assert sum(word in known for word in words) / len(words) > 0.95


def test_it_is_small_and_its_weights_are_float32_once_loaded() -> None:
    network, tokenizer = shipped()
    assert 1e6 < network.num_parameters() < 5e6
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 12e6
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert network.config.max_position_embeddings == 256
    assert 1000 <= len(tokenizer) <= 4096


def test_every_text_survives_the_tokenizer() -> None:
    _, tokenizer = shipped()
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}) == 3
    texts = [text for part in StoryPart for side in Stories(part=part).rows()[:2] for row in side for text in row.texts()]
    odd = ["", "  two  spaces\n\n", "ÄÖÜ ß 😀 中文", "<eos> and <pad> are text", "UPPER Case\t."]
    for text in [*texts, *odd]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
        assert tokenizer.eos_token_id not in ids
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True)
    assert chat == "user: hello\nassistant: "


def test_a_run_starts_from_it(tmp_path: Path) -> None:
    """Named by a path that is no machine's own, and the model that comes out loads by itself."""
    overrides = [
        "model=stories",
        "data=stories",
        "algorithm=sft",
        "trainer.max_steps=2",
        "trainer.batch=8",
        "generation.max_new_tokens=8",
    ]
    summary = alignzoo.train(alignzoo.compose([*overrides, "trainer.eval_prompts=4", f"run_dir={tmp_path / 'run'}"]))
    assert summary["status"] == "finished"
    assert "path: alignzoo://stories" in (tmp_path / "run" / "config.yaml").read_text()
    before = shipped()[0].state_dict()
    settings = Model(path=str(tmp_path / "run" / "model"))
    after = modules.policy(settings, modules.config(settings, shipped()[1]), seed=1).state_dict()
    change = {name: (after[name] - before[name]).abs().max().item() for name in before}
    assert 0 < max(change.values()) < 1e-3


def test_rewards_ask_it_by_the_same_name() -> None:
    assert Likelihood(path="alignzoo://stories").path == RewardModel(path="alignzoo://stories").path == str(FOLDER)
    with pytest.raises(UserError, match="Did you mean 'stories'"):
        Likelihood(path="alignzoo://story")
