"""Three completions of two prompts, over bytes."""

from pathlib import Path

import pytest
import torch

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Context
from alignzoo.data.files import JsonLines
from alignzoo.models.tokenizers import byte_level
from alignzoo.settings import Sampling

PROMPTS, COMPLETIONS, PROMPT_OF = ["p", "qq"], ["the cat", "a", "The the dog"], [0, 1, 1]


def padded(texts, left, end):
    rows = [[3 + byte for byte in text.encode()] + [2] * end for text in texts]
    width = max(map(len, rows))
    ids = [[0] * (width - len(row)) + row if left else row + [0] * (width - len(row)) for row in rows]
    return torch.tensor(ids), torch.tensor(ids) != 0


@pytest.fixture
def tokenizer():
    return byte_level()


@pytest.fixture
def completions(tokenizer):
    ids, attended = padded(PROMPTS, left=True, end=False)
    columns = {"answer": ["cat", "the dog"], "topic": ["x", None]}
    prompts = Prompts(
        ids=ids,
        attended=attended,
        row=torch.tensor([7, 8]),
        columns=columns,
        decode=lambda rows: tokenizer.batch_decode(rows, skip_special_tokens=True),
    )
    ids, attended = padded(COMPLETIONS, left=False, end=True)
    return Completions(
        prompts=prompts,
        prompt_of=torch.tensor(PROMPT_OF),
        ids=ids,
        attended=attended,
        scored=attended,
        truncated=torch.zeros(3, dtype=torch.bool),
        row=torch.tensor([7, 8, 8]),
    )


@pytest.fixture
def source():
    """Data with no reward of its own."""
    return JsonLines(path="unused")


@pytest.fixture
def context(tokenizer, tmp_path):
    return Context(tokenizer=tokenizer, seed=0, sampling=Sampling(), context_length=64, cache=Path(tmp_path))
