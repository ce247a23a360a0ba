"""README.zh-CN.md has README.md's commands, links and numbers, in its order: only the sentences are others."""

import re
from collections import Counter

from tests.docs.session import ROOT
from tests.docs.snippets import links, prose, snippets

ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"


def test_the_commands_are_the_same() -> None:
    assert [(s.language, s.file, s.text) for s in snippets(CHINESE)] == [
        (s.language, s.file, s.text) for s in snippets(ENGLISH)
    ]


def test_the_links_and_pictures_are_the_same() -> None:
    assert links(ENGLISH)[1:] == links(CHINESE)[1:]
    assert (links(ENGLISH)[0], links(CHINESE)[0]) == (CHINESE.name, ENGLISH.name)


def test_the_numbers_and_names_are_the_same() -> None:
    def terms(text: str) -> Counter[str]:
        return Counter(re.findall(r"(?<![\w.])\d+(?:\.\d+)*|`[^`]+`", text))

    added = Counter({"`make demo`": 1, "`make test`": 1})  # what the comments in the first fence say is a sentence there
    assert terms(prose(CHINESE)) == terms(prose(ENGLISH)) + added


def test_both_are_short() -> None:
    assert all(page.read_text("utf-8").count("\n") <= 150 for page in (ENGLISH, CHINESE))
