"""The frontier in numbers: reward at a KL that all algorithms reach, and the area up to it, beside what is known."""

from __future__ import annotations

from collections.abc import Sequence

from alignzoo.report.frontier import Frontier, Line, summary
from alignzoo.report.sections import Table, with_interval
from alignzoo.statistics.frontier import Point, area, reward_at


def table(found: Frontier) -> Table:
    """One row an algorithm, then best-of-n and the optimum."""
    kl = f"{found.at:g}"
    columns = ["algorithm", "ends at KL", "ends at reward", f"reward at KL {kl} (95 % interval)", f"area up to KL {kl}"]
    rows = [_row(line) for line in found.lines]
    bound = "" if found.known.exact else " (its KL: an upper bound)"
    rows += _known(f"best of n{bound}", found.known.best_of_n, found)
    rows += _known("optimum", found.known.optimum, found)
    return Table(columns, rows)


def _row(line: Line) -> list[str]:
    ends = [sum(values) / len(values) for values in zip(*line.ends, strict=True)]
    at, under = summary(line.rewards), summary(line.areas)
    cells = ["" if s is None else with_interval("reward", s.mean, s.interval) for s in (at, under)]
    return [line.label, *(f"{value:.4g}" for value in ends), *cells]


def _known(name: str, points: Sequence[Point], found: Frontier) -> list[list[str]]:
    """No row where nothing is known up to that KL."""
    if not points:
        return []
    start = [] if found.known.reference is None else [(0.0, found.known.reference)]
    line = [*start, *points]
    reward, under = reward_at(line, found.at), area(line, found.at)
    return [[name, "", "", "" if reward is None else f"{reward:.4g}", "" if under is None else f"{under:.4g}"]]


def paragraphs(found: Frontier) -> list[str]:
    """What the plot and the table mean."""
    made = (
        "Each algorithm's frontier is made of where its runs end, over the values swept."
        if found.swept
        else "No KL strength was swept: each algorithm's frontier is made of where its runs end and of its evaluations on the "
        "way, each of a policy that could have been kept."
    )
    said = [
        f"{made} Between two policies the frontier is a line, since a mixture of them reaches it. Area is the mean, over KL "
        f"from 0 to {found.at:g}, which every algorithm reaches, of the reward above the reference's."
    ]
    if found.known.best_of_n and not found.known.exact:
        said.append(
            "Best of n draws n completions of the reference and keeps the one of the highest reward. Its reward is estimated "
            "from the reference's samples; its KL is the upper bound log n \N{MINUS SIGN} (n \N{MINUS SIGN} 1) / n, so "
            "that the true line lies to the left."
        )
    elif found.known.best_of_n:
        said.append(
            "Best of n draws n completions of the reference and keeps the one of the highest reward: computed exactly here."
        )
    else:
        said.append(
            "Best of n is not shown: no run has frontier.json, or reference.json, which runs with trainer.eval_steps and "
            "trainer.reference_samples leave."
        )
    if found.known.optimum:
        said.append("The optimum is the best policy for every strength of the KL: nothing can lie above it.")
    return said
