"""A task and a model on which TRL's trainers take seconds."""

import json
from pathlib import Path

EXACT = [
    "data.prompts=4", "data.vocabulary=4", "data.length=3", "data.rows=256", "data.warmup_steps=30",
    "generation.max_new_tokens=3",
    "model.config.hidden_size=32", "model.config.num_hidden_layers=1",
]  # fmt: skip


def pairs(path: Path) -> Path:
    """Pairs of texts of many lengths."""
    rows = [
        {"prompt": "x" * (i % 7 + 1) + "?", "chosen": "yes" * (i % 3 + 1), "rejected": "no" * (i % 4 + 1)} for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
