"""What a saved model says of itself, and that others can load it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, LlamaConfig, pipeline

from alignzoo import compose, train
from alignzoo.models import tokenizers

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model with a licence."""
    folder = tmp_path_factory.mktemp("models") / "tiny-chat"
    words = tokenizers.byte_level()
    words.chat_template = TEMPLATE
    words.save_pretrained(folder)
    AutoModelForCausalLM.from_config(
        LlamaConfig(vocab_size=len(words), eos_token_id=words.eos_token_id, **SIZES)
    ).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    return folder


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    rows = [[{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"{i}!"}] for i in range(4)]
    (folder / "chats.jsonl").write_text("\n".join(json.dumps({"messages": row}) for row in rows))
    umask = os.umask(0o027)
    try:
        settings = [
            "algorithm=sft",
            "data=jsonl",
            f"data.path={folder / 'chats.jsonl'}",
            "data.heldout=0.25",
            "trainer.batch=3",
        ]
        settings += ["model=hf", f"model.path={base}", "peft=lora", "peft.rank=2", "generation.max_new_tokens=2"]
        train(compose([*settings, f"run_dir={folder / 'run'}"]))
    finally:
        os.umask(umask)
    return folder / "run"


@pytest.mark.parametrize("part", ["model", "adapter"])
def test_the_card(run: Path, part: str) -> None:
    card = ModelCard.load(run / part / "README.md")
    assert card.data.to_dict() == {
        "library_name": "transformers", "license": "apache-2.0", "pipeline_tag": "text-generation", "tags": ["alignzoo", "sft"],
    }  # fmt: skip
    perplexity = json.loads((run / "summary.json").read_text())["metrics"]["perplexity"]
    for line in (
        "# sft from tiny-chat", "`sft` on `jsonl`, 1 steps, seed 0.", "- Starting from: `tiny-chat`", "- Licence: apache-2.0",
        "- Data: `chats.jsonl`, 3 train, 1 heldout", f"| perplexity | {perplexity:.4g} |",
    ):  # fmt: skip
        assert line in card.text


def test_anybody_whom_the_umask_allows_can_read_it(run: Path) -> None:
    modes = {oct(path.stat().st_mode & 0o777) for part in ("model", "adapter") for path in (run / part).iterdir()}
    assert modes == {oct(0o640)}


def test_the_pipeline_of_transformers_answers_messages(run: Path) -> None:
    chat = pipeline("text-generation", model=str(run / "model"))
    (answer,) = chat([{"role": "user", "content": "1?"}], max_new_tokens=3, do_sample=False)
    assert answer["generated_text"][-1]["role"] == "assistant"
    assert chat.model.config.use_cache
