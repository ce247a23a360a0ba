"""Texts of models as HTML that holds nothing but their words: Markdown is rendered, HTML and scripts in it are shown."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

from alignzoo.data.rows import Text

LONGEST = (
    20_000  # characters that are read as Markdown: what is longer, and may have been written to be slow, is shown as it is
)
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # would steer a terminal, or is no text


@dataclass(frozen=True)
class Passage:
    """A message, or a text without a role: as it was written, and as Markdown, None where it is too long for that."""

    role: str
    plain: str
    html: Markup | None


class _Words(MarkdownIt):
    """No HTML, no images, which would be fetched from anywhere, and links to nothing but web pages."""

    def __init__(self) -> None:
        super().__init__("commonmark", {"html": False, "breaks": True})
        self.enable(["table", "strikethrough"]).disable("image")
        self.add_render_rule("link_open", _elsewhere)

    def validateLink(self, url: str) -> bool:
        return url.lower().startswith(("http://", "https://"))


def _elsewhere(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    """In a window of its own that learns nothing of this one."""
    tokens[index].attrs |= {"rel": "noopener noreferrer nofollow", "target": "_blank"}
    return renderer.renderToken(tokens, index, options, env)


MARKDOWN = _Words()


def passages(text: Text) -> list[Passage]:
    """Of messages one each, with its role where there are several."""
    if isinstance(text, str):
        return [_passage("", text)]
    contents = [str(message.get("content") or message.get("tool_calls") or "") for message in text]
    return [_passage(m["role"] if len(text) > 1 else "", c) for m, c in zip(text, contents, strict=True)]


def visible(text: str) -> str:
    """With what has no shape on a page as its escape."""
    return UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def editable(text: str) -> str:
    """As a text area holds it, and sends it back."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?").replace("\r\n", "\n").replace("\r", "\n")


def _passage(role: str, text: str) -> Passage:
    plain = visible(text)
    return Passage(visible(role), plain, Markup(MARKDOWN.render(plain)) if len(plain) <= LONGEST else None)
