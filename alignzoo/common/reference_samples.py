"""Scores of the reference's completions, kept by runs for the line of best-of-n where nothing is known exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from alignzoo.common import folder as names
from alignzoo.common.disk import write_whole


def write(folder: Path, scores: Mapping[str, Sequence[float]], judge: str = "reward") -> None:
    """By prompt."""
    write_whole(folder / names.REFERENCE[judge], json.dumps(scores, ensure_ascii=False, indent=0))


def read(folders: Sequence[Path], judge: str = "reward") -> np.ndarray | None:
    """(prompts, samples) of these runs together, which must be of different seeds; None where there are none. Prompts that
    not all of them have are left out.
    """
    files = [folder / names.REFERENCE[judge] for folder in folders]
    runs = [names.read(file) for file in files if file.is_file()]
    common = [prompt for prompt in runs[0] if all(prompt in scores for scores in runs)] if runs else []
    if not common:
        return None
    return np.array([[value for scores in runs for value in scores[prompt]] for prompt in common])
