"""`pytest --alignzoo NAME`: a plugin's conformance suite in its author's tests. Loaded by every pytest, so it is light."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from alignzoo.testing.conformance import Part, Property


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("alignzoo")
    group.addoption(
        "--alignzoo", action="append", default=[], metavar="PLUGIN",
        help="check this plugin: a name, GROUP=NAME, a file or folder, or an installed package, for all it registers",
    )  # fmt: skip
    group.addoption("--alignzoo-skip", action="append", default=[], metavar="PROPERTY", help="leave this property out")


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    if not (targets := config.getoption("alignzoo")):
        return
    from alignzoo.errors import UserError
    from alignzoo.testing import conformance

    factory = getattr(config, "_tmp_path_factory", None)
    folder = factory.mktemp("alignzoo") if factory else Path(".")
    try:
        for subject in (subject for target in targets for subject in conformance.subjects(target, folder)):
            for prop in conformance.asked(subject, config.getoption("alignzoo_skip")):
                items.append(Holds.from_parent(session, name=f"{subject.name}-{prop.name}", subject=subject, prop=prop))
    except UserError as error:
        raise pytest.UsageError(str(error)) from error


class Holds(pytest.Item):
    """One property of one plugin."""

    def __init__(self, subject: Part[object], prop: Property, **rest: Any) -> None:
        super().__init__(**rest)
        self.subject, self.prop = subject, prop

    def runtest(self) -> None:
        from alignzoo.testing import conformance

        if (failure := conformance.failure(self.prop, self.subject)) is not None:
            raise failure

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        return f"{self.prop.meaning}\n{excinfo.value}"

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name
