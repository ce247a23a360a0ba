"""Conversations: what they carry, and how those of others become messages {role, content} with text for content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from alignzoo.data.json_text import BrokenJson, parsed
from alignzoo.errors import UserError, nearest

Text = str | list[dict[str, Any]]
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


class UnusableRow(UserError):
    """A row that can't be used, or teaches nothing; `kind` is what such rows are counted as."""

    def __init__(self, message: str, kind: str = "other") -> None:
        super().__init__(message)
        self.kind = kind


class Messages(list[dict[str, Any]]):
    """A conversation with what its chat template is handed besides: `tools` that may be called, None where there are none, and
    `options` of the template (a row's `chat_template_kwargs`). Slices and sums of it are plain lists: see `rebuilt`."""

    def __init__(
        self,
        messages: Iterable[dict[str, Any]] = (),
        tools: list[dict[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(messages)
        self.tools = tools or None  # a template handed [] may write that there are tools (Llama 3.1)
        self.options: dict[str, Any] = dict(options or {})

    def __eq__(self, other: object) -> bool:
        beside = (getattr(other, "tools", None), getattr(other, "options", {}))
        return list.__eq__(self, other) is True and (self.tools, self.options) == beside

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        return f"Messages({list.__repr__(self)}, tools={self.tools}, options={self.options})"


def rebuilt(prompt: Text, messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """These messages in place of those of `prompt`, with the tools and options that travel with it."""
    return Messages(messages, prompt.tools, prompt.options) if isinstance(prompt, Messages) else list(messages)


def whole(prompt: Text) -> Any:
    """All that a prompt says, as JSON has it: equal for equal prompts only, tools and options included."""
    if isinstance(prompt, Messages) and (prompt.tools or prompt.options):
        return [list(prompt), prompt.tools, prompt.options]
    return prompt


def is_conversation(value: Any) -> bool:
    """Whether it has the shape of one, or of one message."""
    listed = value if isinstance(value, list) else [value]
    return all(isinstance(message, Mapping) and any(name in message for name in SPEAKER) for message in listed)


def conversation(value: Any, name: str, where: str) -> list[dict[str, Any]]:
    """A list of messages {role, content}, of OpenAI's or ShareGPT's; `name` is its column. Raises UnusableRow."""
    if not is_conversation(value):
        raise UnusableRow(
            f"{where}: {name!r} is {value!r:.40}: must be a string, or a list of messages {{role, content}}", "no_messages"
        )
    listed = value if isinstance(value, list) else [value]
    return [_message(message, f"{where}: message {number} of {name!r}") for number, message in enumerate(listed, start=1)]


def tools_of(value: Any, name: str, where: str) -> list[dict[str, Any]] | None:
    """The tools of a column: a list of JSON schemas, or the JSON text of it or of each. Raises UnusableRow."""
    listed = _read(value, f"{where}: {name!r}", "tools")
    if listed is not None and isinstance(listed, list):
        listed = [_read(tool, f"{where}: tool {number} of {name!r}", "tools") for number, tool in enumerate(listed, start=1)]
    if listed is not None and not (isinstance(listed, list) and all(isinstance(tool, Mapping) for tool in listed)):
        raise UnusableRow(
            f"{where}: {name!r} is {value!r:.40}: must be a list of JSON schemas, or the JSON text of one", "tools"
        )
    return [_schema(tool) for tool in listed or ()] or None


def options_of(value: Any, name: str, where: str) -> dict[str, Any]:
    """What a row hands to its chat template: an object, or the JSON text of one. Raises UnusableRow."""
    options = _read(value, f"{where}: {name!r}", "template_options")
    if not isinstance(options, Mapping | None):
        raise UnusableRow(f"{where}: {name!r} is {value!r:.40}: must be an object {{option: value}}", "template_options")
    return dict(options or {})


def _schema(tool: Mapping[str, Any]) -> dict[str, Any]:
    """{type: function, function: ...}, where it is the function alone, as OpenAI's `functions` and LLaMA-Factory have it."""
    if "function" in tool or "name" not in tool:
        return dict(tool)
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _message(message: Mapping[str, Any], place: str) -> dict[str, Any]:
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
        beside["tool_calls"] = _calls(calls, place)
        content = "" if not content or role == CALL else content
    if beside.get("weight", 1) not in (0, 1):
        raise UnusableRow(f"{place}: 'weight' is {beside['weight']!r:.40}: must be 0, which isn't trained on, or 1", "weight")
    return {"role": ROLES[role], "content": _text(content, place), **beside}


def _text(content: Any, place: str) -> str:
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
        raise UnusableRow(
            f"{place}: its content is {content!r:.40}: must be text, or a list of {{type: text, text}}", "content"
        )
    return "".join(texts)


def _calls(calls: Any, place: str) -> list[dict[str, Any]]:
    """Tool calls {type, function: {name, arguments}}. Templates write arguments as JSON: JSON text would become a string."""
    listed = []
    for call in _listed(calls):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise UnusableRow(f"{place}: the tool call {call!r:.40} must be {{function: {{name, arguments}}}}", "tool_calls")
        arguments = _read(function.get("arguments") or {}, f"{place}: 'arguments' of {function['name']!r:.40}", "tool_calls")
        if not isinstance(arguments, Mapping):
            raise UnusableRow(
                f"{place}: 'arguments' of {function['name']!r:.40} are {arguments!r:.40}: must be an object, or its JSON text",
                "tool_calls",
            )
        beside = {name: value for name, value in call.items() if function is not call and value is not None}
        listed.append({"type": "function", **beside, "function": {**function, "arguments": arguments}})
    return listed


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _read(value: Any, place: str, kind: str) -> Any:
    """The value, read where it is JSON text; blank text is None. Raises UnusableRow."""
    if not isinstance(value, str):
        return value
    try:
        return parsed(value) if value.strip() else None
    except BrokenJson as error:
        raise UnusableRow(f"{place} is {value!r:.40}: {error}", kind) from None
