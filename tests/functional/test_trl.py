"""Losses and gradients equal TRL's: SFT, DPO and its family, KTO, GRPO, distillation, on batches that its trainers collate."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from alignzoo.batch import Completions, Pairs, Prompts, Rated, Triples
from alignzoo.functional import decoupled_advantages, forward_kl, generalised_jsd, reverse_kl
from alignzoo.models.forward import padded
from alignzoo.models.tokenizers import byte_level
from alignzoo.settings import Sampling
from alignzoo.testing.fakes import FakeModels, TablePolicy
from alignzoo_plugins.distill.self_distill import SelfDistill
from alignzoo_plugins.dpo.dpo import DPO
from alignzoo_plugins.grpo.cispo import CISPO
from alignzoo_plugins.grpo.gmpo import GMPO
from alignzoo_plugins.grpo.grouped import Grouped
from alignzoo_plugins.grpo.grpo import GRPO, Average, Ratio
from alignzoo_plugins.grpo.high_entropy import HighEntropy, uncertain
from alignzoo_plugins.grpo.rloo_trl import RLOOTRL
from alignzoo_plugins.grpo.sapo import SAPO
from alignzoo_plugins.grpo.vespo import VESPO
from alignzoo_plugins.kto.kto import KTO, ReferencePoint
from alignzoo_plugins.kto.kto_trl import KTOTRL
from alignzoo_plugins.paired.aot import AOT
from alignzoo_plugins.paired.aot_unpaired import AOTUnpaired
from alignzoo_plugins.paired.apo_down import APODown
from alignzoo_plugins.paired.apo_zero import APOZero
from alignzoo_plugins.paired.bco_pair import BCOPair
from alignzoo_plugins.paired.cpo import CPO
from alignzoo_plugins.paired.discopop import DiscoPOP
from alignzoo_plugins.paired.exo import EXO
from alignzoo_plugins.paired.f_dpo import FDPO, Divergence
from alignzoo_plugins.paired.hinge import Hinge
from alignzoo_plugins.paired.ipo import IPO
from alignzoo_plugins.paired.ld_dpo import LDDPO
from alignzoo_plugins.paired.nca import NCA
from alignzoo_plugins.paired.robust import Robust
from alignzoo_plugins.paired.simpo import SimPO
from alignzoo_plugins.paired.sppo_hard import SPPOHard
from alignzoo_plugins.paired.tpo import TPO
from alignzoo_plugins.paired.wpo import WPO
from alignzoo_plugins.sft.dft import DFT
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
        initializer_range=0.3, pad_token_id=byte_level().pad_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config).double().eval()  # TRL rounds to float32 in its head alone


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
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6, check_dtype=False)
    own, other = gradients(mine, module), gradients(theirs, their_module)
    assert own.keys() == other.keys() and len(own) > 10
    for name, gradient in other.items():
        scale = gradient.abs().max().item()
        assert scale > 0
        torch.testing.assert_close(own[name], gradient, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("kind", ["nll", "dft"])
def test_sft(tmp_path: Path, kind: str) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_list([{"prompt": prompt, "completion": answer} for prompt, answer, _ in PAIRS])
    module = model(0)
    theirs = copy.deepcopy(module)
    arguments = SFTConfig(**options(tmp_path), loss_type=kind)
    trainer = SFTTrainer(theirs, args=arguments, train_dataset=rows, processing_class=byte_level())
    batch = next(iter(trainer.get_train_dataloader()))
    c = completions(batch["input_ids"], batch["attention_mask"].bool(), batch["labels"] != -100)
    terms, _ = (SFT() if kind == "nll" else DFT()).loss(FakeModels(ModulePolicy(module)), c)
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


# by TRL's name; TRL's alpha divergence counts from 1, f' = (u^(a - 1) - 1) / (a - 1), the paper's, ours, is a = 1 - alpha
PAIRED = {
    "hinge": (Hinge(beta=0.3), {"loss_type": "hinge"}),
    "ipo": (IPO(beta=0.3), {"loss_type": "ipo"}),
    "exo_pair": (EXO(beta=0.3, label_smoothing=0.1), {"loss_type": "exo_pair", "label_smoothing": 0.1}),
    "nca_pair": (NCA(beta=0.3), {"loss_type": "nca_pair"}),
    "robust": (Robust(beta=0.3, label_smoothing=0.2), {"loss_type": "robust", "label_smoothing": 0.2}),
    "bco_pair": (BCOPair(beta=0.3), {"loss_type": "bco_pair"}),
    "sppo_hard": (SPPOHard(beta=0.3), {"loss_type": "sppo_hard"}),
    "aot": (AOT(beta=0.3, label_smoothing=0.1), {"loss_type": "aot", "label_smoothing": 0.1}),
    "aot_unpaired": (AOTUnpaired(beta=0.3, label_smoothing=0.1), {"loss_type": "aot_unpaired", "label_smoothing": 0.1}),
    "ld_dpo": (LDDPO(beta=0.3, alpha=0.4), {"ld_alpha": 0.4}),
    "apo_zero": (APOZero(beta=0.3), {"loss_type": "apo_zero"}),
    "apo_down": (APODown(beta=0.3), {"loss_type": "apo_down"}),
    "discopop": (DiscoPOP(beta=0.05, tau=0.5), {"loss_type": "discopop", "discopop_tau": 0.5}),
    "forward_kl": (FDPO(beta=0.001, divergence=Divergence.forward_kl), {"f_divergence_type": "forward_kl"}),
    "js_divergence": (FDPO(beta=0.3, divergence=Divergence.jensen_shannon), {"f_divergence_type": "js_divergence"}),
    "alpha_divergence": (
        FDPO(beta=0.3, divergence=Divergence.alpha, alpha=0.3),
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.7},
    ),
    "wpo": (WPO(beta=0.3), {"use_weighting": True}),
}


@pytest.mark.parametrize("name", PAIRED)
def test_losses_on_pairs(tmp_path: Path, name: str) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    algorithm, settings = PAIRED[name]
    rows = Dataset.from_list([{"prompt": p, "chosen": good, "rejected": bad} for p, good, bad in PAIRS])
    module, reference = model(0), model(1)
    theirs = copy.deepcopy(module)
    arguments = DPOConfig(**options(tmp_path), beta=algorithm.beta, **settings)
    trainer = DPOTrainer(
        theirs, ref_model=copy.deepcopy(reference), args=arguments, train_dataset=rows, processing_class=byte_level()
    )
    batch = next(iter(trainer.get_train_dataloader()))
    both = completions(batch["input_ids"], batch["attention_mask"].bool(), batch["completion_mask"].bool())
    models = FakeModels(ModulePolicy(module), reference=ModulePolicy(reference.requires_grad_(False)))
    terms, _ = algorithm.loss(models, Pairs(chosen=both.take(range(3)), rejected=both.take(range(3, 6))))
    assert_same(terms.mean(), module, trainer.compute_loss(theirs, batch), theirs)


@pytest.mark.parametrize("name", ["cpo", "simpo"])
def test_losses_on_pairs_without_a_reference(tmp_path: Path, name: str) -> None:
    """CPO's likelihood is the mean over the step's tokens, as TRL's over its micro-batch."""
    from datasets import Dataset
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    algorithm = CPO(beta=0.3, alpha=0.7) if name == "cpo" else SimPO(beta=0.3, margin=0.2)
    settings = {"cpo_alpha": 0.7} if name == "cpo" else {"loss_type": "simpo", "simpo_gamma": 0.2, "cpo_alpha": 0.0}
    rows = Dataset.from_list([{"prompt": p, "chosen": good, "rejected": bad} for p, good, bad in PAIRS])
    module = model(0)
    theirs = copy.deepcopy(module)
    arguments = CPOConfig(**options(tmp_path), beta=0.3, **settings)
    trainer = CPOTrainer(theirs, args=arguments, train_dataset=rows, processing_class=byte_level())
    batch = next(iter(trainer.get_train_dataloader()))
    sides = [
        completions(batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"].bool(), batch[f"{side}_labels"] != -100)
        for side in ("chosen", "rejected")
    ]
    pairs = Pairs(chosen=sides[0], rejected=sides[1])
    terms, _ = algorithm.loss(FakeModels(ModulePolicy(module)), pairs)
    if isinstance(terms, dict):
        weight = algorithm.weights(pairs)["nll"]
        terms = terms["preference"].mean() + (terms["nll"] * weight).sum() / weight.sum()
    assert_same(terms.mean(), module, trainer.compute_loss(theirs, batch), theirs)


def test_tpo(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl.experimental.tpo import TPOConfig, TPOTrainer

    rows = Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r, "reference": f"{c}, surely"} for p, c, r in PAIRS])
    module = model(0)
    theirs = copy.deepcopy(module)
    arguments = TPOConfig(**options(tmp_path), beta=0.3, tpo_alpha=0.7)
    trainer = TPOTrainer(theirs, args=arguments, train_dataset=rows, processing_class=byte_level())
    batch = next(iter(trainer.get_train_dataloader()))
    c = completions(batch["input_ids"], batch["attention_mask"].bool(), batch["completion_mask"].bool())
    triples = Triples(chosen=c.take(range(3)), rejected=c.take(range(3, 6)), demonstration=c.take(range(6, 9)))
    algorithm = TPO(beta=0.3, alpha=0.7)
    terms, _ = algorithm.loss(FakeModels(ModulePolicy(module)), triples)
    weight = algorithm.weights(triples)["nll"]
    mine = terms["preference"].mean() + (terms["nll"] * weight).sum() / weight.sum()
    assert_same(mine, module, trainer.compute_loss(theirs, batch), theirs)


