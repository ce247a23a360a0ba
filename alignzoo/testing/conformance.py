"""The conformance suite: the properties every plugin has, each with a name, checked one at a time.

    for subject in conformance.subjects("dpo", folder):
        for result in conformance.run(subject):
            print(result.property.name, result.failure or "holds")

Hyperparameters are not varied for presets, nor are presets trained: they share the code of the algorithm they belong to.
Rewards, references, data sources, metrics and hosted trainers have smaller suites of their own.
"""

from __future__ import annotations

import re
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from alignzoo.config.registry import METRIC, Plugin, Registry, unknown
from alignzoo.contracts import Algorithm, OnlineAlgorithm
from alignzoo.errors import UserError
from alignzoo.testing import (
    declarations,
    direction,
    flow,
    mathematics,
    placement,
    references,
    rewards,
    search,
    settings,
    sources,
    tie,
    trainers,
    training,
    worked,
)
from alignzoo.testing.find import find
from alignzoo.testing.part import Part, composes, help_texts, part, summary
from alignzoo.testing.subject import Broken, RepeatedFailure, Subject, registered

__all__ = [
    "PROPERTIES", "Broken", "Part", "Property", "Result", "Subject", "asked", "failure", "questions", "registered", "run",
    "subjects",
]  # fmt: skip

CORE = Path(__file__).parents[1]


class Scope(Enum):
    """Which subjects a property is asked of."""

    ALL = "all"
    REGISTERED = "registered"  # of algorithms found by name, not of presets
    PRESET = "preset"
    ONLINE = "online"
    TRAINED = "trained"  # of algorithms, not of presets
    TESTED = "tested"  # of what has a test beside it


@dataclass(frozen=True)
class Property:
    """`check` raises `Broken` where the property does not hold of a subject."""

    check: Callable[[Any], None]
    scope: Scope = Scope.ALL

    @property
    def name(self) -> str:
        return self.check.__name__

    @property
    def meaning(self) -> str:
        return (self.check.__doc__ or "").strip()

    def applies(self, subject: Subject) -> bool:
        return self._asked(subject.online, subject.plugin)

    def _asked(self, online: bool, plugin: Plugin | None) -> bool:
        preset = plugin is not None and plugin.preset is not None
        return {
            Scope.ALL: True,
            Scope.REGISTERED: plugin is not None and not preset,
            Scope.PRESET: preset,
            Scope.ONLINE: online,
            Scope.TRAINED: not preset,
            Scope.TESTED: plugin is not None and worked.file(plugin) is not None,
        }[self.scope]


OWN_TEST = Property(worked.own_test, Scope.TESTED)
PROPERTIES = (
    Property(declarations.composes, Scope.REGISTERED),
    Property(declarations.roles),
    Property(declarations.card, Scope.REGISTERED),
    Property(declarations.preset_card, Scope.PRESET),
    Property(declarations.help_texts),
    Property(search.search_spaces, Scope.TRAINED),
    OWN_TEST,
    Property(mathematics.shapes),
    Property(mathematics.gradients),
    Property(mathematics.padding),
    Property(mathematics.order),
    Property(mathematics.rows_alone),
    Property(mathematics.context_only),
    Property(mathematics.nothing_scored),
    Property(mathematics.single_tokens),
    Property(mathematics.unchanged),
    Property(mathematics.random_streams),
    Property(mathematics.at_the_start),
    Property(mathematics.samples, Scope.ONLINE),
    Property(mathematics.temperature, Scope.ONLINE),
    Property(flow.every_token),
    Property(flow.constants),
    Property(direction.direction),
    Property(direction.each_reward, Scope.ONLINE),
    Property(direction.failed_scores, Scope.ONLINE),
    Property(direction.groups, Scope.ONLINE),
    Property(tie.reference),
    Property(placement.dtype),
    Property(placement.device),
    Property(placement.speed),
    Property(training.accumulation),
    Property(settings.hyperparameters, Scope.TRAINED),
    Property(training.trains, Scope.TRAINED),
    Property(training.resumes, Scope.TRAINED),
    Property(training.watching, Scope.TRAINED),
    Property(training.state, Scope.TRAINED),
)

