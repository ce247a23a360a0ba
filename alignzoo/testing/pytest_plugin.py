"""`pytest --alignzoo NAME`: a plugin's conformance suite in its author's tests. Loaded by every pytest, so it is light."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("alignzoo")
    group.addoption(
        "--alignzoo", action="append", default=[], metavar="PLUGIN",
        help="check this plugin: a name, GROUP=NAME, a file or folder, or an installed package, for all it registers",
    )  # fmt: skip
    group.addoption("--alignzoo-skip", action="append", default=[], metavar="PROPERTY", help="leave this property out")


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("alignzoo")
    if not wanted:
        return
    from alignzoo.errors import UserError

    try:
        for target in wanted:
            plugin = Conformance.from_parent(session, name=f"alignzoo[{target}]", target=target)
            items += plugin.collect()
    except UserError as error:
        raise pytest.UsageError(str(error)) from error


class Conformance(pytest.Collector):
    """The properties asked of what `target` names."""

    def __init__(self, target: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.target = target

    def collect(self) -> Iterable[pytest.Item]:
        from alignzoo.testing import conformance

        skipped = self.config.getoption("alignzoo_skip")
        factory = getattr(self.config, "_tmp_path_factory", None)
        folder = factory.mktemp("alignzoo") if factory else Path(".")
        for subject in conformance.subjects(self.target, folder):
            for prop in conformance.asked(subject, skipped):
                yield Holds.from_parent(self, name=f"{subject.name}-{prop.name}", subject=subject, prop=prop)


class Holds(pytest.Item):
    """One property of one plugin."""

    def __init__(self, subject: Any, prop: Any, **rest: Any) -> None:
        super().__init__(**rest)
        self.subject, self.prop = subject, prop

    def runtest(self) -> None:
        from alignzoo.testing import conformance

        failure = conformance.failure(self.prop, self.subject)
        if failure is not None:
            raise failure

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return f"{self.prop.meaning}\n{excinfo.value}"

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name
