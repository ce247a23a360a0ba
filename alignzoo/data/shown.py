"""What of a row its chat template shows. What it leaves out would be lost without a word, so such a row is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from alignzoo.data.encode import Encoder
from alignzoo.data.formats import OTHER_NAMES
from alignzoo.data.messages import Json, Message, Messages, Text, UnusableRow
from alignzoo.data.rows import Row
from alignzoo.errors import UserError, nearest

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string", "description": "A city."}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "sky", "description": "The sky of a city.", "parameters": PARAMETERS}}
CALL: Json = {"type": "function", "id": "abcdefghi", "function": {"name": "sky", "arguments": {"city": "Rome"}}}  # Mistral: 9
QUESTION, BLANK = {"role": "user", "content": "Rome?"}, {"role": "assistant", "content": ""}
SYSTEM, CALLING = {"role": "system", "content": "Be brief."}, {**BLANK, "tool_calls": [CALL]}
ANSWER = {"role": "assistant", "content": "Fair."}
RESULT = {"role": "tool", "content": "Blue.", "name": "sky", "tool_call_id": CALL["id"]}


def _differing(turns: list[Message], place: int) -> tuple[Text, Text]:
    """Conversations that differ in what this message says."""
    return turns, [*turns[:place], {**turns[place], "content": "Grey."}, *turns[place + 1 :]]


# conversations of which the second lacks what the first has; what one refuses, another may take
PROBES: dict[str, list[tuple[Text, Text]]] = {
    "tools": [(Messages(turns, [TOOL]), turns) for turns in ([QUESTION], [SYSTEM, QUESTION])],
    "tool_calls": [([QUESTION, CALLING], [QUESTION, BLANK])],
    **{name: [([QUESTION, {**ANSWER, name: "Blue."}], [QUESTION, ANSWER])] for name in ("reasoning_content", "thinking")},
    **{role: [_differing([{**SYSTEM, "role": role}, QUESTION], 0)] for role in ("system", "developer")},
    "tool": [
        _differing([QUESTION, CALLING, {"role": "tool", "content": "Blue.", "name": "sky", "tool_call_id": CALL["id"]}], 2)
    ],
}
TEMPLATES = "give another template with data.chat_template=FILE or trl"


@dataclass(frozen=True)
class TemplateCheck:
    """Checks rows against the template of this encoder, which is tried once, on conversations of its own."""

    encoder: Encoder

    @cached_property
    def lost(self) -> set[str]:
        """Of PROBES, what the template leaves out without a word."""
        return {name for name, pairs in PROBES.items() if {self._same(*pair) for pair in pairs} - {None} == {True}}

    def _same(self, first: Text, second: Text) -> bool | None:
        """None where the template refuses one of them, as it then does the row."""
        try:
            return self.encoder.rendered(first) == self.encoder.rendered(second)
        except (UserError, LookupError, ValueError):
            return None

    def row(self, row: Row) -> Row:
        """The row. Raises UnusableRow where something of it would be lost."""
        prompt = row.values.get("prompt")
        if isinstance(prompt, Messages):
            if prompt.tools and "tools" in self.lost:
                column = next((name for name in ("tools", *OTHER_NAMES["tools"]) if row.columns.get(name)), "tools")
                raise _refused(row, f"shows no tools: {column!r}", column)
            if strange := self.unknown(prompt.options):
                raise _refused(row, strange, "chat_template_kwargs")
        for name, text in [("prompt", prompt), *row.answers()]:
            for message in text if isinstance(text, list) else ():
                for part, content in {**message, message["role"]: message["content"]}.items():
                    if part in self.lost and content:
                        raise _refused(row, f"shows no {part!r} of messages, and {name!r} has some")
        return row

    def unknown(self, options: Iterable[str]) -> str:
        """The first of these that the template knows nothing of, in words; "" where there is none."""
        words = set(re.findall(r"\w+", self.encoder.source))
        strange = next((name for name in options if words and name not in words), None)
        return "" if strange is None else f"has no option {strange!r}.{nearest(strange, words)}"


def _refused(row: Row, what: str, column: str = "") -> UnusableRow:
    remedy = f", or leave the column out with data.leave_out=[{column}]" if column else ""
    return UnusableRow(f"{row.where}: the chat template {what}\n{TEMPLATES}{remedy}", "not_shown")
