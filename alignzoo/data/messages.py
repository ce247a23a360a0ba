"""Conversations: what they carry, and how those of others become messages {role, content} with text for content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from alignzoo.data.json_text import BrokenJson, Json, parsed
from alignzoo.errors import UserError, nearest

Message = dict[str, Json]
Columns = Mapping[str, Json]
Text = str | list[Message]
CALL = "function_call"
ROLES = {
    **{name: name for name in ("system", "developer", "user", "assistant", "tool")},
    "human": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "bot", "model"), "assistant"),
    **dict.fromkeys(("function", "function_response", "tool_response", "observation", "ipython"), "tool"),
    CALL: "assistant",
}
TEXT_PARTS = ("text", "input_text", "output_text")
SPEAKER, WORDS = ("role", "from"), ("content", "value")
DROP = "data.unusable=drop"


class UnusableRow(UserError):
    """A row that can't be used, or teaches nothing; `kind` is what such rows are counted as. It says how to drop them."""

    def __init__(self, message: str, kind: str = "other") -> None:
        super().__init__(message if DROP in message else f"{message}; drop such rows with {DROP}")
        self.kind = kind

    @property
    def counted_as(self) -> tuple[str, str]:
        return "unusable_rows_dropped", f"unusable_rows_dropped_for_{self.kind}"


class Messages(list[Message]):
    """A conversation with what its chat template is handed besides: `tools` that may be called, None where there are none, and
    `options` of the template (a row's `chat_template_kwargs`). Slices and sums of it are plain lists: see `rebuilt`."""

    def __init__(
        self,
        messages: Iterable[Message] = (),
        tools: list[Message] | None = None,
        options: Columns | None = None,
    ) -> None:
        super().__init__(messages)
        self.tools = tools or None  # a template handed [] may write that there are tools (Llama 3.1)
        self.options: dict[str, Json] = dict(options or {})

    def __eq__(self, other: object) -> bool:
        beside = (getattr(other, "tools", None), getattr(other, "options", {}))
        return list.__eq__(self, other) is True and (self.tools, self.options) == beside

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        return f"Messages({list.__repr__(self)}, tools={self.tools}, options={self.options})"


def turns_of(text: Text, role: str = "user") -> list[Message]:
    """A conversation as it is; a text as the one message of this role."""
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def rebuilt(prompt: Text, messages: Iterable[Message]) -> list[Message]:
    """These messages in place of those of `prompt`, with the tools and options that travel with it."""
    return Messages(messages, prompt.tools, prompt.options) if isinstance(prompt, Messages) else list(messages)


def whole(prompt: Text) -> Json:
    """All that a prompt says, as JSON has it: equal for equal prompts only, tools and options included."""
    if isinstance(prompt, Messages) and (prompt.tools or prompt.options):
        return [list(prompt), prompt.tools, prompt.options]
    return prompt


def is_conversation(value: Json) -> bool:
    """Whether it has the shape of one, or of one message."""
    return all(isinstance(message, Mapping) and any(name in message for name in SPEAKER) for message in _listed(value))


def conversation(value: Json, name: str, where: str) -> list[Message]:
    """A list of messages {role, content}, of OpenAI's or ShareGPT's; `name` is its column. Raises UnusableRow."""
    if value is None or not is_conversation(value):
        wanted = "a string, or a list of messages {role, content}"
        raise UnusableRow(f"{where}: {name!r} is {value!r:.40}: must be {wanted}", "no_messages")
    return [_message(message, f"{where}: message {n} of {name!r}") for n, message in enumerate(_listed(value), start=1)]


def tools_of(value: Json, name: str, where: str) -> list[Message] | None:
    """The tools of a column: a list of JSON schemas, or the JSON text of it or of each. Raises UnusableRow."""
    tools = _read(value, f"{where}: {name!r}", "tools")
    if isinstance(tools, list):
        tools = [_read(tool, f"{where}: tool {number} of {name!r}", "tools") for number, tool in enumerate(tools, start=1)]
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, Mapping) for tool in tools)):
        wanted = "a list of JSON schemas, or the JSON text of one"
        raise UnusableRow(f"{where}: {name!r} is {value!r:.40}: must be {wanted}", "tools")
    return [_schema(tool) for tool in tools or ()] or None


