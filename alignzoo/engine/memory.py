"""trainer.micro_batch=auto: all records of a step go through the networks at once, or as many as memory holds, or, on a CPU, as
many as it gains from."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch
from torch import nn

from alignzoo.batch import Prompts
from alignzoo.common.account import tokens_in
from alignzoo.common.ranks import gather_objects
from alignzoo.contracts import Table
from alignzoo.data.lazy import LazyTable

logger = logging.getLogger("alignzoo")
SHARE = 0.5  # of the memory that is free, the weights loaded
LOOKED_AT = 32  # records, spread over the data, of which the longest counts
# numbers kept for the backward pass, a token and layer: 16 as wide as a state (norms, queries, keys, values, rotations,
# outputs, sums), 4 as wide as the feed-forward part
STATES, INNER = 16, 4
# of one forward: with more at once a CPU is no faster; with less, what a call costs whatever its size tells
ENOUGH_TOKENS, ENOUGH_BYTES = 2048, 64 * 2**20


def micro_batch(each: int, tokens: int, config: object, trained: nn.Module, device: torch.device) -> int:
    """Of the divisors of `each`, the records a rank takes a step, the largest that fits; the same on every rank."""
    parameters, width = [p for p in trained.parameters() if p.requires_grad], bytes_of(trained)
    state = 3 * sum(p.numel() * p.element_size() for p in parameters)  # gradients, and two moments of Adam
    needed = tokens * token_bytes(config, width)
    room = SHARE * (free(device) - state)
    size = min(gather_objects(fitting(each, needed, room)))
    if size < each:
        logger.warning(
            "trainer.micro_batch=auto: %d of %d records at once, of %.0f MB each where %.0f MB may be used",
            size, each, needed / 2**20, room / 2**20,
        )  # fmt: skip
    return size


def fitting(each: int, needed: float, room: float) -> int:
    """The largest divisor of `each` so many records of which fit; 1 where not even one does."""
    return next(size for size in range(each, 0, -1) if each % size == 0 and (size == 1 or size * needed <= room))


def bytes_of(trained: nn.Module) -> int:
    """Of a number in the widest of what is trained."""
    return max((p.element_size() for p in trained.parameters() if p.requires_grad), default=4)


def token_bytes(config: object, width: int) -> int:
    """Of activations, a token; 0 for a config that doesn't say how large its network is."""
    states, layers = getattr(config, "hidden_size", 0), getattr(config, "num_hidden_layers", 0)
    inner = getattr(config, "intermediate_size", None) or 4 * states
    return layers * (STATES * states + INNER * inner) * width


def enough(each: int, tokens: float, config: object, width: int) -> int:
    """The smallest divisor of `each` so many records of which, of `tokens` each, keep a CPU busy."""
    wanted = max(ENOUGH_TOKENS, ENOUGH_BYTES / max(token_bytes(config, width), 1))
    return next(size for size in range(1, each + 1) if each % size == 0 and (size == each or size * tokens >= wanted))


def lengths(table: Table, new_tokens: int) -> list[int]:
    """Tokens of records spread over the data: a completion's with its prompt's, or a prompt's and `new_tokens` to come."""
    size = table.beginning if isinstance(table, LazyTable) else len(table)
    step = max(1, size // LOOKED_AT)
    records = (table.batch([row]) for row in range(0, size, step))
    return [
        int(record.attended.sum(1).max()) + new_tokens if isinstance(record, Prompts) else tokens_in(record)
        for record in records if len(record)
    ]  # fmt: skip


def free(device: torch.device) -> int:
    """Bytes that nobody uses; where the system doesn't say, all it has. Processes of one machine share what isn't a GPU's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    file = Path("/proc/meminfo")
    lines = file.read_text().splitlines() if file.exists() else []
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    whole = available[0] if available else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return whole // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
