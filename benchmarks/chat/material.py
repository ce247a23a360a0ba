"""What the runs start from: conversations made of pairs of text, a student with half the layers, a template for TRL."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

ROWS, LONGEST, FEW = 400, 120, 10  # rows, characters of an answer, prompts of few.jsonl
# ChatML whose newlines come before turns: nothing follows the end of an answer, and TRL trains what we train
TEMPLATE = (
    "{% for m in messages %}{{ '' if loop.first else '\n' }}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n<|im_start|>assistant\n' }}{% endif %}"
)


def conversations(pairs: Path, folder: Path, rows: int = ROWS) -> None:
    """preferences.jsonl (prompt, chosen, rejected) and chats.jsonl (messages) of pairs of plain text; few.jsonl, the first
    preference of each of the first FEW prompts."""
    opened: Any = gzip.open if pairs.suffix == ".gz" else open
    with opened(pairs, "rt", encoding="utf-8") as lines:
        read = [json.loads(line) for line in lines]
    short = [row for row in read if all(0 < len(row[side].strip()) <= LONGEST for side in ("chosen", "rejected"))]
    random.Random(0).shuffle(short)
    folder.mkdir(parents=True, exist_ok=True)
    few: dict[str, str] = {}
    with (folder / "preferences.jsonl").open("w") as preferences, (folder / "chats.jsonl").open("w") as chats:
        for row in short[:rows]:
            prompt, chosen, rejected = (
                [{"role": role, "content": row[name].strip()}]
                for role, name in (("user", "prompt"), ("assistant", "chosen"), ("assistant", "rejected"))
            )
            pair = json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}) + "\n"
            preferences.write(pair)
            if len(few) < FEW:
                few.setdefault(row["prompt"], pair)
            chats.write(json.dumps({"messages": prompt + chosen}) + "\n")
    (folder / "few.jsonl").write_text("".join(few.values()))


def student(model: str, folder: Path) -> Path:
    """The model with every second of its layers, as `from_pretrained` loads it."""
    from torch import nn

    from alignzoo.models import modules
    from alignzoo.settings import Model

    settings = Model(path=model)
    words = modules.tokenizer(settings)
    module: Any = modules.policy(settings, modules.config(settings, words), seed=0)
    module.model.layers = nn.ModuleList(list(module.model.layers)[::2])
    module.config.num_hidden_layers = len(module.model.layers)
    if getattr(module.config, "layer_types", None):
        module.config.layer_types = module.config.layer_types[::2]
    module.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