PLAIN = (composes, help_texts, summary)
SUITES: dict[str, tuple[Callable[[Part], None], ...]] = {  # of what is no algorithm, by group
    "reward": (*PLAIN, *rewards.CHECKS),
    "reference": (*PLAIN, *references.CHECKS),
    "data": (*PLAIN, *sources.CHECKS),
    "trainer": (*PLAIN, *trainers.CHECKS),
    METRIC: (summary, *rewards.METRIC_CHECKS),
}


@dataclass(frozen=True)
class Result:
    property: Property
    failure: Exception | None


def questions() -> list[tuple[str, Property]]:
    """Every registered algorithm and preset with each property asked of it. Hosted trainers have a suite of their own."""
    registry, found = Registry(), []
    for name in registry.names("algorithm"):
        kind, plugin = registry.load("algorithm", name), registry.get("algorithm", name)
        if issubclass(kind, Algorithm):
            online = issubclass(kind, OnlineAlgorithm)
            found += [(name, prop) for prop in PROPERTIES if prop._asked(online, plugin)]
    return found


def subjects(target: str, folder: Path, overrides: Sequence[str] = ()) -> list[Subject | Part]:
    """What a name, GROUP=NAME, a file or folder, or an installed package stands for. Raises UserError where that is nothing.

    `overrides` give plugins their settings, as `reward.path=...`; each subject works in a folder of its own within `folder`.
    """
    return [_subject(plugin, plugins_dir, folder / plugin.group, overrides) for plugin, plugins_dir in find(target)]


def _subject(plugin: Plugin, plugins_dir: Path | None, folder: Path, overrides: Sequence[str]) -> Subject | Part:
    if plugin.group == "algorithm" and issubclass(Registry(plugins_dir).load("algorithm", plugin.name), Algorithm):
        return registered(plugin.name, folder / plugin.name, plugins_dir, overrides)
    return part(plugin, folder / plugin.name, plugins_dir, overrides)


def asked(subject: Subject | Part, skipped: Collection[str] = ()) -> list[Property]:
    """The properties asked of a subject. Raises UserError for one to skip that there is not."""
    if isinstance(subject, Subject):
        found = [prop for prop in PROPERTIES if prop.applies(subject)]
    else:
        suite = [*map(Property, SUITES[subject.group]), OWN_TEST]
        found = [prop for prop in suite if prop._asked(False, subject.plugin)]
    for name in skipped:
        if name not in {prop.name for prop in (*PROPERTIES, *found)}:
            raise UserError(unknown("property", name, {prop.name for prop in found}))
    return [prop for prop in found if prop.name not in skipped]


def run(subject: Subject | Part, skipped: Collection[str] = ()) -> Iterator[Result]:
    """Every property that applies, and what is wrong with it, or None. An error in the plugin's own code is a failure too."""
    for prop in asked(subject, skipped):
        yield Result(prop, failure(prop, subject))


def failure(prop: Property, subject: Subject | Part) -> Exception | None:
    """What is wrong; an error that an earlier property ended with is not told again."""
    try:
        with _others_only_warn(subject):
            prop.check(subject)
    except Broken as error:
        return error
    except UserError as error:
        return _first_time(error, prop, subject)
    except Exception as error:
        found = f"{type(error).__name__}: {error}{_place(error)}"
        return _first_time(Broken(prop.meaning, found, "an error in the plugin's own code"), prop, subject)
    return None


def _first_time(error: Exception, prop: Property, subject: Subject | Part) -> Exception:
    text = error.found if isinstance(error, Broken) else str(error)
    earlier = subject.errors.setdefault(re.sub(r"(?<!line )\d+", "", text), prop.name)  # sizes differ from one to the next
    return error if earlier == prop.name else RepeatedFailure(earlier)


@contextmanager
def _others_only_warn(subject: Subject | Part) -> Iterator[None]:
    """Where warnings are errors, only those that the plugin's own files cause are: what a library of today deprecates in the
    core or in another library is no fault of the plugin, and is shown."""
    checked = subject.algorithm if isinstance(subject, Subject) else subject.made
    module = subject.plugin.module if subject.plugin else getattr(checked, "__module__", type(checked).__module__)
    package = module.rpartition(".")[0] or module
    with warnings.catch_warnings():
        if any(action == "error" for action, *_ in warnings.filters):
            warnings.filterwarnings("default", module=rf"(?!{re.escape(package)}(\.|$))")
        yield


def _place(error: Exception) -> str:
    """The innermost line outside the core and its libraries, where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(part in f.filename for part in ("site-packages", str(CORE), "/lib/python"))]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
