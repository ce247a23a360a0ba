"""TRL's side: `python -m benchmarks.speed.theirs JOB` (a file, see `job`).

Columns: tuned (float32, no checkpointing), default (bfloat16, checkpointing), best (the reference computed beforehand; packing;
by length; a static cache), accumulated (tuned, one record at a time, so that little is padded), compact (tuned, with the head
of the CUDA code path: scored rows only).
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignzoo_plugins.trl.base import in_order
from benchmarks.speed.job import Job
from benchmarks.speed.kinds import GATE, RATE, SAMPLES
from benchmarks.speed.meter import Meter
from benchmarks.speed.rewards import vowels

Maker = Callable[[Job, dict[str, Any]], Any]


def run(job: Job) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    if job.column == "compact":
        _compact()
    with tempfile.TemporaryDirectory() as run:
        meter = Meter(job.block)
        trainer = MAKERS[job.algorithm](job, arguments(job, run))
        losses = _replay(trainer, job) if job.completions else []
        trainer.add_callback(meter)
        trainer.train()
        figures = meter.found(trainer.model, Path(model(job)))
    size = job.kind.batch
    return figures | {"sampled": [length * size for length in figures["length"]]} | ({"loss": losses} if losses else {})


def arguments(job: Job, folder: str) -> dict[str, Any]:
    shared = {
        "output_dir": folder, "max_steps": job.steps, "per_device_train_batch_size": job.kind.batch, "learning_rate": RATE,
        "use_cpu": True, "lr_scheduler_type": "constant", "logging_steps": 1, "report_to": "none", "save_strategy": "no",
        "disable_tqdm": True, "seed": 0, "weight_decay": 0.0,
    }  # fmt: skip
    if job.column == "accumulated":
        shared |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": job.kind.batch}
    if job.completions:
        shared |= GATE["theirs"]
    return shared if job.column == "default" else shared | {"bf16": False, "gradient_checkpointing": False}


def rows(job: Job, every: bool = False) -> Any:
    """The rows of as many steps, or all of them."""
    from datasets import load_dataset

    data = load_dataset("json", data_files=str(Path(job.folder) / f"{job.kind.rows}-ordered.jsonl"), split="train")
    return data if every else data.select(range(min(len(data), job.steps * job.kind.batch)))


def model(job: Job) -> str:
    return str(Path(job.folder) / job.kind.model)


def _beforehand(job: Job) -> dict[str, Any]:
    return {"precompute_ref_log_probs": True} if job.column == "best" else {}


def dpo(job: Job, shared: dict[str, Any]) -> Any:
    from trl import DPOConfig, DPOTrainer

    args = DPOConfig(**shared, **_beforehand(job), max_length=None)
    return in_order(DPOTrainer)(model(job), args=args, train_dataset=rows(job))


def sft(job: Job, shared: dict[str, Any]) -> Any:
    from trl import SFTConfig, SFTTrainer

    packed = {"packing": True, "max_length": 1024, "per_device_train_batch_size": 1}
    args = SFTConfig(**(shared | (packed if job.column == "best" else {"max_length": None})))
    return in_order(SFTTrainer)(model(job), args=args, train_dataset=rows(job, every=True))


def reward(job: Job, shared: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    data = rows(job, every=job.column == "best")
    if job.column != "best":
        return in_order(RewardTrainer)(model(job), args=RewardConfig(**shared, max_length=None), train_dataset=data)
    tokenizer = AutoTokenizer.from_pretrained(model(job))

    def tokens(row: dict[str, str]) -> dict[str, Any]:
        ids = {f"{side}_ids": tokenizer(row["prompt"] + row[side] + "<eos>")["input_ids"] for side in ("chosen", "rejected")}
        return {**ids, "length": max(map(len, ids.values()))}

    data = data.map(tokens, remove_columns=data.column_names)
    args = RewardConfig(**shared, max_length=None, train_sampling_strategy="group_by_length", remove_unused_columns=False)
    return RewardTrainer(model(job), args=args, train_dataset=data)


def kto(job: Job, shared: dict[str, Any]) -> Any:
    from trl import KTOConfig, KTOTrainer

    args = KTOConfig(**shared, **_beforehand(job), max_length=None)
    return in_order(KTOTrainer)(model(job), args=args, train_dataset=rows(job))


def _prompts(job: Job) -> Any:
    data = rows(job, every=True)
    return data.remove_columns([name for name in data.column_names if name != "prompt"])


def _sampling(job: Job, shared: dict[str, Any], **more: Any) -> dict[str, Any]:
    static = {"cache_implementation": "static"} if job.column == "best" else {}
    return shared | static | {"max_completion_length": job.new_tokens, "shuffle_dataset": False} | more


def rloo(job: Job, shared: dict[str, Any]) -> Any:
    from trl import RLOOConfig, RLOOTrainer

    args = RLOOConfig(**_sampling(job, shared, num_generations=SAMPLES, beta=0.05))
    return RLOOTrainer(model(job), reward_funcs=vowels, args=args, train_dataset=_prompts(job))


def grpo(job: Job, shared: dict[str, Any]) -> Any:
    from trl import GRPOConfig, GRPOTrainer

    same = {
        "loss_type": "grpo", "beta": 0.04, "scale_rewards": "group", "num_generations": SAMPLES,
        "use_bias_correction_kl": False,
    }  # fmt: skip
    args = GRPOConfig(**_sampling(job, shared, **same))
    return GRPOTrainer(model(job), reward_funcs=vowels, args=args, train_dataset=_prompts(job))


def distillation(job: Job, shared: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM
    from trl import DistillationConfig, DistillationTrainer

    teacher = AutoModelForCausalLM.from_pretrained(str(Path(job.folder) / "teacher"))
    args = DistillationConfig(**_sampling(job, shared, beta=0.5))
    return DistillationTrainer(model(job), teacher_model=teacher, args=args, train_dataset=_prompts(job))


MAKERS: dict[str, Maker] = {
    "dpo": dpo, "sft": sft, "bradley_terry": reward, "kto": kto, "rloo": rloo, "grpo": grpo, "distill": distillation,
}  # fmt: skip


def _compact() -> None:
    """The head as on CUDA, where it runs on scored rows only."""
    import trl.trainer.distillation_trainer
    import trl.trainer.utils

    for module in (trl.trainer.utils, trl.trainer.distillation_trainer):
        module._use_triton = lambda device: True


def _replay(trainer: Any, job: Job) -> list[float]:
    """Give it the completions that alignzoo sampled; returns the list that its losses will be written into, where it logs
    another one than ours."""
    rollouts = iter(json.loads(Path(job.completions).read_text())["rollouts"])

    def generate(prompts: list[list[int]], *_: Any, **__: Any) -> Any:
        rollout = next(rollouts)
        if rollout["prompts"] != prompts:
            raise ValueError("the two programs read other prompts")
        return (rollout["completions"], None) if job.algorithm == "grpo" else rollout["completions"]

    trainer._generate_single_turn = generate
    return _score_function(trainer) if job.algorithm == "rloo" else []


def _score_function(trainer: Any) -> list[float]:
    """RLOO's loss in TRL is minus the mean of ratio times advantage, 0 whatever the policy; ours, of the same gradient, has the
    log-prob in place of the ratio. This notes ours, made of what TRL has computed."""
    losses: list[float] = []
    inner, log_probs = trainer._compute_loss, trainer._get_per_token_logps_and_entropies

    def compute(network: Any, inputs: dict[str, Any]) -> Any:
        seen: list[Any] = []

        def listen(*arguments: Any, **keywords: Any) -> Any:
            outputs = log_probs(*arguments, **keywords)
            seen.append(outputs[0].detach())
            return outputs

        trainer._get_per_token_logps_and_entropies = listen
        loss = inner(network, inputs)
        trainer._get_per_token_logps_and_entropies = log_probs
        losses.append(float(-(inputs["advantages"] * (seen[0] * inputs["completion_mask"]).sum(1)).mean()))
        return loss

    trainer._compute_loss = compute
    return losses


if __name__ == "__main__":
    Job.main(run, sys.argv[1])
