"""The benchmark on a real chat model, on a tiny one: TRL's next step is ours, and the page says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.chat import __main__ as command
from benchmarks.chat import equal, runs
from tests.data.test_templates import tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, words = tmp_path_factory.mktemp("model"), tokenizer("smollm2")
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    ids = {"eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id, "bos_token_id": None}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(words), **sizes, **ids)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"prompt": f"What is {n} and {n}?", "chosen": f"It is {2 * n}.", "rejected": "many"[: 1 + n % 4]} for n in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", equal.OURS)
@pytest.mark.filterwarnings("ignore")  # TRL's and transformers' own
def test_the_next_step_from_a_saved_network_is_trls(
    name: str, model: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32 conversations, five steps away from the reference."""
    monkeypatch.setattr(equal, "RATE", 1e-3)
    line = equal.compare(name, str(model), pairs, tmp_path)
    for figure in ("loss", "grad_norm"):
        assert line["ours"][figure] == pytest.approx(line["theirs"][figure], rel=1e-4)
    assert line["ours"]["tokens"] == line["theirs"]["tokens"]


def test_the_page() -> None:
    lines = [
        {"kind": "run", "run": "dpo", "steps": 20, "metric": "loss", "first": 0.7, "last": 0.6, "better": True},
        {"kind": "answer", "run": "dpo", "text": "Paris."},
        {"kind": "equal", "what": "dpo", "ours": {"loss": 0.5, "grad_norm": 2.0, "tokens": 0},
         "theirs": {"loss": 0.5, "grad_norm": 2.002, "tokens": 0}},
    ]  # fmt: skip
    page = command.page("tiny", lines)
    assert "| `dpo` | 20 | loss | 0.7 | 0.6 | yes |" in page and '- `dpo`: "Paris."' in page
    assert "| dpo | 0.5 | 0.5 | 2 | 2.002 | 1.0e-03 |" in page


def test_the_plan_has_the_commands_of_the_tutorial() -> None:
    tutorial = (Path(__file__).parents[2] / "docs" / "chat.md").read_text()
    names = [run.name for run in runs.plan("MODEL", Path("folder"))]
    assert [name for name in names if f"algorithm={name}" not in tutorial] == ["kto"]
