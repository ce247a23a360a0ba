"""The list of `make mutate` is about the code as it is: a mutation whose line has changed would test nothing."""

from collections import Counter
from pathlib import Path

from tests.mutations import MUTATIONS

ROOT = Path(__file__).parents[2]


def test_every_mutation_changes_one_place_of_the_code_and_has_a_test():
    texts = {file: (ROOT / file).read_text("utf-8") for file, *_ in MUTATIONS}
    stale = [(file, before) for file, before, after, _ in MUTATIONS if texts[file].count(before) != 1 or before == after]
    assert stale == []
    assert [tests for *_, tests in MUTATIONS if not (ROOT / tests.split(" ")[0].split("::")[0]).exists()] == []
    assert [one for one, count in Counter(MUTATIONS).items() if count > 1] == []
