"""Training on a GPU: every tensor where it belongs, and the losses of the CPU. Where there is none, one is pretended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.utils._python_dispatch import _disable_current_modes
from transformers import TrainingArguments

from alignzoo.config import compose, instantiate
from alignzoo.models.forward import varlen
from benchmarks.speed.ours import trainer_of
from tests.gpu import pretend
from tests.models.test_varlen import plain_backward, plain_forward

CUDA = torch.cuda.is_available()
TINY = [
    "experiment=exact", "data.prompts=4", "data.length=2", "data.vocabulary=4", "data.rows=32", "data.warmup_steps=4",
    "trainer.max_steps=2", "trainer.batch=8", "trainer.micro_batch=4", "trainer.logging_steps=1", "trainer.eval_steps=2",
    "trainer.eval_prompts=4", "rollout.prompts=4", "rollout.samples=2", "budget.unit=none", "budget.amount=0",
    "trainer.optimizer=sgd", "trainer.reference_samples=0",
]  # fmt: skip


@contextmanager
def a_gpu() -> Iterator[None]:
    """The one there is, or a pretended one with a kernel that computes plainly what the GPU's does."""
    if CUDA:
        yield
        return
    with pretend.gpu() as marks, pytest.MonkeyPatch.context() as patch:
        setup = TrainingArguments.device

        def kernel(plain: Any) -> Any:
            def compute(*arguments: Any, **keywords: Any) -> Any:
                with torch._C.DisableTorchFunction(), _disable_current_modes():
                    result = plain(*arguments, **keywords)
                return marks.put(result)

            return compute

        patch.setattr(TrainingArguments, "device", property(lambda self: (setup.fget(self), pretend.GPU)[1]))
        patch.setattr(Accelerator, "device", property(lambda self: pretend.GPU))
        patch.setattr(varlen, "able", lambda query, key, value, dropout: query.device.type == "cuda" and not dropout)
        patch.setattr(varlen, "flash", kernel(plain_forward))
        patch.setattr(varlen, "flash_backward", kernel(plain_backward))
        yield


def trained(overrides: list[str], folder: Path) -> tuple[torch.device, list[dict[str, float]]]:
    """Where the weights are, and what was logged."""
    folder.mkdir()
    trainer = trainer_of(instantiate(compose(overrides)), folder / "run", folder)
    trainer.train()
    return next(trainer.trained.parameters()).device, [row for row in trainer.state.log_history if "loss" in row]


PRETENDED = ("kto", "ppo", "distill")  # the rest is slow there, and takes the same ways
ALGORITHMS = (*PRETENDED, "sft", "dpo", "grpo", "reinforce", "bradley_terry")


@pytest.mark.parametrize("algorithm", ALGORITHMS if CUDA else PRETENDED)
def test_as_on_the_cpu(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*TINY, f"algorithm={algorithm}"]
    with a_gpu():
        device, there = trained(overrides, tmp_path / "gpu")
    assert device.type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device, here = trained(overrides, tmp_path / "cpu")
    assert device.type == "cpu" and len(here) == len(there) == 2
    for mine, theirs in zip(there, here, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4, abs=1e-5)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("precision", ["trainer.bf16=true", "model.dtype=bfloat16"])
@pytest.mark.parametrize("algorithm", ["dpo", "ppo"] if CUDA else ["dpo"])
def test_in_half_precision(algorithm: str, precision: str, tmp_path: Path) -> None:
    with a_gpu():
        device, rows = trained([*TINY, f"algorithm={algorithm}", precision], tmp_path / "gpu")
    assert device.type == "cuda" and all(abs(row["loss"]) < 10 and 0 < row["grad_norm"] < 1e4 for row in rows)


@pytest.mark.skipif(CUDA, reason="there is a real one")
def test_a_pretended_gpu_refuses_what_a_real_one_refuses() -> None:
    layer = torch.nn.Linear(2, 1)
    with pretend.gpu():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert there.device == (there + 1).device == there[torch.tensor([0])].device == (there * torch.tensor(2.0)).device
        assert there.to(torch.float64).device.type == "cuda" and there.cpu().device == here.device
        for wrong in (
            lambda: there + here,
            lambda: here[there.long()],
            lambda: torch.cat([here, there]),
            lambda: layer(there[:2]),
        ):
            with pytest.raises(RuntimeError, match="on the CPU"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        layer.to("cuda")(there[None, :2]).sum().backward()
        assert layer.weight.grad is not None and layer.weight.grad.device.type == "cuda"
