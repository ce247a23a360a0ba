"""Rewards of the reference's completions, kept by runs for the line of best-of-n where nothing is known exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

FILE = "reference.json"


def write(folder: Path, rewards: Mapping[str, Sequence[float]]) -> None:
    """By prompt."""
    (folder / FILE).write_text(json.dumps(rewards, ensure_ascii=False, indent=0), "utf-8")


def read(folders: Sequence[Path]) -> np.ndarray | None:
    """(prompts, samples) of these runs together, which must be of different seeds; None where there are none. Prompts that
    not all of them have are left out.
    """
    found = [json.loads((folder / FILE).read_text("utf-8")) for folder in folders if (folder / FILE).is_file()]
    common = [prompt for prompt in found[0] if all(prompt in rewards for rewards in found)] if found else []
    if not common:
        return None
    return np.array([[value for rewards in found for value in rewards[prompt]] for prompt in common])
