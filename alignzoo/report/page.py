"""report.html, one file that needs nothing else, and report.md with its plots beside it: the same content twice."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Union

from alignzoo.common.disk import write_whole
from alignzoo.common.metric_table import AREA, COST_TITLES
from alignzoo.report import across, climbed, costs, kl_frontier, plots, prose, reliability, sections, trials
from alignzoo.report.analysis import Analysis, averaged
from alignzoo.report.figures import Plot, Style, save_plot, styles
from alignzoo.report.prose import TextTable
from alignzoo.report.side_by_side import PromptAnswers, side_by_side
from alignzoo.report.study import Study
from alignzoo.runs.results import COSTS, Run

SCORES = "Each point is a seed; the diamond is the mean, the bar and the brackets its 95 % interval."
CONDITIONS = "Means over seeds, and their 95 % intervals as bands."
SHORTER = ("samples",)  # what curves are shown against where there are several conditions
Block = Union[str, TextTable, Plot, PromptAnswers, "Command", "Section"]


@dataclass(frozen=True)
class Command:
    text: str


@dataclass(frozen=True)
class Section:
    """What stands under one title, in order; `folded`: to be opened by who wants it. A section without a block is not shown."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False


@dataclass(frozen=True)
class Opening:
    """The first screen: the answer, the plot it is seen in, and what a run costs."""

    headline: str
    details: list[str]
    plots: list[Plot]
    bill: TextTable


@dataclass(frozen=True)
class Content:
    """All that the report is made of."""

    runs: list[Run]
    analyses: list[Analysis]
    about: Study
    left_out: dict[str, str]
    command: str

    @property
    def commands(self) -> list[str]:
        """Those that made the runs, as far as they are known, and the one that made this page."""
        of_runs = self.about.command or [run.command for run in self.runs]
        return [command for command in dict.fromkeys([*of_runs, self.command]) if command]


