"""docs/check.md describes every property, in the words of the check itself."""

from alignzoo.testing import conformance
from tests.docs.session import ROOT

LINES = (ROOT / "docs/check.md").read_text("utf-8").splitlines()
ROWS = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in LINES if line.startswith("|")]


def words(text: str | None) -> str:
    return " ".join((text or "").split())


def test_every_property_of_algorithms_is_described_with_what_it_compares() -> None:
    described = {row[0]: row[2:] for row in ROWS if len(row) == 4 and row[0].startswith("`")}
    assert list(described) == [f"`{prop.name}`" for prop in conformance.PROPERTIES]
    for prop in conformance.PROPERTIES:
        meaning, compared = described[f"`{prop.name}`"]
        assert meaning == words(prop.meaning)
        assert len(compared) > 20


def test_every_property_of_other_plugins_is_described() -> None:
    described = [tuple(row) for row in ROWS if len(row) == 3 and row[1].startswith("`")]
    suites = conformance.SUITES.items()
    assert described == [(group, f"`{check.__name__}`", words(check.__doc__)) for group, suite in suites for check in suite]
