"""What other frameworks compute under the names of our algorithms: equal to ours, or differing by what.

    python -m benchmarks.agreement

Evaluates each framework's formula, as its source has it, beside our algorithm's own loss on one literal batch, value and
gradient; runs the tests that compare with TRL's trainers. Writes benchmarks/results/agreement.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from alignzoo.contracts import OnlineAlgorithm
from benchmarks.agreement.batch import NOW, on_pairs, on_policy, ours, tensor
from benchmarks.agreement.cells import ON_POLICY, PAIRS, TRL, VERSIONS, Cell, gap, made

RESULTS = Path(__file__).parents[1] / "results" / "agreement"
TRL_TESTS = "tests/functional/test_trl.py"
SAME = 1e-5
PAGE = """# Agreement with other frameworks

Is an algorithm of one name the same function elsewhere? Each framework's formula was written down from its source, with its
normalisation, and evaluated beside our algorithm's own loss on one literal batch in float64, policy, sampler and reference
all different: **equal** is a gradient, and a value where a loss has a meaningful one, within 1e-5. TRL's column is its own
trainers, batch and gradient (`tests/functional/test_trl.py`). Settings are ours and the same there; all else is by default.
Where a cell says by what the two differ, the other's formula without that was evaluated too, and is ours within 1e-5; a * is
where it was not. The number is the largest relative difference of the gradient on this batch.

{versions}

| algorithm | {names} |
|---|{rules}|
{rows}

The sources were read at these versions, and nothing of them was run but TRL; what a framework does before its loss (which
log-probs it keeps, how it cuts a batch) is not compared. Their defaults for KL and clip are in the cards.

`python -m benchmarks.agreement`
"""


@dataclass(frozen=True)
class Row:
    """`apart`: the relative difference; `undone`: what is left of it without what `differs` says, if known."""

    algorithm: str
    framework: str
    differs: str
    apart: float
    undone: float | None = None

    @property
    def text(self) -> str:
        if not self.differs:
            return "equal"
        return f"{self.differs}{'' if self.undone is not None else '*'} ({self.apart:.1g})"


def measured(cell: Cell) -> Row:
    """Raises ValueError where the batch contradicts what the cell says."""
    now = tensor(NOW).requires_grad_()
    algorithm = made(cell.algorithm, cell.settings)
    x = on_policy(now) if isinstance(algorithm, OnlineAlgorithm) else on_pairs(now)
    mine = ours(algorithm, now)
    apart = gap(cell.theirs(x), mine, cell.value, now)
    undone = None if cell.undone is None else gap(cell.undone(x), mine, cell.value, now)
    where = f"{cell.algorithm} of {cell.framework}"
    if (apart <= SAME) is bool(cell.differs):
        raise ValueError(f"{where}: {apart:g} apart, and said to differ by {cell.differs or 'nothing'}")
    if undone is not None and undone > SAME:
        raise ValueError(f"{where}: {undone:g} apart without {cell.differs}")
    return Row(cell.algorithm, cell.framework, cell.differs, apart, undone)


def formulas() -> list[Row]:
    return [measured(cell) for cell in PAIRS + ON_POLICY]


def passed() -> set[str]:
    """The names of the tests against TRL that pass, run here."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-rp", TRL_TESTS]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {line.split("::")[-1] for line in told.splitlines() if line.startswith("PASSED ")}


def page(rows: Sequence[Row]) -> str:
    cells = {(row.algorithm, row.framework): row.text for row in rows}
    algorithms = sorted({row.algorithm for row in rows})
    lines = [f"| `{name}` | {' | '.join(cells.get((name, framework), '') for framework in VERSIONS)} |" for name in algorithms]
    versions = ", ".join(f"{name} {version}" for name, version in VERSIONS.items())
    rules = "|".join(["---"] * len(VERSIONS))
    return PAGE.format(versions=f"{versions}.", names=" | ".join(VERSIONS), rules=rules, rows="\n".join(lines))


def main() -> int:
    rows, good = formulas(), passed()
    if failed := sorted(set(TRL.values()) - good):
        print(f"not equal to TRL's: {', '.join(failed)}", file=sys.stderr)
        return 1
    rows = [*(Row(name, "TRL", "", 0.0) for name in TRL), *rows]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "results.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", "utf-8")
    (RESULTS / "README.md").write_text(page(rows), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
