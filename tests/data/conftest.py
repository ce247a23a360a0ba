"""A run's context, and sources over rows written to a temporary file."""

import json
from pathlib import Path

import pytest

from alignzoo.contracts import Context
from alignzoo.data.files import JsonLines
from alignzoo.models.tokenizers import byte_level
from alignzoo.settings import Sampling


@pytest.fixture
def context(tmp_path):
    return Context(tokenizer=byte_level(), seed=0, sampling=Sampling(max_new_tokens=8), context_length=64, cache=Path(tmp_path))


@pytest.fixture
def source(tmp_path):
    """source(rows, **settings): these rows as JSON Lines, nothing held out unless asked for."""

    def made(rows, **settings):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return JsonLines(path=str(path), **{"heldout": 0.0, **settings})

    return made
