"""The conformance suite: the properties every algorithm has, each with a name, checked one at a time.

    for result in conformance.run(conformance.registered("dpo", folder)):
        print(result.property.name, result.failure or "holds")

Hyperparameters are not varied for presets, nor are presets trained: they share the code of the algorithm they belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from alignzoo.contracts import Algorithm, OnlineAlgorithm
from alignzoo.registry import Plugin, Registry
from alignzoo.settings import UserError
from alignzoo.testing import declarations, mathematics, settings, training
from alignzoo.testing.subject import Broken, Subject, registered

__all__ = ["PROPERTIES", "Broken", "Property", "Result", "Subject", "questions", "registered", "run"]


class Scope(Enum):
    """Which subjects a property is asked of."""

    ALL = "all"
    REGISTERED = "registered"  # of algorithms found by name, not of presets
    PRESET = "preset"
    ONLINE = "online"
    TRAINED = "trained"  # of algorithms, not of presets


@dataclass(frozen=True)
class Property:
    """`check` raises `Broken` where the property does not hold of a subject."""

    check: Callable[[Subject], None]
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
        }[self.scope]


PROPERTIES = (
    Property(declarations.composes, Scope.REGISTERED),
    Property(declarations.roles),
    Property(declarations.card, Scope.REGISTERED),
    Property(declarations.preset_card, Scope.PRESET),
    Property(declarations.help_texts),
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
    Property(training.accumulation),
    Property(settings.hyperparameters, Scope.TRAINED),
    Property(training.trains, Scope.TRAINED),
    Property(training.resumes, Scope.TRAINED),
    Property(training.watching, Scope.TRAINED),
    Property(training.state, Scope.TRAINED),
)


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


def run(subject: Subject) -> Iterator[Result]:
    """Every property that applies, and what is wrong with it, or None. An error in the plugin's own code is a failure too."""
    for prop in PROPERTIES:
        if prop.applies(subject):
            yield Result(prop, _failure(prop, subject))


def _failure(prop: Property, subject: Subject) -> Exception | None:
    try:
        prop.check(subject)
    except (Broken, UserError) as error:
        return error
    except Exception as error:
        return Broken(prop.meaning, f"{type(error).__name__}: {error}", "an error in the plugin's own code")
    return None
