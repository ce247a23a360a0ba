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
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from alignzoo.config.registry import METRIC, SAMPLER, Plugin, unknown
from alignzoo.errors import UserError
from alignzoo.testing import (
    declarations,
    direction,
    flow,
    hyperparameters,
    mathematics,
    placement,
    reference_checks,
    reward_checks,
    sampler_checks,
    source_checks,
    trainer_checks,
    training,
)
from alignzoo.testing.declarations import composes, help_texts, own_test, own_test_file, summary
from alignzoo.testing.expect import Broken, RepeatedFailure
from alignzoo.testing.find import registered, subjects
from alignzoo.testing.subject import Part, Subject

__all__ = ["PROPERTIES", "Broken", "Part", "Property", "Result", "Subject", "asked", "failure", "registered", "run", "subjects"]

CORE = Path(__file__).parents[1]


class Scope(Enum):
    """Which subjects a property is asked of."""

    ALL = "all"
    REGISTERED = "registered"  # of algorithms found by name, not of presets
    PRESET = "preset"
    ONLINE = "online"
    TRAINED = "trained"  # of algorithms, not of presets
    TESTED = "tested"  # of what has a test beside it

    def holds(self, plugin: Plugin | None, online: bool) -> bool:
        preset = plugin is not None and plugin.preset is not None
        return {
            Scope.ALL: True,
            Scope.REGISTERED: plugin is not None and not preset,
            Scope.PRESET: preset,
            Scope.ONLINE: online,
            Scope.TRAINED: not preset,
            Scope.TESTED: own_test_file(plugin) is not None,
        }[self]


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


OWN_TEST = Property(own_test, Scope.TESTED)
PROPERTIES = tuple(  # in the order in which they are checked: what ends many is told by the first
    Property(check, scope)
    for scope, checks in (
        (Scope.REGISTERED, (composes, declarations.card)),
        (Scope.PRESET, (declarations.preset_card,)),
        (Scope.ALL, (declarations.roles, help_texts)),
        (Scope.TRAINED, (hyperparameters.search_spaces,)),
        (Scope.TESTED, (own_test,)),
        (Scope.ALL, (*mathematics.CHECKS, *flow.CHECKS, *placement.CHECKS, direction.direction, direction.reference)),
        (Scope.ONLINE, (mathematics.samples, mathematics.temperature, *direction.ONLINE_CHECKS)),
        (Scope.ALL, (training.accumulation,)),
        (Scope.TRAINED, (hyperparameters.hyperparameters, *training.CHECKS)),
    )
    for check in checks
)
PLAIN = (composes, help_texts, summary)
SUITES: dict[str, tuple[Callable[[Any], None], ...]] = {  # of what is no algorithm, by group
    "reward": (*PLAIN, *reward_checks.CHECKS),
    "reference": (*PLAIN, *reference_checks.CHECKS),
    "data": (*PLAIN, *source_checks.CHECKS),
    "trainer": (*PLAIN, *trainer_checks.CHECKS),
    METRIC: (summary, *reward_checks.METRIC_CHECKS),
    SAMPLER: (help_texts, summary, *sampler_checks.CHECKS),
}


@dataclass(frozen=True)
class Result:
    property: Property
    failure: Exception | None


def asked(subject: Part[object], skipped: Collection[str] = ()) -> list[Property]:
    """The properties asked of a subject. Raises UserError for one to skip that there is not."""
    online = isinstance(subject, Subject) and subject.online
    suite = PROPERTIES if subject.group == "algorithm" else (*map(Property, SUITES[subject.group]), OWN_TEST)
    properties = [prop for prop in suite if prop.scope.holds(subject.plugin, online)]
    for name in skipped:
        if name not in {prop.name for prop in (*PROPERTIES, *suite)}:
            raise UserError(unknown("property", name, {prop.name for prop in properties}))
    return [prop for prop in properties if prop.name not in skipped]


def run(subject: Part[object], skipped: Collection[str] = ()) -> Iterator[Result]:
    """Every property that applies, and what is wrong with it, or None. An error in the plugin's own code is a failure too."""
    for prop in asked(subject, skipped):
        yield Result(prop, failure(prop, subject))


def failure(prop: Property, subject: Part[object]) -> Exception | None:
    """What is wrong; an error that an earlier property ended with is not told again."""
    try:
        with _others_only_warn(subject):
            prop.check(subject)
    except Broken as error:
        return error
    except UserError as error:
        return _first_time(error, prop, subject)
    except Exception as error:
        text = f"{type(error).__name__}: {error}{_place(error)}"
        return _first_time(Broken(prop.meaning, text, "an error in the plugin's own code"), prop, subject)
    return None


def _first_time(error: Exception, prop: Property, subject: Part[object]) -> Exception:
    text = error.found if isinstance(error, Broken) else str(error)
    earlier = subject.errors.setdefault(re.sub(r"(?<!line )\d+", "", text), prop.name)  # sizes differ from one to the next
    return error if earlier == prop.name else RepeatedFailure(earlier)


@contextmanager
def _others_only_warn(subject: Part[object]) -> Iterator[None]:
    """Where warnings are errors, only those that the plugin's own files cause are: what a library of today deprecates in the
    core or in another library is no fault of the plugin, and is shown."""
    instance = subject.instance
    module = subject.plugin.module if subject.plugin else getattr(instance, "__module__", type(instance).__module__)
    package = module.rpartition(".")[0] or module
    with warnings.catch_warnings():
        if any(action == "error" for action, *_ in warnings.filters):
            warnings.filterwarnings("default", module=rf"(?!{re.escape(package)}(\.|$))")
        yield


def _place(error: Exception) -> str:
    """The innermost line outside the core and its libraries, where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    outer = [f for f in frames if not any(part in f.filename for part in ("site-packages", str(CORE), "/lib/python"))]
    return f" ({Path(outer[-1].filename).name}, line {outer[-1].lineno})" if outer else ""
