"""Stories as rows of tokens: each begins a row once an epoch, and later parts of long ones fill what is left of the rows."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

IGNORED = -100


@dataclass(frozen=True)
class Story:
    source: str
    text: str


def read(path: Path) -> list[Story]:
    """The stories of a gzipped JSON Lines file with the columns source and text."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [Story(row["source"], row["text"]) for row in map(json.loads, lines)]


def encode(stories: Sequence[Story], tokenizer: Any) -> list[list[int]]:
    """The tokens of each story, EOS last, no BOS."""
    return [[*ids, tokenizer.eos_token_id] for ids in tokenizer([story.text for story in stories])["input_ids"]]


def pack(stories: Sequence[list[int]], length: int, bos: int, pad: int, rng: random.Random) -> Tensor:
    """(stories, length) rows in random order. Each begins with the beginning of a story, half of them after BOS, since a model
    is asked for stories with and without it. Short stories leave room for later parts of long ones, drawn anew every epoch:
    that gives long tales, which are the harder English, less weight."""
    heads, tails = [], []
    for story in rng.sample(stories, len(stories)):
        ids = [bos, *story] if rng.random() < 0.5 else story
        heads.append(ids[:length])
        tails.append(ids[length:])
    filling = [token for tail in rng.sample(tails, len(tails)) for token in tail]
    rows = torch.full((len(heads), length), pad)
    used = 0
    for row, head in zip(rows, heads, strict=True):
        added = filling[used : used + length - len(head)]
        used += len(added)
        row[: len(head) + len(added)] = torch.tensor(head + added)
    return rows


def windows(ids: list[int], length: int, stride: int) -> list[tuple[list[int], int]]:
    """(tokens, how many of them the window before has scored) of windows that together score each token but the first once."""
    cut = [(ids[start : start + length], start) for start in range(0, max(1, len(ids) - length + stride), stride)]
    return [(window, length - stride if start else 1) for window, start in cut]
