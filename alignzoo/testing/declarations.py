"""Properties of what a plugin says of itself: its name, schema, roles and card; and its author's own test."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from alignzoo.batch import Batch
from alignzoo.config.registry import Plugin, Registry
from alignzoo.contracts import Couples, Kind, Role
from alignzoo.engine.checks import METHODS, check_roles
from alignzoo.errors import UserError
from alignzoo.testing.expect import expect
from alignzoo.testing.find import composed
from alignzoo.testing.subject import Part, Subject, options

STARTS = ("policy", "reference", "reward", "config")


def composes(part: Part[object]) -> None:
    """Its name gives this class, and a key it does not have is refused."""
    group = "algorithm" if part.group == "trainer" else part.group
    chosen = [f"{group}={part.name}", *part.overrides]
    instance = composed(group, chosen, part.plugins_dir)
    cause = "a field that Hydra can't express, or a class without @dataclass"
    expect(instance == part.instance, f"{part.instance}", f"{instance}", cause)
    try:
        composed(group, [*chosen, f"+{group}.no_such_key=1"], part.plugins_dir)
    except UserError:
        return
    expect(False, "an unknown key to be refused", "it was taken", "the schema is not the dataclass")


def roles(subject: Subject) -> None:
    """The roles are well formed, and a run can supply them."""
    algorithm, declared = subject.algorithm, dict(subject.algorithm.roles())
    for name, role in declared.items():
        _role(name, role, declared)
    setup = subject.setup()
    check_roles(subject.name, algorithm, setup.reward, setup.reference, setup.data, setup.roles)
    records = isinstance(algorithm.data, type) and issubclass(algorithm.data, Batch)
    expect(records, "`data` to be a record type", f"{algorithm.data}", "`data` is an instance, or a property of the class")
    expect(isinstance(algorithm.couples, Couples), "`couples` to be a Couples", f"{algorithm.couples}", "a string")
    expect(subject.passes >= 1, "`passes` to be at least 1", f"{subject.passes}", "a hyperparameter without a check")


def _role(name: str, role: Role, declared: dict[str, Role]) -> None:
    if role.kind is Kind.REWARD:
        cause = "a reward learns through its own `roles`"
        expect(not role.trained, f"the role {name} not to be trained", "trained=True", cause)
        return
    spelt = role.needs <= METHODS[role.kind] | {"logprobs"}
    expect(spelt, f"the role {name} to need some of {sorted(METHODS[role.kind])}", f"{sorted(role.needs)}", "a misspelt need")
    expect(role.start in STARTS, f"the role {name} to start from one of {STARTS}", repr(role.start), "a misspelt start")
    shared = role.shares is None or role.shares in declared
    expect(shared, f"the role {name} to share a declared role", f"{role.shares}", "the shared role is missing")


def card(subject: Subject) -> None:
    """The card's front matter is whole and agrees with the class."""
    card = Registry(subject.plugins_dir).card("algorithm", subject.name)
    missing = [f"`{key}`" for key in ("family", "summary", "data", "paper") if not getattr(card, key)]
    source = subject.plugin.source if subject.plugin else None
    single = f"{source.stem}.md or " if source and source.stem != source.parent.name else ""
    cause = f"{single}README.md beside it lacks them"
    expect(not missing, f"{', '.join(missing)} in the card's front matter", "nothing", cause)
    expect("\n" not in card.summary, "a summary of one line", repr(card.summary), "a folded YAML string")
    needs = sorted(subject.algorithm.roles())
    expect(sorted(card.needs) == needs, f"`needs: {needs}` in the card", f"{sorted(card.needs)}", "`roles` has changed since")
    data = subject.algorithm.data.__name__
    expect(card.data == data, f"`data: {data}` in the card", card.data, "`data` has changed since")


def preset_card(subject: Subject) -> None:
    """A preset says in its first comment line what it is."""
    summary = Registry(subject.plugins_dir).card("algorithm", subject.name).summary
    expect(bool(summary), "a first line `# what this preset is`", "nothing", "the YAML file starts without a comment")


def summary(part: Part[object]) -> None:
    """It says in one line what it is, in its card or its docstring."""
    text = Registry(part.plugins_dir).card(part.plugin.group, part.name).summary if part.plugin else "-"
    expect(bool(text.strip()), "a docstring, or `summary:` in README.md", "nothing", "neither was written")


def help_texts(part: Part[object]) -> None:
    """Every setting says what it means."""
    silent = ", ".join(option.path for option in options(part.instance) if not option.help.strip())
    expect(not silent, "a help text for every field", f"none for {silent}", "field(metadata={'help': ...}) is missing")


def own_test_file(plugin: Plugin | None) -> Path | None:
    """test_NAME.py beside the plugin's file, or in the `tests` of the project it is written in; None where there is none."""
    if plugin is None or plugin.source is None or plugin.preset:
        return None
    name, project = f"test_{plugin.source.stem}.py", plugin.source.parents[1]
    places = [plugin.source.with_name(name), *([project / "tests" / name] if (project / "pyproject.toml").exists() else [])]
    return next((place for place in places if place.is_file()), None)


def own_test(part: Part[object]) -> None:
    """What it computes is what its author has worked out by hand, in test_NAME.py beside it."""
    path = own_test_file(part.plugin)
    assert path is not None
    if importlib.util.find_spec("pytest") is None:
        raise UserError(f"{path} is a test for pytest, which is not installed: pip install pytest")
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider", str(path)]
    start = path.parents[1] if path.parent.name == "tests" else path.parent  # what `python -m` can import
    done = subprocess.run(command, cwd=start, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    failure = next((line for line in lines if line.startswith(("E ", "ERROR", "FAILED"))), done.stdout[-200:])
    expect(done.returncode == 0, f"{path.name} to pass", failure, "a formula that is not the paper's, or a wrong test")
