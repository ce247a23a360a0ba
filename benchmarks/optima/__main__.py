"""What each loss on pairs, ratings or demonstrations truly optimises, and how far that is from what RLHF does.

    python -m benchmarks.optima [NAME ...]

For each algorithm whose loss is a mean over records: its minimum over all policies on one prompt with 85 completions, given the
whole distribution of the data. Writes benchmarks/results/optima; with names, those rows anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from alignzoo.config.registry import Registry
from alignzoo.contracts import Algorithm, Couples, OnlineAlgorithm
from benchmarks.optima.solve import CLOSE, Drawn, minimum, objective
from benchmarks.optima.task import Task, divergence
from benchmarks.optima.trained import SAMPLES, Distances, distances

RESULTS = Path(__file__).parents[1] / "results" / "optima"
BETA = 1.0  # of losses that have one and a reference
SAME = 1e-6  # nats
PAGE = """# What each loss truly optimises

One prompt with {completions} completions ({tokens} letters, at most {length}), rewards of standard deviation {scale:g}, and all
data there is about it: pairs of two draws from the reference, of which Bradley and Terry's annotator chooses one; draws that
are liked with probability sigma(r); demonstrations by pi\\* (beta 1). The policy is one free categorical distribution, the
loss the algorithm's own code in float64, its minimum searched for by Newton's method from the reference, and where that runs
off from pi\\*(1) and pi\\*(1/3) too, until the largest part of the gradient is below 1e-8. `beta=1` where a loss with a
reference has a beta; all else by default.

pi\\*(b) is proportional to ref exp(r / b), the optimum of E[r] - b KL(pi || ref). "Nearest b" is that of the smallest
KL(own || pi\\*(b)), and "off" is what then remains: 0 means that the loss does what RLHF does, with a beta of b. A loss has no
finite minimum where log-odds of more than 50 make it better still. "At a kink": where the loss has no gradient.

| algorithm | data | minimum | KL(own, pi\\*(1)) | nearest b | off | E[r] | KL(own, ref) |
|---|---|---|---|---|---|---|---|
{rows}

The reference has E[r] {reward:.3f}, pi\\*(1) {best:.3f} at a KL of {kl:.3f}. Not here: losses that compare the records of a
batch, draw at random, learn from samples of their own, or whose reference moves.

## Where training ends

A network of `model=small`, trained into a reference of its own on the same strings, with `experiment=exact` and {samples:,}
completions (a pair is two). KL from the policy to the minimum of its loss and to pi\\*(1), before training and after it, in
nats: what moved to its own minimum and away from pi\\* has done what its loss says. What ends further from it than it began
has gone to another: a loss that is not convex may have several.

| algorithm | to its own, before | after | to pi\\*(1), before | after |
|---|---|---|---|---|
{trained}