@pytest.mark.parametrize("kind", ["kto", "apo_zero_unpaired", "kto_trl"])
def test_kto(tmp_path: Path, kind: str) -> None:
    """The four records are TRL's micro-batch and our optimizer step, so both estimate the reference point from the same; of two
    prompts that repeat, TRL puts their own completions under two of them, and so does `kto_trl`."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    labels = [True, False, False, True]
    texts = [*PAIRS[:2], PAIRS[1], ("Go?", "", " never")] if kind == "kto_trl" else [*PAIRS, ("Go?", "", " never")]
    rows = Dataset.from_list([{"prompt": p, "completion": t, "label": k} for (p, _, t), k in zip(texts, labels, strict=True)])
    module, reference = model(0), model(1)
    theirs = copy.deepcopy(module)
    arguments = KTOConfig(
        **options(tmp_path) | {"per_device_train_batch_size": 4},
        beta=0.3,
        undesirable_weight=1.5,
        loss_type=kind.removesuffix("_trl"),
    )
    trainer = KTOTrainer(
        theirs, ref_model=copy.deepcopy(reference), args=arguments, train_dataset=rows, processing_class=byte_level()
    )
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    c = completions(batch["input_ids"], batch["attention_mask"].bool(), batch["completion_mask"].bool())
    models = FakeModels(ModulePolicy(module), reference=ModulePolicy(reference.requires_grad_(False)))
    algorithm = {
        "kto": KTO(beta=0.3, undesirable_weight=1.5),
        "apo_zero_unpaired": KTO(beta=0.3, undesirable_weight=1.5, reference_point=ReferencePoint.zero),
        "kto_trl": KTOTRL(beta=0.3, undesirable_weight=1.5),
    }[kind]
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
    "grpo_trl": ({"beta": 0.0, "average": Average.token}, {}),
    "dual_clip": ({"beta": 0.0, "average": Average.token, "dual_clip": 1.3}, {"delta": 1.3}),
    "luspo": (
        {"beta": 0.0, "clip": 3e-2, "clip_high": 4e-2, "ratio": Ratio.completion, "average": Average.sum},
        {"loss_type": "luspo", "importance_sampling_level": "sequence", "epsilon": 3e-2, "epsilon_high": 4e-2},
    ),
}

SURROGATES = {  # an algorithm of ours, and the settings of TRL
    "cispo": (CISPO(beta=0.04, high=1.2), {"loss_type": "cispo", "beta": 0.04, "epsilon_high": 1.2}),
    "sapo": (
        SAPO(beta=0.04, temperature=0.7, temperature_negative=3.0),
        {"loss_type": "sapo", "beta": 0.04, "sapo_temperature_pos": 0.7, "sapo_temperature_neg": 3.0},
    ),
    "gmpo": (GMPO(clip=0.2), {"epsilon": 0.2}),
    "vespo": (VESPO(beta=0.04), {"loss_type": "vespo", "beta": 0.04}),
    "high_entropy": (HighEntropy(share=0.5), {"top_entropy_quantile": 0.5}),
    "rloo_trl": (RLOOTRL(beta=0.0), {"beta": 0.0}),
}


@pytest.mark.parametrize("name", GROUPED | SURROGATES)
def test_grpo(tmp_path: Path, name: str) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
    from trl.experimental.gmpo import GMPOConfig, GMPOTrainer

    kinds = {"gmpo": (GMPOTrainer, GMPOConfig), "rloo_trl": (RLOOTrainer, RLOOConfig)}
    algorithm, their_settings = SURROGATES[name] if name in SURROGATES else (GRPO(**GROUPED[name][0]), GROUPED[name][1])
    kind, config = kinds.get(name, (GRPOTrainer, GRPOConfig))
    module = model(0)
    module.save_pretrained(tmp_path)
    theirs = copy.deepcopy(module)
    theirs.config._name_or_path = str(tmp_path)  # where TRL looks for the reference
    shared = options(tmp_path) | {"per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 9}
    shared.pop("max_length")
    trainer = kind(
        theirs, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=config(**shared, **their_settings),
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
    batch = batch if algorithm.beta else replace(batch, reference_logprobs=None)
    given = FakeModels(ModulePolicy(module), sampling=Sampling(max_new_tokens=9))
    if isinstance(algorithm, HighEntropy):
        with torch.no_grad():
            batch = replace(batch, advantages=advantages[:, None] * uncertain(given, c, scored, algorithm.share))
    terms, _ = algorithm.loss(given, batch)
    mine = terms[scored].mean() if terms.dim() == 2 else terms.mean()
    inputs = {
        "prompt_ids": c.prompts.ids, "prompt_mask": c.prompts.attended.long(), "completion_ids": c.ids,
        "completion_mask": scored.long(), "advantages": advantages, "old_per_token_logps": old,
        "ref_per_token_logps": reference, "num_items_in_batch": scored.sum().float(),
        "old_logps": old.sum(1),
    }  # fmt: skip
    assert_same(mine, module, trainer._compute_loss(theirs, inputs), theirs)


def test_gdpo(tmp_path: Path) -> None:
    """Two rewards, the second with weight 1/2; three prompts with two samples each, of which the last are all equal."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    rewards = [[1.0, 0.0, 0.0, 0.0, 1.0, 1.0], [0.3, 2.0, -4.0, 1.0, 0.5, 0.5]]
    shared = options(tmp_path) | {"per_device_train_batch_size": 6, "num_generations": 2, "max_completion_length": 3}
    shared.pop("max_length")
    trainer = GRPOTrainer(
        model(0), reward_funcs=[lambda values=values, **_: values for values in rewards],
        args=GRPOConfig(**shared, multi_objective_aggregation="normalize_then_sum", reward_weights=[1.0, 0.5]),
        train_dataset=Dataset.from_list([{"prompt": p} for p, _, _ in PAIRS]), processing_class=byte_level(),
    )  # fmt: skip
    rows = [{"prompt": prompt} for prompt, _, _ in PAIRS for _ in range(2)]
    theirs = trainer._generate_and_score_completions(rows)["advantages"]
    group, valid = torch.tensor([0, 0, 1, 1, 2, 2]), torch.ones(6, dtype=torch.bool)
    mine = decoupled_advantages(torch.tensor(rewards), torch.tensor([1.0, 0.5]), group, valid)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_self_distillation(beta: float) -> None:
    losses = pytest.importorskip("trl.experimental.sdft.loss_utils")
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 11).mul(3)
    theirs = losses.compute_full_logit_self_distillation_loss(student, teacher, distillation_alpha=beta)
    torch.testing.assert_close(SelfDistill(beta=beta).distance(student, teacher), theirs, rtol=1e-5, atol=1e-6)
