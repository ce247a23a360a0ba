"""Properties of what a plugin says of itself: its name, schema, roles and card."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from alignzoo.batch import Batch
from alignzoo.config.registry import Registry
from alignzoo.contracts import Couples, Kind, Role
from alignzoo.engine.checks import METHODS, check_roles
from alignzoo.errors import UserError
from alignzoo.testing.subject import Subject, composed, expect

STARTS = ("policy", "reference", "reward", "config")


def composes(subject: Subject) -> None:
    """`algorithm=NAME` gives this class, and a key it does not have is refused."""
    chosen = [f"algorithm={subject.name}", *subject.overrides]
    made = composed(chosen, subject.plugins_dir)
    expect(made == subject.algorithm, f"{subject.algorithm}", f"{made}", "a field that Hydra can't express")
    try:
        composed([*chosen, "+algorithm.no_such_key=1"], subject.plugins_dir)
    except UserError:
        return
    expect(False, "an unknown key to be refused", "it was taken", "the schema is not the dataclass")


def roles(subject: Subject) -> None:
    """The roles are well formed, and a run can supply them."""
    algorithm, declared = subject.algorithm, dict(subject.algorithm.roles())
    for name, role in declared.items():
        _role(name, role, declared)
    made = subject.setup()
    check_roles(subject.name, algorithm, made.reward, made.reference, made.data, made.roles)
    records = isinstance(algorithm.data, type) and issubclass(algorithm.data, Batch)
    expect(records, "`data` to be a record type", f"{algorithm.data}", "`data` is an instance, or a property of the class")
    expect(isinstance(algorithm.couples, Couples), "`couples` to be a Couples", f"{algorithm.couples}", "a string")
    expect(subject.passes >= 1, "`passes` to be at least 1", f"{subject.passes}", "a hyperparameter without a check")


def _role(name: str, role: Role, declared: dict[str, Role]) -> None:
    if role.kind is Kind.REWARD:
        expect(
            not role.trained, f"the role {name} not to be trained", "trained=True", "a reward learns through its own `roles`"
        )
        return
    known = role.needs <= METHODS[role.kind] | {"logprobs"}
    expect(known, f"the role {name} to need some of {sorted(METHODS[role.kind])}", f"{sorted(role.needs)}", "a misspelt need")
    expect(role.start in STARTS, f"the role {name} to start from one of {STARTS}", repr(role.start), "a misspelt start")
    shared = role.shares is None or role.shares in declared
    expect(shared, f"the role {name} to share a declared role", f"{role.shares}", "the shared role is missing")


def card(subject: Subject) -> None:
    """The card's front matter is whole and agrees with the class."""
    found = Registry(subject.plugins_dir).card("algorithm", subject.name)
    missing = [f"`{key}`" for key in ("family", "summary", "data", "paper") if not getattr(found, key)]
    source = subject.plugin.source if subject.plugin else None
    alone = source is not None and source.stem != source.parent.name
    cause = f"{source.stem}.md or README.md beside it lacks them" if source and alone else "README.md beside it lacks them"
    expect(not missing, f"{', '.join(missing)} in the card's front matter", "nothing", cause)
    expect("\n" not in found.summary, "a summary of one line", repr(found.summary), "a folded YAML string")
    needs = sorted(subject.algorithm.roles())
    expect(sorted(found.needs) == needs, f"`needs: {needs}` in the card", f"{sorted(found.needs)}", "`roles` has changed since")
    data = subject.algorithm.data.__name__
    expect(found.data == data, f"`data: {data}` in the card", found.data, "`data` has changed since")


def preset_card(subject: Subject) -> None:
    """A preset says in its first comment line what it is."""
    summary = Registry(subject.plugins_dir).card("algorithm", subject.name).summary
    expect(bool(summary), "a first line `# what this preset is`", "nothing", "the YAML file starts without a comment")


def help_texts(subject: Subject) -> None:
    """Every hyperparameter says what it means."""
    silent = [path for path, text in helps(subject.algorithm) if not text.strip()]
    expect(
        not silent, "a help text for every field", f"none for {', '.join(silent)}", "field(metadata={'help': ...}) is missing"
    )


def helps(settings: Any, prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for f in fields(settings):
        found.append((prefix + f.name, f.metadata.get("help", "")))
        if is_dataclass(getattr(settings, f.name)):
            found += helps(getattr(settings, f.name), f"{prefix}{f.name}.")
    return found
