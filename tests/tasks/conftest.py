"""A chat template for models that have none, and completions of rows."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from alignzoo.batch import Completions, Prompts
from alignzoo.data.rows import Row
from alignzoo.models.tokenizers import byte_level

CHAT = """{% for message in messages %}{{ message.role }}: {{ message.content }}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"""


@pytest.fixture
def template(tmp_path: Path) -> str:
    (tmp_path / "chat.jinja").write_text(CHAT)
    return f"data.chat_template={tmp_path / 'chat.jinja'}"


@pytest.fixture
def answered() -> Callable[..., Completions]:
    """One completion of each row, in bytes; `cut` are the places of those that ended at the limit."""

    def completions(rows: Sequence[Row], texts: Sequence[str], cut: Sequence[int] = ()) -> Completions:
        tokenizer = byte_level()
        ids = [[3 + byte for byte in text.encode()] + [2] for text in texts]
        width = max(map(len, ids))
        padded = torch.tensor([row + [0] * (width - len(row)) for row in ids])
        columns: dict[str, list[Any]] = {name: [row.remaining[name] for row in rows] for name in rows[0].remaining}
        prompts = Prompts(
            ids=torch.full((len(rows), 1), 9), attended=torch.ones(len(rows), 1, dtype=torch.bool),
            row=torch.arange(len(rows)), columns=columns,
            decode=lambda part: tokenizer.batch_decode(part, skip_special_tokens=True),
        )  # fmt: skip
        c = Completions(
            prompts=prompts, prompt_of=torch.arange(len(rows)), ids=padded, attended=padded != 0, scored=padded != 0,
            truncated=torch.zeros(len(rows), dtype=torch.bool), row=torch.arange(len(rows)),
        )  # fmt: skip
        return replace(c, truncated=torch.tensor([place in cut for place in range(len(rows))]))

    return completions
