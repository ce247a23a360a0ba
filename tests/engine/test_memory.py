"""trainer.micro_batch=auto: as many records at once as memory holds, and the same steps whatever it holds."""

from __future__ import annotations

import json
import logging
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from alignzoo import config
from alignzoo.batch import Pairs, Prompts
from alignzoo.engine import memory
from alignzoo.engine.trainer import AlignTrainer
from alignzoo.runs import single


def test_the_largest_divisor_that_fits() -> None:
    assert [memory.fitting(12, 10.0, room) for room in (1000, 120, 119, 61, 40, 39, 20, 5, -1)] == [12, 12, 6, 6, 4, 3, 2, 1, 1]


def test_the_smallest_divisor_that_is_enough() -> None:
    """2048 tokens are wanted at once, or more, where they would not come to 64 MB: 4096 of 16 x 128 + 4 x 512 numbers."""
    wide = SimpleNamespace(hidden_size=128, num_hidden_layers=8, intermediate_size=512)
    assert [memory.enough(12, tokens, wide, 4) for tokens in (171, 341, 342, 512, 1024, 5000)] == [12, 12, 6, 4, 2, 1]
    narrow = SimpleNamespace(hidden_size=128, num_hidden_layers=1, intermediate_size=512)
    assert [memory.enough(12, tokens, narrow, 4) for tokens in (342, 682, 683, 1024)] == [12, 12, 6, 4]
    assert memory.enough(12, 5000, SimpleNamespace(), 4) == 12  # of a network whose size nobody knows


def test_what_a_token_takes() -> None:
    small = SimpleNamespace(hidden_size=8, num_hidden_layers=3, intermediate_size=20)
    assert memory.token_bytes(small, 4) == 3 * (16 * 8 + 4 * 20) * 4
    assert memory.token_bytes(SimpleNamespace(), 4) == 0


def test_gradients_and_optimizer_come_first(monkeypatch: Any) -> None:
    """10 weights of 4 bytes take 120 more; of 1120 free bytes, half of 1000 hold 5 records of 10 tokens of 10 bytes."""
    monkeypatch.setattr(memory, "token_bytes", lambda *_: 10)
    monkeypatch.setattr(memory, "free", lambda _: 1120)
    network = nn.Linear(10, 1, bias=False)
    assert memory.micro_batch(5, 10, None, network, torch.device("cpu")) == 5
    monkeypatch.setattr(memory, "free", lambda _: 1119)
    assert memory.micro_batch(5, 10, None, network, torch.device("cpu")) == 1
    network.weight.requires_grad_(False)  # not trained: it has neither
    assert memory.micro_batch(5, 10, None, network, torch.device("cpu")) == 5


def test_memory_is_measured() -> None:
    installed = next(
        int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line
    )
    assert 0 < memory.free(torch.device("cpu")) <= installed


def test_processes_of_one_machine_share_its_memory(monkeypatch: Any) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: "MemAvailable: 1000 kB")
    alone = memory.free(torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert (alone, memory.free(torch.device("cpu"))) == (1024000, 256000)


@pytest.mark.parametrize("algorithm", ["dpo", "reinforce"])
def test_steps_are_the_same_whatever_fits(algorithm: str, tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr(memory, "token_bytes", lambda *_: 10**9)

    def steps(room: int) -> list[list[float]]:
        """Of a record that takes 9 GB."""
        monkeypatch.setattr(memory, "lengths", lambda table, new_tokens: [1, 9])
        monkeypatch.setattr(memory, "free", lambda _: room * 18 * 10**9 + 10**9)
        folder = tmp_path / str(room)
        sizes = ["trainer.batch=8", "rollout.prompts=4", "rollout.samples=2", "trainer.max_steps=2", "trainer.logging_steps=1"]
        single.train(config.compose([f"algorithm={algorithm}", "trainer.eval_prompts=2", f"run_dir={folder}", *sizes]))
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [[row["loss"], row["grad_norm"]] for row in rows if "loss" in row]

    with caplog.at_level(logging.WARNING, "alignzoo"):
        whole = steps(room=8)
        assert not caplog.records
        cut = steps(room=3)
    assert len(whole) == 2 and "2 of 8 records at once" in caplog.text
    torch.testing.assert_close(torch.tensor(cut), torch.tensor(whole), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["dpo", "kto"])
def test_a_padded_step_is_the_same_by_length(algorithm: str, tmp_path: Path, monkeypatch: Any) -> None:
    """The same losses and gradients, of micro-batches that are others."""
    cut: dict[bool, list[list[int]]] = {}

    def steps(by_length: bool) -> list[list[float]]:
        folder = tmp_path / str(by_length)
        cut[by_length] = rows = []
        step = AlignTrainer.compute_loss
        monkeypatch.setattr(AlignTrainer, "compute_loss", lambda self, model, inputs, *a, **k: (
            rows.append(_rows(inputs)), step(self, model, inputs, *a, **k))[1])  # fmt: skip
        sizes = ["trainer.batch=8", "rollout.prompts=4", "rollout.samples=2", "trainer.max_steps=2", "trainer.logging_steps=1"]
        given = [f"algorithm={algorithm}", "trainer.eval_prompts=2", f"run_dir={folder}", "model.forward=padded", *sizes]
        single.train(config.compose([*given, "trainer.micro_batch=2", f"trainer.by_length={by_length}"]))
        monkeypatch.undo()
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [[row["loss"], row["grad_norm"]] for row in lines if "loss" in row]

    plain, arranged = steps(False), steps(True)
    assert cut[False] != cut[True] and sorted(chain(*cut[False])) == sorted(chain(*cut[True]))
    torch.testing.assert_close(torch.tensor(arranged), torch.tensor(plain), rtol=1e-4, atol=1e-6)


def _rows(inputs: Any) -> list[int]:
    return (inputs.chosen if isinstance(inputs, Pairs) else inputs).row.tolist()


def test_records_are_looked_at_all_over_the_data() -> None:
    class Growing:
        def __len__(self) -> int:
            return 100

        def batch(self, rows: list[int]) -> Prompts:
            (row,) = rows
            attended = torch.arange(200) >= 200 - row - 1
            return Prompts(ids=torch.zeros(1, 200).long(), attended=attended[None], row=torch.tensor(rows))

    found = memory.lengths(Growing(), new_tokens=7)
    assert found == [row + 1 + 7 for row in range(0, 100, 3)]  # every third of 100 rows, the last one among them
