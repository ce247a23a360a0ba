"""Sampling by a server from two ranks: one sends the weights, whole or gathered from both; each asks for its own prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("served.py")


@pytest.fixture(scope="module")
def found(torchrun: Any, tmp_path_factory: Any) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("served")
    torchrun(SCRIPT, folder)
    return dict(json.loads((folder / "found.json").read_text()))


@pytest.mark.parametrize("weights", ["whole", "sharded"])
def test_each_rank_gets_what_one_process_writes(weights, found):
    for rank in found["ranks"]:
        for step in rank[weights]:
            assert step["off"] is not None and step["off"] < 1e-5
        assert rank[weights][0]["texts"] != rank[weights][1]["texts"], "the update must show"
    assert found["ranks"][0][weights][0]["texts"] != found["ranks"][1][weights][0]["texts"]


def test_one_rank_sends(found):
    assert found["updates"] == 4
