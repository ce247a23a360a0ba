"""TRL's chat templates for training, by name, and the one for this tokenizer."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest

from alignzoo.data.encode import Encoder
from alignzoo.data.render import template
from alignzoo.errors import UserError
from alignzoo.models.tokenizers import train_bpe
from tests.data.test_templates import assistant, user

TEMPLATES = resources.files("trl") / "chat_templates"
TURNS = [user("2 * 3?"), assistant("<think>easy</think>6"), user("And 7 * 8?"), assistant("<think>hm</think>56")]


@pytest.fixture
def qwen3() -> Any:
    words = train_bpe(["What is two times three? user assistant think"] * 3, 300)
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    words.eos_token, words.chat_template = "<|im_end|>", (TEMPLATES / "qwen3.jinja").read_text()
    return words


def test_a_template_that_rewrites_earlier_turns_has_one_that_does_not(qwen3: Any) -> None:
    """With the tokenizer's own, the answers of one conversation are records of their own; with TRL's they are one."""
    own = Encoder(tokenizer=qwen3)
    kept = Encoder(tokenizer=qwen3, template=template("trl", qwen3))
    assert len(own.records(TURNS[:1], TURNS[1:])) == 2
    assert kept.records(TURNS[:1], TURNS[1:]) == [(TURNS[:1], TURNS[1:])]
    ((_, (tokens,)),) = kept.encode([TURNS[:1]], [[TURNS[1:]]])
    trained = [token for token, scored in zip(tokens.ids, tokens.scored, strict=True) if scored]
    assert "hm" in qwen3.decode(trained) and "easy" in qwen3.decode(trained) and "7 * 8" not in qwen3.decode(trained)
    assert template("trl:qwen3_training", qwen3) == template("trl", qwen3) == kept.settings["template"]


def test_what_is_no_template(qwen3: Any) -> None:
    assert template(None, qwen3) is None
    with pytest.raises(UserError, match=r"^data.chat_template=trl:qwen3_trainin: TRL has no such .*'qwen3_training'"):
        template("trl:qwen3_trainin", qwen3)
    with pytest.raises(UserError, match=r"^data.chat_template=mine.jinja does not exist"):
        template("mine.jinja", qwen3)
    qwen3.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(UserError, match=r"^data.chat_template=trl: TRL has none for this tokenizer: "):
        template("trl", qwen3)
