"""Prompts and completions as text: through the chat template, and which stretches of it the policy writes.

Messages stay messages until then. A prompt and its completion are one text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from alignzoo.common.disk import existing
from alignzoo.data.json_text import Json
from alignzoo.data.messages import Message, Messages, Text, rebuilt, turns_of
from alignzoo.errors import UserError, first_line, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRL = "trl"  # names templates that TRL has for training: they never rewrite earlier turns
PROBE = "Paris"  # an answer by which a template shows how it ends one


class Rewrites(UserError):
    """The template changes what it wrote of earlier messages when another is added."""


@dataclass(frozen=True)
class Rendering:
    """A prompt and its completion as one text, of which the first `start` characters are the prompt. The policy writes the
    stretches `written`; `closed` tells that the last of them ends with the template's own end of a turn."""

    text: str
    start: int
    written: list[tuple[int, int]]
    closed: bool

    def completion(self) -> Rendering:
        """The completion by itself."""
        written = [(start - self.start, stop - self.start) for start, stop in self.written]
        return Rendering(self.text[self.start :], 0, written, self.closed)


@dataclass(kw_only=True)
class Renderer:
    """Writes conversations as text.

    `chat` turns plain texts into a user's message and the assistant's answer, after `system` if there is one. Messages go
    through `template`, or else the tokenizer's own chat template, with `options` (such as enable_thinking).
    """

    tokenizer: PreTrainedTokenizerBase
    chat: bool = False
    system: str | None = None
    template: str | None = None
    options: dict[str, Json] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The text of its template, or of all where the tokenizer has several; "" without one."""
        template = self.template or self.tokenizer.chat_template or ""
        return template if isinstance(template, str) else "\n".join(template.values())

    @cached_property
    def turn_end(self) -> int | None:
        """The special token by which the template ends an answer; None where it has no template, or ends none so."""
        if not self.source:
            return None
        question = turns_of("What is the capital of France?")
        try:
            opened, text = self._apply(question, True), self._apply([*question, *turns_of(PROBE, "assistant")], False)
        except UserError:
            return None
        tail = text[len(opened) :].partition(PROBE)[2] if text.startswith(opened) else ""
        special = {*self.tokenizer.all_special_ids, *(i for i, t in self.tokenizer.added_tokens_decoder.items() if t.special)}
        return next((i for i in self.tokenizer(tail, add_special_tokens=False)["input_ids"] if i in special), None)

    def plain(self, prompt: Text) -> bool:
        """Whether it is read as the text it is, through no template."""
        return isinstance(prompt, str) and not (self.chat and prompt)

    def rendered(self, prompt: Text) -> str:
        """The text that it is tokenised as. Raises UserError for what the template refuses."""
        if isinstance(prompt, str) and self.plain(prompt):
            return prompt
        history = self._history(prompt)
        return self._apply(history, answer=not history or history[-1]["role"] != "assistant")

    def rendering(self, prompt: Text, completion: Text) -> Rendering:
        """Raises Rewrites where the turns have no one text that holds each as it was generated."""
        if isinstance(prompt, str) and self.plain(prompt):
            whole = prompt + str(completion)
            return Rendering(whole, len(prompt), [(len(prompt), len(whole))], closed=False)
        history, text = self._history(prompt), self.rendered(prompt)
        turns, start, end = turns_of(completion, "assistant"), len(text), -1
        mark = "" if self.turn_end is None else str(self.tokenizer.convert_ids_to_tokens(self.turn_end))
        written: list[tuple[int, int]] = []
        # turn by turn: what the policy writes begins where the template opens an answer, which only it knows
        for message in turns:
            before, history = history, rebuilt(history, [*history, message])
            if message["role"] == "assistant":
                opened = _extended(text, self._apply(before, answer=True))
                text = _extended(opened, self._apply(history, answer=False))
                end = text.rfind(mark, len(opened)) if mark else -1
                if message.get("weight", 1):  # of OpenAI's files: 0 is shown and not trained
                    written.append((len(opened), len(text) if end < 0 else end + len(mark)))
        if not written:
            raise UserError(f"there is no answer of an assistant to train among the messages of {_roles(turns)}")
        return Rendering(text, start, written, closed=end >= 0)

    def records(self, prompt: Text, completion: Text) -> list[tuple[Text, Text]]:
        """(prompt, completion) as they can be trained: the row itself, or, where the template rewrites earlier turns, each
        answer after the history that it was, or would be, generated from."""
        if isinstance(completion, str) or sum(message["role"] == "assistant" for message in completion) < 2:
            return [(prompt, completion)]
        try:
            self.rendering(prompt, completion)
            return [(prompt, completion)]
        except Rewrites:
            start = len(turns_of(prompt))
            turns = [*turns_of(prompt), *completion]
            places = [i for i in range(start, len(turns)) if turns[i]["role"] == "assistant"]
            return [(rebuilt(prompt, turns[:i]), [turns[i]]) for i in places]

    def _history(self, prompt: Text) -> list[Message]:
        messages = turns_of(prompt)
        if not self.system or any(message["role"] == "system" for message in messages):
            return messages
        return rebuilt(prompt, [{"role": "system", "content": self.system}, *messages])

    def _apply(self, messages: list[Message], answer: bool) -> str:
        if not self.source:
            raise UserError(
                "the data is made of messages, and the tokenizer has no chat template\n"
                "give one with data.chat_template=FILE (jinja), or a tokenizer that has one with model.tokenizer=PATH"
            )
        tools, of_row = (messages.tools, messages.options) if isinstance(messages, Messages) else (None, {})
        options: dict[str, Json] = {"tools": tools, "chat_template": self.template, "add_generation_prompt": answer}
        options |= {"tokenize": False, **self.options, **of_row}
        try:
            return str(self.tokenizer.apply_chat_template(list(messages), **options))
        except (TemplateError, TypeError) as error:
            raise UserError(f"the chat template refuses the messages {_roles(messages)}: {error}") from error


def template(name: str | None, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A jinja file's text; of `trl`, TRL's training template for this tokenizer; of `trl:NAME`, the one of that name. None for
    the tokenizer's own. Raises UserError."""
    if name is None:
        return None
    if name == TRL:
        return _for(tokenizer)
    if not name.startswith(f"{TRL}:"):
        return existing(name, "data.chat_template").read_text("utf-8")
    files = {file.name.removesuffix(".jinja"): file for file in (resources.files("trl") / "chat_templates").iterdir()}
    chosen = files.get(name.removeprefix(f"{TRL}:"))
    if chosen is None:
        raise UserError(f"data.chat_template={name}: TRL has no such template.{nearest(name.removeprefix('trl:'), files)}")
    return chosen.read_text("utf-8")


def _for(tokenizer: PreTrainedTokenizerBase) -> str | None:
    from trl.chat_template_utils import get_training_chat_template

    try:
        return get_training_chat_template(tokenizer)
    except ValueError as error:
        raise UserError(f"data.chat_template=trl: TRL has none for this tokenizer: {first_line(error)}") from error


def _roles(messages: list[Message]) -> str:
    return ", ".join(str(message["role"]) for message in messages)


def _extended(before: str, after: str) -> str:
    """`after`. Raises Rewrites where it does not begin with `before`."""
    if after.startswith(before):
        return after
    raise Rewrites(
        "the chat template rewrites earlier text when a message is added, so a completion has no beginning of its own\n"
        f"{before[-30:]!r} became {after[: len(before)][-30:]!r}; train the last turn alone with data.turns=last, or give "
        "another template with data.chat_template=FILE"
    )
