"""A conversation with a run, on a tiny model with a chat template: what is read and what is remembered."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from alignzoo import config
from alignzoo.cli import main as cli
from alignzoo.runs import chat, single
from alignzoo.runs.sample import PairSampler
from alignzoo.settings import UserError
from tests.data.test_templates import tokenizer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained to answer each question with its number."""
    folder, words = tmp_path_factory.mktemp("chat"), tokenizer("smollm2")
    sizes = {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }  # fmt: skip
    ids = {"eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id, "bos_token_id": None}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(words), **sizes, **ids)).save_pretrained(folder / "model")
    words.save_pretrained(folder / "model")
    turns = [[{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}"}] for n in range(10)]
    (folder / "chats.jsonl").write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))
    single.train(
        config.compose(
            [
                "algorithm=sft", "data=jsonl", f"data.path={folder}/chats.jsonl", "model=hf", f"model.path={folder}/model",
                "reward=none", "trainer.max_steps=2", "trainer.batch=4", "generation.max_new_tokens=8", f"run_dir={folder}/run",
            ]
        )
    )  # fmt: skip
    return folder / "run"


def test_the_policys_answers_are_remembered_and_the_references_are_not(run: Path, capsys: Any) -> None:
    conversation = chat.chat(run, ["say 1", "", "say 2"], system="be brief", temperature=0)
    assert [message["role"] for message in conversation] == ["system", "user", "assistant", "user", "assistant"]
    sampler = PairSampler(run, temperature=0, scored=False)
    (again,) = sampler(sampler.prompts([conversation[:-1]]))
    assert conversation[-1]["content"] == again.policy
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith(("policy", "reference"))] == ["policy", "reference"] * 2
    assert f"policy: {again.policy}".split("\n")[0].rstrip() in [line.rstrip() for line in lines]


def test_another_conversation_begins_anew(run: Path) -> None:
    assert chat.chat(run, ["say 1", chat.NEW, "say 2"], temperature=0) == chat.chat(run, ["say 2"], temperature=0)


def test_what_the_context_cannot_hold_is_told_and_left_out(run: Path, capsys: Any) -> None:
    conversation = chat.chat(run, ["say " + "1 " * 400, "say 2"], temperature=0)
    assert [message["content"] for message in conversation[:1]] == ["say 2"]
    assert "the model's context holds 256 tokens, and with an answer this needs " in capsys.readouterr().out


def test_the_command_reads_what_is_typed(run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("say 1\nsay \udcff\n"))  # a byte that is no text, as Python reads it
    assert cli.main(["chat", str(run), "--temperature", "0"]) == 0
    typed = capsys.readouterr().out
    chat.chat(run, ["say 1", "say \N{REPLACEMENT CHARACTER}"], temperature=0)
    assert typed == capsys.readouterr().out and typed.startswith("policy: ")


def test_a_run_on_texts_holds_no_conversation(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n} and", "completion": f" {n}"} for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "run"
    single.train(
        config.compose(
            [
                "algorithm=sft", "data=jsonl", f"data.path={tmp_path}/rows.jsonl", "reward=none", "trainer.max_steps=1",
                "generation.max_new_tokens=4", f"run_dir={folder}",
            ]
        )
    )  # fmt: skip
    with pytest.raises(UserError, match=r"was not trained on conversations: alignzoo sample .* --file - goes on from what you"):
        chat.chat(folder, ["hello"])
