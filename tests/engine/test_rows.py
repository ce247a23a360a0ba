"""No padded row, and none of a prompt, reaches the head, whatever the algorithm: rows are counted, not seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from alignzoo import compose
from alignzoo.batch import Completions, Pairs
from alignzoo.config import instantiate
from alignzoo.engine.build import Builder
from alignzoo.engine.callbacks import Interrupt

WIDE, INNER = 259, 44  # the vocabulary, and the feed-forward size: no other product is as wide
MODEL = (
    "{model_type: llama, hidden_size: 16, intermediate_size: 44, num_hidden_layers: 2, num_attention_heads: 2, "
    "max_position_embeddings: 256}"
)
COMMON = [
    "model=hf", f"++model.config={MODEL}", "data=jsonl", "data.heldout=0", "trainer.max_steps=2", "trainer.batch=8",
    "trainer.micro_batch=4", "rollout.prompts=4", "rollout.samples=2", "generation.max_new_tokens=6",
]  # fmt: skip
SCORED = ["reward=function", "reward.path=tests.engine.test_rows.letters"]
# of each: which rows of data it takes, and what it is told
ALGORITHMS: dict[str, tuple[str, list[str]]] = {
    "dpo": ("pairs", []),
    "sft": ("demonstrations", []),
    "kto": ("judged", []),
    "bradley_terry": ("pairs", []),
    "reinforce": ("pairs", SCORED),
    "grpo": ("pairs", SCORED),
    "ppo": ("pairs", ["algorithm.epochs=1", *SCORED]),
    "distill": ("pairs", ["algorithm.lam=1"]),
}


def letters(completions: list[str], **_: Any) -> list[float]:
    return [float(len(text) % 3) for text in completions]


class Counted(TorchDispatchMode):
    """Counts the rows of every matrix product, by the width of what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        found = function(*arguments, **(keywords or {}))
        if function.overloadpacket.__name__ in ("mm", "addmm", "addmm_", "bmm", "baddbmm") and isinstance(found, torch.Tensor):
            width = found.shape[-1]
            self.rows[width] = self.rows.get(width, 0) + found.numel() // width
        return found


class Afresh(TrainerCallback):
    """Forgets the first step, in which networks are looked at for what they can do."""

    def __init__(self, noted: list[Any]) -> None:
        self.noted = noted

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 1:
            for notes in self.noted:
                notes.clear()


def rows(folder: Path) -> None:
    """Prompts much longer than what they are answered by, of all lengths."""
    made = [("tell me more " * (1 + 3 * i % 7), "yes " * (1 + i % 3), "no " * (1 + i % 4)) for i in range(16)]
    views = {
        "pairs": [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in made],
        "demonstrations": [{"prompt": p, "completion": c} for p, c, _ in made],
        "judged": [{"prompt": p, "completion": c, "label": i % 2} for i, (p, c, _) in enumerate(made)],
    }
    for name, view in views.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in view))


def one_step(algorithm: str, folder: Path, *overrides: str) -> tuple[dict[int, int], list[Any], list[Any]]:
    """The rows of the second optimizer step's products by width, its records, and what was sampled for it."""
    rows(folder)
    view, told = ALGORITHMS[algorithm]
    given = [f"data.path={folder / f'{view}.jsonl'}", f"algorithm={algorithm}", *COMMON, *told, *overrides]
    if algorithm == "distill":
        given.append(f"roles.teacher={teacher(folder)}")
    trainer = Builder(instantiate(compose(given)), folder, folder / "cache").trainer(Interrupt(), lambda step, row: None)
    trainer.evaluator = lambda module, step: ({}, [])
    records: list[Any] = []
    rollouts: list[Any] = []
    record, sample = trainer._record, trainer.sample
    trainer._record = lambda metrics, batch: records.append(batch) or record(metrics, batch)  # type: ignore[method-assign]
    trainer.sample = lambda index, batch: rollouts.append(sample(index, batch)) or rollouts[-1]
    with Counted() as counted:
        trainer.add_callback(Afresh([counted.rows, records, rollouts]))
        trainer.train()
    return counted.rows, [record.both if isinstance(record, Pairs) else record for record in records], rollouts


def teacher(folder: Path) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=24, intermediate_size=52, num_hidden_layers=1, num_attention_heads=2, vocab_size=WIDE, pad_token_id=0
    )
    LlamaForCausalLM(config).save_pretrained(folder / "teacher")
    return folder / "teacher"


def scored(batches: list[Completions]) -> int:
    return sum(int(c.scored.sum()) for c in batches)


def encoded(batches: list[Completions]) -> int:
    """Tokens, each prompt once."""
    return sum(int(c.prompts.attended.sum() + c.attended.sum()) for c in batches)


@pytest.mark.parametrize(
    ("algorithm", "readings"),
    # how often the head reads the scored tokens: the policy and, where there is one, the reference or the teacher; KTO on
    # mismatched completions too, which are the same ones under other prompts
    [("dpo", 2), ("sft", 1), ("kto", 4), ("bradley_terry", 0), ("reinforce", 2), ("grpo", 2), ("ppo", 2), ("distill", 2)],
)
def test_only_scored_rows_reach_the_head(algorithm: str, readings: int, tmp_path: Path) -> None:
    counted, batches, rollouts = one_step(algorithm, tmp_path)
    assert scored(batches) > 40
    sampling = counted.get(WIDE, 0) - readings * scored(batches)  # a row a token; a prompt's first tokens may share theirs
    assert scored(rollouts) - sum(len(c) - len(c.prompts) for c in rollouts) <= sampling <= scored(rollouts)


@pytest.mark.parametrize(("algorithm", "forwards"), [("dpo", 2), ("sft", 1), ("bradley_terry", 1)])
def test_no_token_is_encoded_twice(algorithm: str, forwards: int, tmp_path: Path) -> None:
    """Of two layers the second runs only on rows that are read, so that all of them together are at most two of all tokens."""
    counted, batches, _ = one_step(algorithm, tmp_path)
    products = 2 * 2  # two layers, two products as wide as the feed-forward part; its gradients are another width
    backward = 2  # the gradient of what the third product reads is as wide
    trained, frozen = encoded(batches), (forwards - 1) * encoded(batches)
    assert 0 < counted[INNER] <= products * (trained + frozen) + backward * trained


def test_a_reward_model_reads_one_row_of_each_completion(tmp_path: Path) -> None:
    counted, batches, _ = one_step("bradley_terry", tmp_path)
    assert counted[1] == sum(len(batch) for batch in batches) == 16, "two completions of eight pairs"


@pytest.mark.parametrize(("algorithm", "readings"), [("dpo", 2), ("sft", 1), ("reinforce", 2)])
def test_the_padded_path_is_caught(algorithm: str, readings: int, tmp_path: Path) -> None:
    """What the counts above are for: padding is rows."""
    counted, batches, rollouts = one_step(algorithm, tmp_path, "model.forward=padded", "generation.decoding=plain")
    assert counted[WIDE] > readings * scored(batches) + scored(rollouts)
