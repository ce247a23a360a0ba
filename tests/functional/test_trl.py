"""Losses and gradients of SFT, DPO, KTO, GRPO and distillation equal TRL's, on the batches that TRL's own trainers collate."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from alignzoo.batch import Completions, Pairs, Prompts, Rated
from alignzoo.functional import forward_kl, generalised_jsd, reverse_kl
from alignzoo.models.forward import padded
from alignzoo.models.tokenizers import byte_level
from alignzoo.settings import Sampling
from alignzoo.testing.fakes import FakeModels, TablePolicy
from alignzoo_plugins.dpo.dpo import DPO
from alignzoo_plugins.grpo.grpo import GRPO, Average, Grouped, Ratio
from alignzoo_plugins.kto.kto import KTO, ReferencePoint
from alignzoo_plugins.sft.sft import SFT

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's and its dependencies' own
PAIRS = [("What is 1+1?", " 2", " three or so"), ("Say hi.", " Hi there, friend", " no"), ("A?", " B", " C")]


class ModulePolicy(TablePolicy):
    """A Hugging Face module in a table's place."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def logits(self, c: Completions) -> Tensor:
        return padded.logits(self.module, c)


def model(seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(byte_level()), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.5, pad_token_id=byte_level().pad_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def options(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none",
        "per_device_train_batch_size": len(PAIRS), "max_length": None,
    }  # fmt: skip


def completions(ids: Tensor, attended: Tensor, completed: Tensor) -> Completions:
    """Rows of prompt and completion in one sequence, as records."""
    prompts = [row[keep & ~done] for row, keep, done in zip(ids, attended, completed, strict=True)]
    answers = [row[done] for row, done in zip(ids, completed, strict=True)]
    left = pad_sequence([p.flip(0) for p in prompts], batch_first=True, padding_value=-1).flip(1)
    right = pad_sequence(answers, batch_first=True, padding_value=-1)
    rows = torch.arange(len(ids))
    return Completions(
        prompts=Prompts(ids=left.clamp(min=0), attended=left >= 0, row=rows), prompt_of=rows, ids=right.clamp(min=0),
        attended=right >= 0, scored=right >= 0, truncated=torch.zeros(len(ids), dtype=torch.bool), row=rows,
    )  # fmt: skip


def gradients(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    module.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_same(mine: Tensor, module: nn.Module, theirs: Tensor, their_module: nn.Module) -> None:
    """Values and every parameter's gradient, relative to its largest entry, to 1e-5."""
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    own, other = gradients(mine, module), gradients(theirs, their_module)
    assert own.keys() == other.keys() and len(own) > 10
    for name, gradient in other.items():
        scale = gradient.abs().max().item()
        assert scale > 0
        torch.testing.assert_close(own[name], gradient, rtol=1e-5, atol=1e-5 * scale)


def test_sft(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_list([{"prompt": prompt, "completion": answer} for prompt, answer, _ in PAIRS])
    module = model(0)
    theirs = copy.deepcopy(module)
    trainer = SFTTrainer(theirs, args=SFTConfig(**options(tmp_path)), train_dataset=rows, processing_class=byte_level())
    batch = next(iter(trainer.get_train_dataloader()))
    c = completions(batch["input_ids"], batch["attention_mask"].bool(), batch["labels"] != -100)
    terms, _ = SFT().loss(FakeModels(ModulePolicy(module)), c)
    assert_same(terms.sum() / c.scored.sum(), module, trainer.compute_loss(theirs, batch), theirs)


@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_dpo(tmp_path: Path, beta: float) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = Dataset.from_list([{"prompt": p, "chosen": good, "rejected": bad} for p, good, bad in PAIRS])
    module, reference = model(0), model(1)
    theirs = copy.deepcopy(module)
    arguments = DPOConfig(**options(tmp_path), beta=beta)
    trainer = DPOTrainer(
        theirs, ref_model=copy.deepcopy(reference), args=arguments, train_dataset=rows, processing_class=byte_level()
    )
    batch = next(iter(trainer.get_train_dataloader()))
    both = completions(batch["input_ids"], batch["attention_mask"].bool(), batch["completion_mask"].bool())
    chosen, rejected = both.take(range(3)), both.take(range(3, 6))
    models = FakeModels(ModulePolicy(module), reference=ModulePolicy(reference.requires_grad_(False)))
    terms, metrics = DPO(beta=beta).loss(models, Pairs(chosen=chosen, rejected=rejected))
    assert_same(terms.mean(), module, trainer.compute_loss(theirs, batch), theirs)
    logged = trainer._metrics["eval"]
    assert metrics["rewards/margin"].mean().item() == pytest.approx(logged["rewards/margins"][0], rel=1e-4)
    assert metrics["rewards/accuracy"].mean().item() == pytest.approx(logged["rewards/accuracies"][0])


@pytest.mark.parametrize("kind", ["kto", "apo_zero_unpaired"])
def test_kto(tmp_path: Path, kind: str) -> None:
    """The four records are TRL's micro-batch and our optimizer step, so both estimate the reference point from the same."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    labels = [True, False, False, True]
    texts = [*PAIRS, ("Go?", "", " never")]
    rows = Dataset.from_list([{"prompt": p, "completion": t, "label": k} for (p, _, t), k in zip(texts, labels, strict=True)])
    module, reference = model(0), model(1)
    theirs = copy.deepcopy(module)
    arguments = KTOConfig(
        **options(tmp_path) | {"per_device_train_batch_size": 4}, beta=0.3, loss_type=kind, undesirable_weight=1.5
    )
    trainer = KTOTrainer(
        theirs, ref_model=copy.deepcopy(reference), args=arguments, train_dataset=rows, processing_class=byte_level()
    )
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    c = completions(batch["input_ids"], batch["attention_mask"].bool(), batch["completion_mask"].bool())
    models = FakeModels(ModulePolicy(module), reference=ModulePolicy(reference.requires_grad_(False)))
    algorithm = KTO(
        beta=0.3, undesirable_weight=1.5, reference_point=ReferencePoint.kl if kind == "kto" else ReferencePoint.zero
    )
    with torch.no_grad():
        (judged,) = algorithm.prepare(models, [Rated(**vars(c), rating=torch.tensor(labels).float())])
    terms, _ = algorithm.loss(models, judged)
    assert_same(terms.mean(), module, trainer.compute_loss(theirs, batch), theirs)
    assert judged.reference_point[0].item() == pytest.approx(trainer._metrics["eval"]["kl"][0], rel=1e-4)


GROUPED = {  # settings of ours and of TRL
    "grpo": ({"beta": 0.04}, {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": False}),
    "weighed": ({"beta": 0.04, "weigh_kl": True}, {"loss_type": "grpo", "beta": 0.04}),
    "dr_grpo": ({"beta": 0.0, "average": Average.constant}, {"loss_type": "dr_grpo"}),
    "dapo": (
        {"beta": 0.04, "clip_high": 0.28, "average": Average.token},
        {"loss_type": "dapo", "beta": 0.04, "epsilon_high": 0.28, "use_bias_correction_kl": False},
    ),
    "gspo": (
        {"beta": 0.0, "clip": 3e-2, "clip_high": 4e-2, "ratio": Ratio.completion},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-2, "epsilon_high": 4e-2},
    ),
}


@pytest.mark.parametrize("name", GROUPED)
def test_grpo(tmp_path: Path, name: str) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    ours, their_settings = GROUPED[name]
    module = model(0)
    module.save_pretrained(tmp_path)
    theirs = copy.deepcopy(module)
    theirs.config._name_or_path = str(tmp_path)  # where TRL looks for the reference
    shared = options(tmp_path) | {"per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 9}
    shared.pop("max_length")
    trainer = GRPOTrainer(
        theirs, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=GRPOConfig(**shared, **their_settings),
        train_dataset=Dataset.from_list([{"prompt": p} for p, _, _ in PAIRS]), processing_class=byte_level(),
    )  # fmt: skip
    theirs.eval()
    torch.manual_seed(0)
    width, rows = 4, torch.arange(3)
    scored = torch.arange(width) < torch.tensor([[4], [2], [3]])
    c = Completions(
        prompts=Prompts(ids=torch.randint(3, 200, (3, 5)), attended=torch.ones(3, 5, dtype=torch.bool), row=rows),
        prompt_of=rows, ids=torch.randint(3, 200, (3, width)) * scored, attended=scored, scored=scored,
        truncated=torch.zeros(3, dtype=torch.bool), row=rows,
    )  # fmt: skip
    with torch.no_grad():
        now = ModulePolicy(module).logprobs(c)
    old, reference = (torch.where(scored, now + 0.3 * torch.randn(now.shape), 0) for _ in range(2))
    advantages = torch.tensor([1.0, -0.5, 2.0])
    batch = Grouped(**vars(c), old_logprobs=old, advantages=advantages, reward=advantages, reference_logprobs=reference)
    batch = batch if ours["beta"] else replace(batch, reference_logprobs=None)
    given = FakeModels(ModulePolicy(module), sampling=Sampling(max_new_tokens=9))
    terms, _ = GRPO(**ours).loss(given, batch)
    mine = terms[scored].mean() if terms.dim() == 2 else terms.mean()
    inputs = {
        "prompt_ids": c.prompts.ids, "prompt_mask": c.prompts.attended.long(), "completion_ids": c.ids,
        "completion_mask": scored.long(), "advantages": advantages, "old_per_token_logps": old,
        "ref_per_token_logps": reference, "num_items_in_batch": scored.sum().float(),
    }  # fmt: skip
    assert_same(mine, module, trainer._compute_loss(theirs, inputs), theirs)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_generalised_jsd(beta: float) -> None:
    """TRL's beta 0 and 1 are forward and reverse KL."""
    gkd = pytest.importorskip("trl.experimental.gkd")
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, 11).mul(3)
    student.requires_grad_()
    labels = torch.randint(0, 11, (3, 5)).masked_fill(torch.rand(3, 5) < 0.3, -100)
    theirs = gkd.GKDTrainer.generalized_jsd_loss(student, teacher, labels, beta=beta, temperature=0.7)
    named = {0.0: forward_kl, 1.0: reverse_kl}
    mine = named[beta](student, teacher, 0.7) if beta in named else generalised_jsd(student, teacher, beta, 0.7)
    mine = mine[labels != -100].mean()
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*(torch.autograd.grad(x, student)[0] for x in (mine, theirs)), rtol=1e-5, atol=1e-7)