def options_of(value: Json, name: str, where: str) -> dict[str, Json]:
    """What a row hands to its chat template: an object, or the JSON text of one. Raises UnusableRow."""
    options = _read(value, f"{where}: {name!r}", "template_options")
    if not isinstance(options, Mapping | None):
        raise UnusableRow(f"{where}: {name!r} is {value!r:.40}: must be an object {{option: value}}", "template_options")
    return dict(options or {})


def _schema(tool: Columns) -> Message:
    """{type: function, function: ...}, where it is the function alone, as OpenAI's `functions` and LLaMA-Factory have it."""
    if "function" in tool or "name" not in tool:
        return dict(tool)
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _message(message: Columns, place: str) -> Message:
    speaker, words = (next((n for n in names if message.get(n) is not None), names[0]) for names in (SPEAKER, WORDS))
    role = message.get(speaker)
    if not isinstance(role, str) or role not in ROLES:
        raise UnusableRow(f"{place} is of {role!r:.40}.{nearest(str(role), ROLES)} Roles are {', '.join(ROLES)}", "role")
    # a table of messages gives to each what any of them has, and a template asks whether it is there
    beside = {name: value for name, value in message.items() if name not in (speaker, words) and value is not None}
    content = message.get(words)
    calls = _read(beside.pop("tool_calls", None), f"{place}: 'tool_calls'", "tool_calls")
    calls = calls or _listed(_read(beside.pop(CALL, content if role == CALL else None), f"{place}: {CALL!r}", "tool_calls"))
    if calls:
        beside["tool_calls"] = [_call(call, place) for call in _listed(calls)]
        content = "" if not content or role == CALL else content
    if beside.get("weight", 1) not in (0, 1):
        raise UnusableRow(f"{place}: 'weight' is {beside['weight']!r:.40}: must be 0, which isn't trained on, or 1", "weight")
    return {"role": ROLES[role], "content": _content(content, place), **beside}


def _content(content: Json, place: str) -> str:
    """The content, or its parts joined as chat templates write them."""
    if isinstance(content, str):
        return content
    if content is None:
        raise UnusableRow(f"{place} has no content and no tool calls: write its text, or ''", "no_content")
    parts = content if isinstance(content, list) else []
    kinds = [part.get("type", "text") if isinstance(part, Mapping) else "no object" for part in parts]
    if strange := next((kind for kind in kinds if kind not in TEXT_PARTS), None):
        raise UnusableRow(f"{place} has a part of type {strange!r:.40}: only text can be read", "media")
    texts = [part.get("text") for part in parts]
    if not texts or not all(isinstance(text, str) for text in texts):
        wanted = "text, or a list of {type: text, text}"
        raise UnusableRow(f"{place}: its content is {content!r:.40}: must be {wanted}", "content")
    return "".join(texts)


def _call(call: Json, place: str) -> Message:
    """{type, function: {name, arguments}}. Templates write arguments as JSON: JSON text would become a string."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UnusableRow(f"{place}: the tool call {call!r:.40} must be {{function: {{name, arguments}}}}", "tool_calls")
    place = f"{place}: 'arguments' of {function['name']!r:.40}"
    arguments = _read(function.get("arguments") or {}, place, "tool_calls")
    if not isinstance(arguments, Mapping):
        raise UnusableRow(f"{place} are {arguments!r:.40}: must be an object, or its JSON text", "tool_calls")
    beside = {name: value for name, value in call.items() if function is not call and value is not None}
    return {"type": "function", **beside, "function": {**function, "arguments": arguments}}


def _listed(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _read(value: Json, place: str, kind: str) -> Json:
    """The value, read where it is JSON text; blank text is None. Raises UnusableRow."""
    if not isinstance(value, str):
        return value
    try:
        return parsed(value) if value.strip() else None
    except BrokenJson as error:
        raise UnusableRow(f"{place} is {value!r:.40}: {error}", kind) from None
