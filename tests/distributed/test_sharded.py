"""Weights sharded over two CPU ranks by FSDP2: an update, sampling, gathering, saving by role and reloading.

Through the Trainer FSDP stays untested: accelerate's plugin becomes DDP on the CPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("sharded.py")


@pytest.fixture(scope="module")
def found(torchrun: Any, tmp_path_factory: Any) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("sharded")
    torchrun(SCRIPT, folder)
    return json.loads((folder / "found.json").read_text()) | {"folder": folder}


def test_an_update_is_that_of_one_process(found):
    assert found["gradient"] < 1e-5 and found["weights"] < 1e-6


def test_ranks_whose_completions_end_apart_stop_together(found):
    longest = found["samples"]["longest"]
    assert longest[0] != longest[1]
    assert found["samples"]["width"] == max(longest)
    assert found["samples"]["same"] and found["samples"]["logprobs"] < 1e-5


def test_gathered_weights_are_saved_by_role_and_come_back(found):
    assert found["reloaded"] == {"plain": True, "sharded": True}
    files = {str(path.relative_to(found["folder"])) for path in found["folder"].rglob("*.safetensors")}
    assert files == {"model.safetensors", "value/model.safetensors"}
