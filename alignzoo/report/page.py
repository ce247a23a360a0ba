"""report.html, one file that needs nothing else, and report.md with its plots beside it: the same content twice."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignzoo.evaluation.results import COSTS, Run
from alignzoo.report import answer, plots, sections
from alignzoo.report.analysis import AREA, Analysis, axes
from alignzoo.report.samples import side_by_side
from alignzoo.report.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORES = "Each point is a seed; the diamond is the mean, the bar its 95 % interval."
KNOWN = {"optimum": "the optimum for every strength of the KL", "best_of_n": "best-of-n of the reference"}
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Plot:
    name: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Part:
    """One condition of the study, with its plots by group."""

    analysis: Analysis
    headline: str
    details: list[str]
    results: sections.Table
    comparisons: sections.Table
    costs: sections.Table
    scores: list[Plot]
    curves: list[Plot]
    frontier: list[Plot]

    @property
    def plots(self) -> list[Plot]:
        return [*self.scores, *self.curves, *self.frontier]


@dataclass(frozen=True)
class Content:
    """All that the report is made of."""

    runs: list[Run]
    analyses: list[Analysis]
    about: Study
    left_out: dict[str, str]
    command: str

    @cached_property
    def known(self) -> dict[str, Any]:
        """Best-of-n and the optimum, which runs on a task that knows them leave in frontier.json."""
        path = next((run.folder / "frontier.json" for run in self.runs if (run.folder / "frontier.json").is_file()), None)
        return json.loads(path.read_text("utf-8")) if path else {}

    @property
    def reproduce(self) -> list[str]:
        """The commands that made the runs, as far as they are known, and the one that made this page."""
        own = [run.environment["command"] for run in self.runs if run.environment.get("command")]
        return [*(self.about.command or dict.fromkeys(own)), *([self.command] if self.command else [])]


def write(content: Content, out: Path) -> Path:
    """Both pages, and plots/ with each plot as SVG and PNG."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    (out / "plots").mkdir(exist_ok=True)
    parts = [_part(content, a, f"{i}-" if len(content.analyses) > 1 else "", out) for i, a in enumerate(content.analyses)]
    overview = _plots(_overview(content), out)
    seed, samples = side_by_side(content.runs)
    values = {
        "title": content.about.suite or "report", "parts": parts, "overview": overview, "samples": samples, "sample_seed": seed,
        "method": sections.method(content.runs, content.analyses, content.about), "settings": sections.settings(content.runs),
        "statistics": sections.statistics(content.analyses[0]),
        "overall": answer.overall(content.analyses),
        "tuning": sections.tuning(content.about) if content.about.tuning else None, "machine": sections.machine(content.runs),
        "left_out": content.left_out | {k: v for a in content.analyses for k, v in a.failed.items()},
        "reproduce": content.reproduce,
    }  # fmt: skip
    for name, escape in (("report.html", True), ("report.md", False)):
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=escape,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(md=markdown, tied=tied)
        (out / name).write_text(environment.get_template(name).render(**values), "utf-8")
    return out / "report.html"


def _part(content: Content, a: Analysis, prefix: str, out: Path) -> Part:
    runs = [run for entry in a.entries for run in entry.runs]
    style = plots.styles([entry.label for entry in a.entries])
    families = plots.styles(list({run.algorithm for run in runs}))
    return Part(
        a, answer.headline(a), answer.details(a), sections.results(a), sections.comparisons(a), sections.costs(a),
        _plots([(f"{prefix}scores", SCORES, plots.scores(a, style))], out),
        _plots(_curves(a, prefix, style), out),
        _plots(_frontier(content, a, prefix, runs, families), out),
    )  # fmt: skip


def _curves(a: Analysis, prefix: str, style: plots.Style) -> Iterator[tuple[str, str, Figure | None]]:
    metric = "expected_reward" if a.metric == AREA else a.metric
    for cost in COSTS:
        yield (
            f"{prefix}against-{cost}",
            f"Mean over seeds and its 95 % interval, against {answer.COST_TITLES[cost]}.",
            plots.curves(a, cost, metric, style),
        )
    yield f"{prefix}profile", "Performance profile: the share of runs that score at least so much.", plots.profile(a, style)


def _frontier(
    content: Content, a: Analysis, prefix: str, runs: Sequence[Run], style: plots.Style
) -> Iterator[tuple[str, str, Figure | None]]:
    known = content.known if len(content.analyses) == 1 else {}
    grey = [text for key, text in KNOWN.items() if known.get(key)]
    lines = f" Grey: {' and '.join(grey)}." if grey else ""
    caption = f"Where runs end, how they got there (thin), and the upper envelope.{lines}"
    yield f"{prefix}frontier", caption, plots.frontier(runs, axes(runs), known, style)


def _overview(content: Content) -> Iterator[tuple[str, str, Figure | None]]:
    labels = sorted({entry.label for a in content.analyses for entry in a.entries})
    yield (
        "conditions",
        "Means and 95 % intervals under each condition.",
        plots.conditions(content.analyses, plots.styles(labels)),
    )


def _plots(
    figures: Iterator[tuple[str, str, Figure | None]] | Sequence[tuple[str, str, Figure | None]], out: Path
) -> list[Plot]:
    found = []
    for name, caption, figure in figures:
        if figure is not None:
            found.append(Plot(name, caption, plots.save(figure, out / "plots", name)))
    return found


def markdown(text: object) -> str:
    """Text that Markdown shows as it is, in a table too."""
    escaped = html.escape(str(text), quote=False).replace("\n", "<br>")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", escaped)


def tied(text: str) -> str:
    """With no line break between a number and its unit, or inside 'p = 0.01'."""
    return re.sub(r"(?<=\d) (?=%|s\b|seeds|samples|points|FLOPs)|(?<=\bp) (?==)|(?<=\bp =) (?=\d)", "\N{NO-BREAK SPACE}", text)
