"""What a run costs: the one account that networks, loaders and trainers, foreign ones too, report to. Evaluation's share is
kept apart."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from functools import partial
from typing import ParamSpec, TypedDict, TypeVar

import torch
from torch import Tensor

from alignzoo.batch import Batch, Completions
from alignzoo.common.ranks import gather_objects

P = ParamSpec("P")
T = TypeVar("T")
COUNTS = ("samples", "prompt_tokens", "completion_tokens", "trained_tokens", "labels", "reward_updates")
PHASES = ("setup", "rollout", "reward", "training", "evaluation", "checkpoint", "total")


@dataclass
class Tally:
    """One role's FLOPs, and the calls of its network: a step of decoding is one."""

    forward: int = 0
    backward: int = 0
    forward_passes: int = 0
    backward_passes: int = 0

    def note(self, output: Tensor, forward: int, backward: int) -> None:
        """`forward` FLOPs now, and `backward` once a gradient arrives at `output`, if one ever does."""
        self.forward += forward
        if backward and output.requires_grad:
            output.register_hook(partial(self._at_gradient, "backward", backward))

    def note_pass(self, output: Tensor | None) -> None:
        self.forward_passes += 1
        if output is not None and output.requires_grad:
            output.register_hook(partial(self._at_gradient, "backward_passes", 1))

    def _at_gradient(self, name: str, amount: int, gradient: Tensor) -> None:
        setattr(self, name, getattr(self, name) + amount)


class AccountState(TypedDict):
    counts: dict[str, int]
    seconds: dict[str, float]
    flops: dict[str, list[int]]  # by role: FLOPs forward and backward, passes forward and backward
    evaluation_flops: int


class Account:
    """What this process has used; `used` and `columns` tell it over all ranks.

    samples: completions drawn in rollouts or delivered by the data, each row of it once, however many epochs there are.
    labels: judgements of completions that `gold` gave to learn from. reward_updates: steps of what the reward learns by itself.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTS, 0)
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.tallies: dict[str, Tally] = {}
        self.evaluation_flops = 0
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

    def delivered(self, records: Batch, rows: int) -> None:
        """Count the completions in records of the data, which has so many rows; later epochs number theirs on from there."""
        self.count(samples=completions_in(records, rows))

    def tally(self, role: str) -> Tally:
        return self.tallies.setdefault(role, Tally())

    @contextmanager
    def aside(self) -> Iterator[Callable[[], dict[str, Tally]]]:
        """FLOPs counted inside are not in the account afterwards; the function yielded then tells them, by role."""
        before, inside = self.flops(), dict[str, Tally]()
        try:
            yield lambda: inside
        finally:
            for role, tally in self.flops().items():
                inside[role] = Tally(*(a - b for a, b in zip(tally, before.get(role, [0, 0, 0, 0]), strict=True)))
            self._set_flops(before)

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
                with self.aside() as inside:
                    yield
                self.evaluation_flops += sum(tally.forward + tally.backward for tally in inside().values())
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

    def timed(self, name: str, function: Callable[P, T]) -> Callable[P, T]:
        """`function`, its time booked to `name`."""

        def call(*arguments: P.args, **keywords: P.kwargs) -> T:
            with self.phase(name):
                return function(*arguments, **keywords)

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

    def columns(self) -> dict[str, float]:
        """The columns of summary.json."""
        state = self._everywhere()
        columns: dict[str, float] = {**state["counts"], **_used(state)}
        for role, (forward, backward, *passes) in state["flops"].items():
            columns[f"flops/{role}"] = forward + backward
            columns |= {f"passes/{role}/{way}": count for way, count in zip(("forward", "backward"), passes, strict=True)}
        columns["evaluation_flops"] = state["evaluation_flops"]
        return columns | {f"{name}_seconds": value for name, value in state["seconds"].items()}

    def _everywhere(self) -> AccountState:
        """Counts and FLOPs summed over ranks; seconds of the main process, since all ranks wait for each other."""
        states = gather_objects(self.state_dict())
        whole = Account()
        for state in states:
            whole.count(**state["counts"])
            whole.evaluation_flops += state["evaluation_flops"]
            for role, tally in state["flops"].items():
                whole.add_flops(role, Tally(*tally))
        return {**whole.state_dict(), "seconds": states[0]["seconds"]}

    def add_flops(self, role: str, more: Tally) -> None:
        tally = self.tally(role)
        for field in fields(Tally):
            setattr(tally, field.name, getattr(tally, field.name) + getattr(more, field.name))

    def flops(self) -> dict[str, list[int]]:
        """By role: FLOPs forward and backward, passes forward and backward."""
        return {role: list(astuple(tally)) for role, tally in self.tallies.items()}

    def _set_flops(self, flops: Mapping[str, list[int]]) -> None:
        for role in {**self.tallies, **flops}:  # in place: networks hold their role's
            vars(self.tally(role)).update(vars(Tally(*flops.get(role, ()))))

    def state_dict(self) -> AccountState:
        self._book()
        return {
            "counts": dict(self.counts), "seconds": dict(self.seconds), "flops": self.flops(),
            "evaluation_flops": self.evaluation_flops,
        }  # fmt: skip

    def load_state_dict(self, state: AccountState) -> None:
        self.counts, self.seconds = self.counts | state["counts"], dict(state["seconds"])
        self._set_flops(state["flops"])
        self.evaluation_flops = state["evaluation_flops"]
        self._since = time.perf_counter()


def _used(state: AccountState) -> dict[str, float]:
    counts, seconds = state["counts"], state["seconds"]
    return {
        "samples": counts["samples"],
        "tokens": sum(counts[name] for name in COUNTS if name.endswith("tokens")),
        "flops": sum(forward + backward for forward, backward, *_ in state["flops"].values()),
        "seconds": seconds["total"] - seconds["setup"] - seconds["evaluation"],
    }


def completions_in(records: Batch, rows: int) -> int:
    """How many completions these records hold, those of rows numbered from `rows` on left out."""
    if isinstance(records, Completions):
        return int((records.row < rows).sum())
    nested = (getattr(records, field.name) for field in fields(records))
    return sum(completions_in(value, rows) for value in nested if isinstance(value, Batch))


def tokens_in(batch: Batch, prompts: bool = True) -> int:
    """Attended tokens of all completions in a record, with their prompts once a completion, or without them."""
    if not isinstance(batch, Completions):
        return sum(tokens_in(value, prompts) for value in vars(batch).values() if isinstance(value, Batch))
    read = int(batch.prompts.attended.sum(1)[batch.prompt_of].sum()) if prompts else 0
    return int(batch.attended.sum()) + read


def peak_memory() -> int:
    """Bytes: the accelerator's peak where there is one, else the process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
