"""How `make docs` makes the site. Nothing is fetched: sources, theme and fonts are local."""

import re
from pathlib import Path

from alignzoo import __version__

ROOT = Path(__file__).resolve().parents[1]

project = "alignzoo"
copyright = "the alignzoo authors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"alignzoo {version}"
html_show_sphinx = False
myst_heading_anchors = 3
default_role = "literal"  # in docstrings `this` is code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True


def _cards() -> str:
    """Every plugin's card, one section each, without its front matter."""
    texts = [path.read_text("utf-8") for path in sorted(ROOT.glob("plugins/*/*.md"))]
    bodies = [text.split("---\n", 2)[2] if text.startswith("---\n") else text for text in texts]
    return "\n\n".join(re.sub(r"^#", "##", body.strip(), flags=re.MULTILINE) for body in bodies)


def _insert_cards(app: object, page: str, source: list[str]) -> None:
    """And what is no page of the site loses its link."""
    text = source[0].replace("<!-- cards -->", _cards())
    source[0] = re.sub(r"\[([^]]+)\]\((?:\.\./|README\.md)[^)]*\)", r"\1", text)


def _as_rest(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Our docstrings are plain text: equations are indented, only backticks mean something."""
    shown: list[str] = []
    for line in lines:
        equation = line.startswith("    ")
        if equation and not (shown and (shown[-1].startswith("    ") or shown[-1] == "")):
            shown.append("")
        if equation and not any(s.startswith("    ") for s in shown[-2:]):
            shown += ["::", ""]
        shown.append(line if equation else _escaped(line))
    lines[:] = shown


def _escaped(line: str) -> str:
    parts = line.split("`")
    return "`".join(part if i % 2 else re.sub(r"([*|_])", r"\\\1", part) for i, part in enumerate(parts))


def setup(app: object) -> None:
    app.connect("source-read", _insert_cards)  # type: ignore[attr-defined]
    app.connect("autodoc-process-docstring", _as_rest)  # type: ignore[attr-defined]
