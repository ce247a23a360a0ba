"""What a run has cost: one account for every algorithm, and for foreign trainers. Evaluation's share is kept apart."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import nn

from alignzoo.batch import Batch, Completions
from alignzoo.contracts import Reward
from alignzoo.models.forward.flops import Account, watch
from alignzoo.models.roles import Models, gather_objects

T = TypeVar("T")
COUNTS = ("samples", "prompt_tokens", "completion_tokens", "trained_tokens", "labels", "reward_updates")
PHASES = ("setup", "rollout", "reward", "training", "evaluation", "checkpoint", "total")


class Cost:
    """What this process has used; `used` and `columns` tell it over all ranks.

    samples: completions drawn in rollouts or delivered by the data, each row of it once, however many epochs there are.
    labels: judgements of completions that `gold` gave to learn from. reward_updates: steps of what the reward learns by itself.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTS, 0)
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.flops, self.evaluation_flops = Account(), 0
        self._phases: list[str] = []  # from the outermost to the one that time is booked to
        self._since = time.perf_counter()

    # --- what is noted ---

    def count(self, **amounts: int) -> None:
        for name, amount in amounts.items():
            self.counts[name] += amount

    def drawn(self, c: Completions) -> None:
        """Count completions just sampled, if it is for a rollout; each comes with its prompt."""
        if self.sampling and not self.evaluating:
            written = tokens_in(c, prompts=False)
            self.count(samples=len(c), completion_tokens=written, prompt_tokens=tokens_in(c) - written)

    def delivered(self, records: Any, rows: int) -> None:
        """Count the completions in records of the data, which has so many rows; later epochs number theirs on from there."""
        self.count(samples=completions_in(records, rows))

    @property
    def sampling(self) -> bool:
        return "rollout" in self._phases

    @property
    def evaluating(self) -> bool:
        return "evaluation" in self._phases

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Books the time inside to `name`, and not to the phase around it; inside evaluation all is evaluation's."""
        if self.evaluating:
            yield
            return
        self.begin(name)
        try:
            if name == "evaluation":
                with self.flops.aside() as found:
                    yield
                self.evaluation_flops += sum(forward + backward for forward, backward, *_ in found().values())
            else:
                yield
        finally:
            self.end()

    def started(self) -> None:
        """Training begins: what was before is no part of a budget."""
        if self._phases == ["setup"]:
            self.end()

    def begin(self, name: str) -> None:
        self._book()
        self._phases.append(name)

    def end(self) -> None:
        self._book()
        self._phases.pop()

    def timed(self, name: str, function: Callable[..., T]) -> Callable[..., T]:
        """`function`, its time booked to `name`."""

        def call(*arguments: Any) -> T:
            with self.phase(name):
                return function(*arguments)

        return call

    def _book(self) -> None:
        now = time.perf_counter()
        self.seconds["total"] += now - self._since
        if self._phases:
            self.seconds[self._phases[-1]] += now - self._since
        self._since = now

    # --- what is told ---

    def used(self) -> dict[str, float]:
        """In every unit of a budget, over all ranks, without set-up and evaluation."""
        return _used(self._everywhere())

    def columns(self) -> dict[str, Any]:
        """The columns of summary.json."""
        state = self._everywhere()
        used = _used(state)
        found: dict[str, Any] = {**state["counts"], **used}
        for role, (forward, backward, *passes) in state["flops"].items():
            found[f"flops/{role}"] = forward + backward
            found |= {f"passes/{role}/{way}": count for way, count in zip(("forward", "backward"), passes, strict=True)}
        found["evaluation_flops"] = state["evaluation_flops"]
        return found | {f"{name}_seconds": value for name, value in state["seconds"].items()}

    def _everywhere(self) -> dict[str, Any]:
        """Counts and FLOPs summed over ranks; seconds of the main process, since all ranks wait for each other."""
        states = gather_objects(self.state_dict())
        whole = Cost()
        for state in states:
            whole.count(**state["counts"])
            whole.evaluation_flops += state["evaluation_flops"]
            for role, tally in state["flops"].items():
                whole.flops.tally(role).add(tally)
        return whole.state_dict() | {"seconds": states[0]["seconds"]}

    def state_dict(self) -> dict[str, Any]:
        self._book()
        return {
            "counts": dict(self.counts), "seconds": dict(self.seconds), "flops": self.flops.state_dict(),
            "evaluation_flops": self.evaluation_flops,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counts, self.seconds = self.counts | state["counts"], dict(state["seconds"])
        self.flops.load_state_dict(state["flops"])
        self.evaluation_flops = state["evaluation_flops"]
        self._since = time.perf_counter()


def _used(state: Mapping[str, Any]) -> dict[str, float]:
    counts, seconds = state["counts"], state["seconds"]
    return {
        "samples": counts["samples"],
        "tokens": sum(counts[name] for name in COUNTS if name.endswith("tokens")),
        "flops": sum(forward + backward for forward, backward, *_ in state["flops"].values()),
        "seconds": seconds["total"] - seconds["setup"] - seconds["evaluation"],
    }


def watch_networks(cost: Cost, models: Models, reward: Reward | None, gold: Reward | None) -> None:
    """Count the FLOPs of all networks of a run from now on. A trunk that two roles share is the first one's."""
    for name, network in models.networks.items():
        if isinstance(getattr(network, "module", None), nn.Module):
            watch(network.module, cost.flops, name)
    for name, judge in (("reward", reward), ("gold", gold)):
        for module in modules_in(judge):
            watch(module, cost.flops, name)
    models.shared.drawn = cost.drawn


def modules_in(part: Any) -> list[nn.Module]:
    """The networks that a reward, or the rewards it is made of, keeps among its attributes."""
    if isinstance(part, nn.Module):
        return [part]
    if isinstance(part, Reward):
        return modules_in(list(vars(part).values()))
    if isinstance(part, dict):
        return modules_in(list(part.values()))
    return [module for value in part for module in modules_in(value)] if isinstance(part, list | tuple) else []


def completions_in(records: Any, rows: int) -> int:
    """How many completions these records hold, those of rows numbered from `rows` on left out."""
    if isinstance(records, Completions):
        return int((records.row < rows).sum())
    nested = (getattr(records, field.name) for field in fields(records))
    return sum(completions_in(value, rows) for value in nested if isinstance(value, Batch))


def tokens_in(batch: Any, prompts: bool = True) -> int:
    """Attended tokens of all completions in a record, with their prompts once a completion, or without them."""
    total = 0
    if hasattr(batch, "attended") and hasattr(batch, "prompts"):
        total += int(batch.attended.sum())
        if prompts:
            total += int(batch.prompts.attended.sum(1)[batch.prompt_of].sum())
    nested = [value for value in vars(batch).values() if isinstance(value, Batch) and not hasattr(batch, "prompt_of")]
    return total + sum(tokens_in(value, prompts) for value in nested)


def peak_memory() -> int:
    """Bytes: the accelerator's peak where there is one, else the process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