`python -m benchmarks.optima`
"""


@dataclass(frozen=True)
class Row:
    """KLs in nats; None where there is no finite minimum."""

    algorithm: str
    data: str
    gradient: float
    favoured: int  # rank by reward of the completion that the optimum favours most, 1 the best
    to_optimum: float | None = None
    nearest: float | None = None
    off: float | None = None
    reward: float | None = None
    to_reference: float | None = None
    trained: Distances | None = None

    @classmethod
    def read(cls, values: dict[str, Any]) -> Row:
        return cls(**{**values, "trained": Distances(**values["trained"])})


def nearest(task: Task, logprobs: Tensor) -> tuple[float, float]:
    """The beta, of either sign of the reward, whose pi* is nearest, and how near."""
    search = minimize_scalar(lambda inverse: divergence(logprobs, task.tilted(inverse)), bracket=(0.0, 1.0), tol=1e-12)
    return float(1 / search.x), max(float(search.fun), 0.0)


def solvable(kind: type) -> bool:
    return issubclass(kind, Algorithm) and not issubclass(kind, OnlineAlgorithm) and kind.couples is Couples.ROW


def measured(name: str, kind: type[Algorithm], task: Task) -> Row | None:
    """None for what is no loss of one policy and its reference."""
    algorithm = kind()
    roles = algorithm.roles()
    if "reference" in roles and "beta" in {f.name for f in fields(algorithm)}:
        algorithm = kind(beta=BETA)  # type: ignore[call-arg]
    records = task.records(algorithm.data)
    still = all(role.follows is None for role in roles.values())
    if records is None or "policy" not in roles or roles.keys() - {"policy", "reference"} or not still:
        return None
    try:
        solution = minimum(objective(algorithm, task, *records), task)
    except Drawn:
        return None
    rank = int((task.rewards > task.rewards[solution.favoured]).sum()) + 1
    row = Row(algorithm=name, data=algorithm.data.__name__, gradient=solution.gradient, favoured=rank)
    if solution.logprobs is None:
        return row
    own = solution.logprobs
    beta, off = nearest(task, own)
    return replace(
        row, to_optimum=divergence(own, task.tilted(1.0)), nearest=beta, off=off, reward=float(own.exp() @ task.rewards),
        to_reference=divergence(own, task.reference),
    )  # fmt: skip


def page(task: Task, rows: Sequence[Row]) -> str:
    """The results as Markdown."""
    lines = []
    for row in rows:
        cells = [f"| `{row.algorithm}` | {row.data.lower()}"]
        if row.to_optimum is None or row.off is None:
            cells += [f"none finite: towards the completion whose reward is number {row.favoured}", "", "", "", "", "|"]
        else:
            off = "0" if row.off < SAME else f"{row.off:.3f}"
            cells += [
                "finite" if row.gradient < CLOSE else "at a kink",
                "0" if row.to_optimum < SAME else f"{row.to_optimum:.3f}",
                f"{row.nearest:.3g}",
                off,
            ]
            cells += [f"{row.reward:.3f}", f"{row.to_reference:.3f} |"]
        lines.append(" | ".join(cells))
    best = task.tilted(1.0)
    ends = [(row.algorithm, row.trained) for row in rows if row.trained]
    nats = lambda value: "" if value is None else f"{value:.3f}"  # noqa: E731
    return PAGE.format(
        samples=SAMPLES, trained="\n".join(
            f"| `{name}` | {' | '.join(map(nats, (d.start_to_own, d.end_to_own, d.start_to_optimum, d.end_to_optimum)))} |"
            for name, d in ends
        ), completions=task.tree.completions, tokens=task.tokens, length=task.length, scale=task.scale, rows="\n".join(lines),
        reward=float(task.reference.exp() @ task.rewards), best=float(best.exp() @ task.rewards),
        kl=divergence(best, task.reference),
    )  # fmt: skip


def sentence(row: Row, completions: int) -> str:
    """What an algorithm's card says of it."""
    if row.nearest is None or row.off is None or row.to_reference is None:
        return (
            "no finite minimum: log-odds of more than 50 are better still, towards the completion whose reward is number "
            f"{row.favoured} of {completions}"
        )
    where = "a minimum" if row.gradient < CLOSE else "a minimum at a kink"
    if row.to_reference < SAME:
        return f"{where}, at the reference"
    if row.off < SAME:
        return f"{where} at pi* of beta {row.nearest:.3g}"
    return (
        f"{where} with E[r] {row.reward:.3f} and KL(pi || ref) {row.to_reference:.3f}; the nearest pi* is that of beta "
        f"{row.nearest:.3g}, {row.off:.2g} nats off"
    )


def main(names: Sequence[str]) -> None:
    torch.set_default_dtype(torch.float64)
    task, registry, path = Task(), Registry(), RESULTS / "results.json"
    rows = {row["algorithm"]: Row.read(row) for row in json.loads(path.read_text())} if names and path.exists() else {}
    for name in names or registry.names("algorithm"):
        kind = registry.load("algorithm", name)
        if registry.get("algorithm", name).preset or not solvable(kind):
            continue
        if row := measured(name, kind, task):
            rows[name] = row = replace(row, trained=distances(name))
            print(json.dumps(asdict(row)), flush=True)
    ordered = sorted(rows.values(), key=lambda row: (row.data, row.algorithm))
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in ordered], indent=1) + "\n")
    (RESULTS / "README.md").write_text(page(task, ordered))


if __name__ == "__main__":
    main(sys.argv[1:])
