"""The snippets and commands of a Markdown page, in order.

What a fence is for is said by its language: `sh` is commands that are run, `console` commands (after `$ `) with what they
print (`...` for anything), `python` is run, `text` and `toml` are shown only, `{...}` is Sphinx's. A comment on the line
before a fence says more:

    <!-- file: PATH -->           the text becomes that file
    <!-- composed: WHY -->        `alignzoo train` is composed and its values are checked, but it is not trained
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"^(?:<!-- (?P<mark>file|composed): (?P<detail>.+?) -->\n)?```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
SHOWN = ("text", "toml")


@dataclass(frozen=True)
class Snippet:
    line: int  # of the page
    language: str
    text: str
    file: str | None = None
    composed: bool = False

    def commands(self) -> Iterator[tuple[list[str], list[str]]]:
        """Words of each command, and the lines it should print."""
        if self.language == "sh":
            yield from ((words, []) for text in self.text.splitlines() if (words := shlex.split(text, comments=True)))
            return
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, *printed = part.rstrip("\n").split("\n")
            yield shlex.split(command), printed


def snippets(page: Path) -> list[Snippet]:
    text = page.read_text("utf-8")
    return [
        Snippet(
            line=text.count("\n", 0, found.start()) + 1,
            language=found["language"],
            text=found["text"],
            file=found["detail"] if found["mark"] == "file" else None,
            composed=found["mark"] == "composed",
        )
        for found in FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """The page without its fences."""
    return FENCE.sub("", page.read_text("utf-8"))


def inline_commands(page: Path) -> list[list[str]]:
    """The commands in backticks."""
    return [shlex.split(text) for text in re.findall(r"`((?:alignzoo|make) [^`]+)`", prose(page))]


def links(page: Path) -> list[str]:
    """Targets of links and pictures that lie in the repository."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    found += re.findall(r"^```{image} (\S+)$", page.read_text("utf-8"), re.MULTILINE)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The headings as GitHub and the site name them in links."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
