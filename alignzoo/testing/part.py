"""A reward, reference, data source, metric or hosted trainer under test, and the properties that all of them have."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from alignzoo.config.registry import METRIC, Plugin, Registry
from alignzoo.errors import UserError
from alignzoo.setup import RunConfig
from alignzoo.testing import toys
from alignzoo.testing.declarations import helps
from alignzoo.testing.lab import Lab
from alignzoo.testing.placement import Yardstick
from alignzoo.testing.subject import Subject, expect


@dataclass
class Part:
    """A plugin that is no algorithm. `made` is its instance, or a metric's function; `folder` is where its runs go."""

    name: str
    group: str
    made: Any
    folder: Path
    plugin: Plugin | None = None
    plugins_dir: Path | None = None
    overrides: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)  # those that properties ended with, and which was the first

    def fresh(self) -> Any:
        """An instance of its own, so that checks don't disturb each other."""
        return self.made if self.group == METRIC else copy.deepcopy(self.made)

    def setup(self, algorithm: Any = None, **changes: Any) -> RunConfig:
        """The toy task around `algorithm`, with DPO for none."""
        return toys.setup(algorithm or Yardstick(), **changes)

    @cached_property
    def lab(self) -> Lab:
        """A run with this reference or reward, built but not started."""
        given = {self.group: self.fresh()} if self.group in ("reward", "reference") else {}
        return Subject("dpo", Yardstick(), self.folder).build(still=True, **given)

    def records(self, rows: Sequence[int] = range(8), **shared: Any) -> Any:
        """Made-up completions of the lab's words, over prompts that have others to compare with in the columns `reference`,
        `references` and `answer`."""
        made, other, third = (toys.completions(list(rows), **shared, salt=salt) for salt in range(3))
        several = [list(pair) for pair in zip(other.text, third.text, strict=True)]
        columns: dict[str, list[Any]] = {"reference": other.text, "references": several, "answer": other.text}
        return replace(made, prompts=replace(made.prompts, columns=columns))


def part(plugin: Plugin, folder: Path, plugins_dir: Path | None, overrides: Sequence[str]) -> Part:
    """The subject of a registered name, with the settings that `overrides` give it."""
    registry = Registry(plugins_dir)
    if plugin.group == METRIC:
        return Part(plugin.name, METRIC, registry.metric(plugin.name), folder, plugin, plugins_dir)
    made = node([f"{plugin.group}={plugin.name}", *overrides], plugin.group, plugins_dir)
    hosted = plugin.group == "algorithm"
    return Part(plugin.name, "trainer" if hosted else plugin.group, made, folder, plugin, plugins_dir, list(overrides))


def node(overrides: Sequence[str], group: str, plugins_dir: Path | None) -> Any:
    """The instance of a config group that these overrides give."""
    from alignzoo.config.composition import compose
    from alignzoo.config.run import instantiate

    local = [f"plugins_dir={plugins_dir}"] if plugins_dir else []
    return getattr(instantiate(compose([*overrides, *local])), group)


def composes(part: Part) -> None:
    """Its name gives this class, and a key it does not have is refused."""
    group = "algorithm" if part.group == "trainer" else part.group
    chosen = [f"{group}={part.name}", *part.overrides]
    made = node(chosen, group, part.plugins_dir)
    expect(made == part.made, f"{part.made}", f"{made}", "a field that Hydra can't express, or a class without @dataclass")
    try:
        node([*chosen, f"+{group}.no_such_key=1"], group, part.plugins_dir)
    except UserError:
        return
    expect(False, "an unknown key to be refused", "it was taken", "the schema is not the dataclass")


def help_texts(part: Part) -> None:
    """Every setting says what it means."""
    silent = [path for path, text in helps(part.made) if not text.strip()]
    expect(
        not silent, "a help text for every field", f"none for {', '.join(silent)}", "field(metadata={'help': ...}) is missing"
    )


def summary(part: Part) -> None:
    """It says in one line what it is, in its card or its docstring."""
    registry = Registry(part.plugins_dir)
    text = registry.card(part.plugin.group, part.name).summary if part.plugin else "-"
    expect(bool(text.strip()), "a docstring, or `summary:` in README.md", "nothing", "neither was written")