def write(content: Content, out: Path) -> Path:
    """Both pages, and plots/ with each plot as SVG."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    (out / "plots").mkdir(exist_ok=True)
    opening, shown = _sections(content, out / "plots")
    values = {"title": content.about.suite or "report", "counts": sections.counts(content.runs), "first": opening}
    for name, escape in (("report.html", True), ("report.md", False)):
        environment = Environment(
            loader=FileSystemLoader(prose.TEMPLATES), autoescape=escape, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        environment.filters.update(md=markdown, tied=tied, groupby_kind=_by_kind)
        write_whole(out / name, environment.get_template(name).render(**values, body=Section("", shown)))
    return out / "report.html"


def _sections(content: Content, folder: Path) -> tuple[Opening, list[Section]]:
    """Under one condition its parts stand open; of several the means over them do, and each condition is folded."""
    analyses, about = content.analyses, content.about
    last = [_side_by_side(content), _reproduce(content)]
    if len(analyses) == 1:
        plots_of_answer, shown = _part(analyses[0], about, partial(save_plot, folder), COSTS)
        opening = Opening(analyses[0].headline, analyses[0].details, plots_of_answer, sections.bill(analyses[0]))
        return opening, [_method(content, None), *shown, *last]
    parts = [_part(a, about, partial(save_plot, folder, prefix=f"{i}-"), SHORTER) for i, a in enumerate(analyses)]
    by_condition = [
        Section(f"{a.condition_text}: {a.headline}", [*a.details, *plots_of_answer, *shown], folded=True)
        for a, (plots_of_answer, shown) in zip(analyses, parts, strict=True)
    ]
    style = styles(sorted({entry.label for a in analyses for entry in a.entries}))
    drawn: list[Plot] = []
    for key, figure in plots.conditions_by_setting(analyses, style):
        drawn += save_plot(folder, f"conditions-{key}" if drawn else "conditions", CONDITIONS, figure)
    mean = averaged(analyses, about)
    headline, details, means = prose.paragraphs("conditions_headline", analyses)[0], across.sentences(analyses), Section("", [])
    if mean:
        if len(mean.entries) > 1:
            headline = mean.headline
        details = [*mean.details, *details, *(prose.paragraphs("families") if mean.comparisons else [])]
        scores = save_plot(folder, "mean-scores", SCORES, plots.scores(mean, style))
        tables = [sections.results(mean), sections.comparisons(mean)]
        means = Section("Means over conditions: scores, pairs", [*scores, *tables], folded=True)
    opening = Opening(headline, details, drawn or parts[0][0], sections.bill(mean or analyses[0]))
    return opening, [
        Section("Over conditions", [across.table(analyses, mean), means]), _method(content, mean), *by_condition, *last,
    ]  # fmt: skip


def _part(
    a: Analysis, about: Study, save: Callable[..., list[Plot]], against: Sequence[str]
) -> tuple[list[Plot], list[Section]]:
    """One condition: the plot that its answer is seen in, and its sections; curves are drawn `against` these costs."""
    style = styles([entry.label for entry in a.entries])
    answer = scores = save("scores", SCORES, plots.scores(a, style))
    beside, pairs, judged = list[Plot](), sections.comparisons(a), reliability.table(a)
    frontier, climbs, reliable = list[Block](), list[Block](), list[Block]()
    if a.frontier:
        reach = save("frontier", kl_frontier.caption(a.frontier), plots.frontier(a.frontier, style))
        frontier = [kl_frontier.table(a.frontier), *prose.paragraphs("frontier", a.frontier)]
        if a.metric == AREA:
            answer, beside = reach, scores
        else:
            frontier = [*reach, *frontier]
    if a.climbs:
        climbs = [
            *save("gold", climbed.GOLD, climbed.gold(a.climbs, style)),
            *save("proxy", climbed.PROXY, climbed.proxy(a.climbs, style)),
            *prose.paragraphs("climbs", a.climbs, a.comparisons if a.metric == "gold" else []),
            *climbed.tables(a.climbs),
        ]
    if judged:
        reliable = [*save("reliability", reliability.CAPTION, reliability.plot(a, style)), judged]
    return answer, [
        Section("Results", [
            *beside, *sections.on_defaults(a, about), sections.results(a), Section("Pairs", [pairs] if pairs.rows else []),
        ]),
        Section("Learning curves", _curves(a, style, save, against)),
        Section("Right when it is sure?", reliable),
        Section("Gold reward and its proxy", climbs),
        Section("Reward against KL", frontier),
        Section("Cost", ["Means over an algorithm's runs.", *costs.tables(a)]),
    ]  # fmt: skip


def _curves(a: Analysis, style: Style, save: Callable[..., list[Plot]], against: Sequence[str]) -> list[Plot]:
    stretched = " The axis stretches towards 100 %." if a.metric == "gap_closed" else ""
    shown: list[Plot] = []
    for cost in () if a.metric == AREA else against:
        caption = f"Against {COST_TITLES[cost]}: the mean over seeds and its 95 % interval.{stretched}"
        shown += save(f"against-{cost}", caption, plots.curves(a, cost, a.metric, style))
    return shown


def _method(content: Content, mean: Analysis | None) -> Section:
    statistics = prose.paragraphs("statistics", content.analyses[0], mean)
    blocks: list[Block] = [
        *sections.method(content.runs, content.analyses, content.about),
        Section("How intervals and tests work", statistics, folded=True),
        Section("Settings of each algorithm", [sections.settings(content.runs)], folded=True),
    ]
    if tuning := content.about.tuning:
        blocks += trials.sentences(tuning)
        blocks.append(Section("What tuning tried", [trials.ranges(tuning), trials.trials(tuning)], folded=True))
    return Section("Method", blocks)


def _side_by_side(content: Content) -> Section:
    last = content.analyses[-1]
    seed, answers = side_by_side([run for run in content.runs if run.condition == last.condition])
    under = f" under {last.condition_text}" if len(content.analyses) > 1 else ""
    about = f"Of the runs with seed {seed}{under}, at their end; their scores in brackets."
    return Section("Completions side by side", [about, *answers] if answers else [])


def _reproduce(content: Content) -> Section:
    left_out = content.left_out | {folder: why for a in content.analyses for folder, why in a.failed.items()}
    table = TextTable(["run", "why"], [[folder, why] for folder, why in left_out.items()], "texts")
    return Section(
        "Reproduce",
        [
            *map(Command, content.commands),
            "Each run's folder has its whole configuration in config.yaml; results.jsonl and results.parquet have a row a run.",
            Section("Versions and hardware", [sections.machine(content.runs)], folded=True),
            Section("Left out", [table] if left_out else []),
        ],
    )


def _by_kind(blocks: Sequence[Block]) -> list[tuple[str, list[Block]]]:
    """Blocks of one kind that follow each other, as ("str", [...]): plots stand side by side."""
    return [(kind, list(run)) for kind, run in groupby(blocks, lambda block: type(block).__name__)]


def markdown(text: object) -> str:
    """Text that Markdown shows as it is, in a table too."""
    escaped = html.escape(str(text), quote=False).replace("\n", "<br>")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", escaped)


def tied(text: str) -> str:
    """With no line break between a number and its unit, or inside 'p = 0.01'."""
    return re.sub(r"(?<=\d) (?=%|s\b|seeds|samples|points|FLOPs)|(?<=\bp) (?==)|(?<=\bp =) (?=\d)", "\N{NO-BREAK SPACE}", text)
