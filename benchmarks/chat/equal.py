"""The next step's loss and gradient norm, from one saved network five steps away from its reference, here and in TRL."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from alignzoo.data.encode import Encoder
from benchmarks.chat.material import TEMPLATE, conversations

ROWS, BEFORE = 32, 5
RATE = 1e-5
OURS = {"dpo": "dpo", "reward": "bradley_terry", "apo_zero_unpaired": "apo_zero_unpaired", "sft": "sft"}


def compare(name: str, model: str, pairs: Path, folder: Path) -> dict[str, Any]:
    """Step six of ours, all rows in each step, beside the first of TRL's from the checkpoint of step five."""
    material = folder / "equal"
    conversations(pairs, material, ROWS)
    (material / "template.jinja").write_text(TEMPLATE)
    ours = _ours(name, model, material)
    theirs = _theirs(name, model, material)
    return {"kind": "equal", "what": name, "ours": ours, "theirs": theirs}


def _data(name: str) -> str:
    return "chats.jsonl" if name == "sft" else "preferences.jsonl"


def _ours(name: str, model: str, material: Path) -> dict[str, float]:
    run = material / name
    overrides = [
        f"algorithm={OURS[name]}", "data=jsonl", f"data.path={material / _data(name)}", "data.heldout=0", "model=hf",
        f"model.path={model}", f"data.chat_template={material / 'template.jinja'}", f"trainer.batch={ROWS}",
        f"trainer.max_steps={BEFORE + 1}", f"trainer.save_steps={BEFORE}", "trainer.logging_steps=1",
        f"trainer.learning_rate={RATE}", "trainer.max_grad_norm=1e9", "trainer.eval_prompts=1",
        "generation.max_new_tokens=4", f"run_dir={run}",
    ]  # fmt: skip
    if name == "apo_zero_unpaired":
        overrides[7] = f"trainer.batch={2 * ROWS}"  # ratings, two of each pair
    if not (run / "summary.json").exists():
        subprocess.run([sys.executable, "-m", "alignzoo", "train", *overrides], check=True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = next(row for row in rows if row["step"] == BEFORE + 1 and "loss" in row)
    return {"loss": last["loss"], "grad_norm": last["grad_norm"], "tokens": _trained(run, material) if name == "sft" else 0}


def _trained(run: Path, material: Path) -> int:
    """How many tokens of the conversations are scored."""
    from transformers import AutoTokenizer

    encoder = Encoder.beside(str(run / "model"), AutoTokenizer.from_pretrained(run / "model"))
    assert encoder is not None
    rows = [json.loads(line)["messages"] for line in (material / _data("sft")).read_text().splitlines()]
    encoded = encoder.encode([row[:1] for row in rows], [[row[1:]] for row in rows])
    return sum(sum(answer.scored) for _, answers in encoded for answer in answers)


def _theirs(name: str, model: str, material: Path) -> dict[str, float]:
    import torch
    import trl
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from alignzoo.models.loading import Location

    start = material / name / "checkpoints" / f"checkpoint-{BEFORE}"
    words = AutoTokenizer.from_pretrained(start)
    words.chat_template = TEMPLATE
    if words.pad_token == words.eos_token:
        words.pad_token = words.convert_ids_to_tokens(0)
    trainer, more = {
        "dpo": (trl.DPOTrainer, {}), "reward": (trl.RewardTrainer, {}), "sft": (trl.SFTTrainer, {}),
        "apo_zero_unpaired": (trl.KTOTrainer, {"loss_type": "apo_zero_unpaired"}),
    }[name]  # fmt: skip
    kind: Any = AutoModelForSequenceClassification if name == "reward" else AutoModelForCausalLM
    data = load_dataset("json", data_files=str(material / _data(name)), split="train")
    if name == "sft":
        data = data.map(
            lambda row: {"prompt": row["messages"][:1], "completion": row["messages"][1:]}, remove_columns="messages"
        )
    if name == "apo_zero_unpaired":
        data = trl.data_utils.unpair_preference_dataset(data)
    shared = {
        "output_dir": str(material / f"trl-{name}"),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": len(data) // 4,
        "max_steps": 1,
        "logging_steps": 1,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1e9,
        "report_to": "none",
        "save_strategy": "no",
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": None,
        "use_cpu": not torch.cuda.is_available(),
    }
    config = getattr(trl, trainer.__name__.replace("Trainer", "Config"))(**shared, **more)
    arguments: dict[str, Any] = {"args": config, "train_dataset": data, "processing_class": words}
    if name in ("dpo", "apo_zero_unpaired"):
        arguments["ref_model"] = Location.of(model, "model").network(AutoModelForCausalLM, dtype=torch.float32)
    hosted = trainer(model=kind.from_pretrained(start, dtype=torch.float32), **arguments)
    tokens = sum(label != -100 for row in hosted.train_dataset["labels"] for label in row) if name == "sft" else 0
    hosted.train()
    row = next(row for row in hosted.state.log_history if "loss" in row)
    return {"loss": row["loss"], "grad_norm": row["grad_norm"], "tokens": tokens}
