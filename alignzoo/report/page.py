"""report.html, one file that needs nothing else, and report.md with its plots beside it: the same content twice."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alignzoo.common.disk import write_whole
from alignzoo.report import across, answer, climbed, costs, judging, plots, reach, sections, tuning
from alignzoo.report.analysis import AREA, Analysis, averaged
from alignzoo.report.figures import Style, save, styles
from alignzoo.report.samples import side_by_side
from alignzoo.report.study import Study
from alignzoo.runs.results import COSTS, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORES = "Each point is a seed; the diamond is the mean, the bar and the brackets its 95 % interval."
SHORTER = ("samples",)  # what curves are shown against where there are several conditions
TEMPLATES = Path(__file__).parent / "templates"
Figures = Iterator[tuple[str, str, "Figure | None"]] | Sequence[tuple[str, str, "Figure | None"]]


@dataclass(frozen=True)
class Plot:
    name: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Part:
    """One condition of the study, or all together, with its plots by group."""

    analysis: Analysis
    headline: str
    details: list[str]
    bill: sections.Table
    on_defaults: str
    results: sections.Table
    comparisons: sections.Table
    costs: list[sections.Table]
    scores: list[Plot]
    curves: list[Plot]
    frontier: list[Plot]
    reach: sections.Table | None
    about_reach: list[str]
    climbs: list[Plot]
    climbed: list[sections.Table]
    about_climbs: list[str]
    reliability: list[Plot]
    judging: sections.Table | None

    @property
    def condition(self) -> str:
        return answer.condition_text(self.analysis)

    @property
    def first(self) -> list[Plot]:
        """What the answer is seen in."""
        return self.frontier if self.analysis.metric == AREA else self.scores

    @property
    def then(self) -> list[Plot]:
        """What stands beside the results."""
        return self.scores if self.analysis.metric == AREA else []


@dataclass(frozen=True)
class Content:
    """All that the report is made of."""

    runs: list[Run]
    analyses: list[Analysis]
    about: Study
    left_out: dict[str, str]
    command: str

    @property
    def reproduce(self) -> list[str]:
        """The commands that made the runs, as far as they are known, and the one that made this page."""
        own = [run.command for run in self.runs if run.command]
        return list(dict.fromkeys([*(self.about.command or own), *([self.command] if self.command else [])]))


@dataclass(frozen=True)
class Whole:
    """What opens a report on several conditions."""

    headline: str
    details: list[str]
    table: sections.Table
    plots: list[Plot]
    part: Part | None


def write(content: Content, out: Path) -> Path:
    """Both pages, and plots/ with each plot as SVG and PNG."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    (out / "plots").mkdir(exist_ok=True)
    several = len(content.analyses) > 1
    mean = averaged(content.analyses, content.about) if several else None
    parts = [_part(a, f"{i}-" if several else "", out, content.about) for i, a in enumerate(content.analyses)]
    seed, samples = side_by_side([run for run in content.runs if run.condition == content.analyses[-1].condition])
    values = {
        "title": content.about.suite or "report", "counts": sections.counts(content.runs),
        "parts": parts, "samples": samples, "sample_seed": seed,
        "whole": _whole(content.analyses, mean, out, content.about) if several else None,
        "method": sections.method(content.runs, content.analyses, content.about), "settings": sections.settings(content.runs),
        "statistics": sections.statistics(content.analyses[0], mean),
        "tuning": tuning.section(content.about.tuning), "machine": sections.machine(content.runs),
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
        write_whole(out / name, environment.get_template(name).render(**values))
    return out / "report.html"


def _part(a: Analysis, prefix: str, out: Path, about: Study) -> Part:
    style = styles([entry.label for entry in a.entries])
    return Part(
        a, answer.headline(a), [text for text in answer.details(a) if text], sections.bill(a),
        sections.on_defaults(a, about), sections.results(a),
        sections.comparisons(a), costs.tables(a),
        _plots([(f"{prefix}scores", SCORES, plots.scores(a, style))], out),
        _plots(_curves(a, prefix, style), out),
        _plots(_frontier(a, prefix, style), out),
        reach.table(a.frontier) if a.frontier else None,
        reach.paragraphs(a.frontier) if a.frontier else [],
        _plots(_climbs(a, prefix, style), out),
        climbed.tables(a.climbs) if a.climbs else [],
        climbed.paragraphs(a.climbs, a.comparisons if a.metric == "gold" else []) if a.climbs else [],
        _plots([(f"{prefix}reliability", judging.CAPTION, judging.plot(a, style))], out),
        judging.table(a),
    )  # fmt: skip


def _whole(analyses: Sequence[Analysis], mean: Analysis | None, out: Path, about: Study) -> Whole:
    style = styles(sorted({entry.label for a in analyses for entry in a.entries}))
    said = [text for text in answer.details(mean) if text] if mean else []
    shown = plots.conditions_by_setting(analyses, style)
    caption = "Means over seeds, and their 95 % intervals as bands."
    return Whole(
        answer.headline(mean) if mean and len(mean.entries) > 1 else across.headline(analyses),
        [*said, *across.sentences(analyses), *([sections.FAMILIES] if mean and mean.comparisons else [])],
        across.table(analyses, mean),
        _plots([(f"conditions-{key}" if i else "conditions", caption, found) for i, (key, found) in enumerate(shown)], out),
        _part(mean, "mean-", out, about) if mean else None,
    )


def _curves(a: Analysis, prefix: str, style: Style) -> Iterator[tuple[str, str, Figure | None]]:
    stretched = " The axis stretches towards 100 %." if a.metric == "gap_closed" else ""
    for cost in () if a.over > 1 or a.metric == AREA else SHORTER if prefix else COSTS:
        yield (
            f"{prefix}against-{cost}",
            f"Against {answer.COST_TITLES[cost]}: the mean over seeds and its 95 % interval.{stretched}",
            plots.curves(a, cost, a.metric, style),
        )
    yield f"{prefix}profile", "Performance profile: the share of runs that score at least so much.", plots.profile(a, style)


def _frontier(a: Analysis, prefix: str, style: Style) -> Iterator[tuple[str, str, Figure | None]]:
    if a.frontier:
        known = a.frontier.known
        lines = [text for text, points in (("the optimum", known.optimum), ("best of n", known.best_of_n)) if points]
        grey = f" Grey: {' and '.join(lines)}." if lines else ""
        caption = (
            f"Points: where runs end. Thin: how they got there. Lines: the upper envelope.{grey} Dotted: the KL of the table."
        )
        yield f"{prefix}frontier", caption, plots.frontier(a.frontier, style)


def _climbs(a: Analysis, prefix: str, style: Style) -> Iterator[tuple[str, str, Figure | None]]:
    if a.climbs:
        yield f"{prefix}gold", "Gold: every evaluation a point; lines: the law fitted.", climbed.gold(a.climbs, style)
        yield f"{prefix}proxy", "The proxy on the same way: a line a seed.", climbed.proxy(a.climbs, style)


def _plots(figures: Figures, out: Path) -> list[Plot]:
    found = []
    for name, caption, figure in figures:
        if figure is not None:
            found.append(Plot(name, caption, save(figure, out / "plots", name)))
    return found


def markdown(text: object) -> str:
    """Text that Markdown shows as it is, in a table too."""
    escaped = html.escape(str(text), quote=False).replace("\n", "<br>")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", escaped)


def tied(text: str) -> str:
    """With no line break between a number and its unit, or inside 'p = 0.01'."""
    return re.sub(r"(?<=\d) (?=%|s\b|seeds|samples|points|FLOPs)|(?<=\bp) (?==)|(?<=\bp =) (?=\d)", "\N{NO-BREAK SPACE}", text)
