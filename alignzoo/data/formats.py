"""The formats of data sets, told apart by each row's columns and their shapes, as the columns of TRL's dataset types.

OpenAI's preference files | ShareGPT (`conversations`) with what axolotl and LLaMA-Factory put beside | Alpaca
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from typing import Any

from alignzoo.data.messages import Messages, UnusableRow, conversation, is_conversation, options_of, tools_of

SIDES = ("completion", "chosen", "rejected")
BESIDE = ("tools", "chat_template_kwargs")  # what a chat template is handed besides messages
OTHER_NAMES = {"messages": ("conversations", "conversation"), "label": ("kto_tag",), "tools": ("functions",)}
PREFERENCE = ("input", "preferred_output", "non_preferred_output")
ALPACA = ("instruction", "input", "output", "history")
SYSTEM = ("system", "system_prompt")
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
ASKING = {"system", "developer", "user"}
EQUAL = "'chosen' equals 'rejected', so there is nothing to prefer; drop it with data.unusable=drop"

Values = dict[str, Any]


def as_trl(values: Values, raw: Mapping[str, Any], named: Collection[str], where: str) -> tuple[Values, set[str]]:
    """The values of TRL's columns, with what the row's other columns say; and the names of those that this took.

    Conversations become messages {role, content}, and a prompt `Messages` where tools or options travel with it; of whole
    conversations, the prompt is what precedes the answers. `named` are the values of `data.columns`: what stands there is
    spoken for. Raises UnusableRow where nothing fits, or where something would be left out that a model should be shown.
    """
    values, taken = _recognised(values, raw, where)
    for name in {"prompt", "messages", "text", *SIDES} & values.keys():
        values[name] = _text(values[name], name, where)
    if isinstance(values.get("completions"), list):
        values["completions"] = [_text(text, "completions", where) for text in values["completions"]]
    values = _with_prompt(values, where)
    prompt, beside = values.get("prompt"), {name: values.pop(name, None) for name in BESIDE}
    shown = {name: raw[name] for name in (*SYSTEM, "history", *MEDIA) if name in raw and name not in taken}
    shown = {name: value for name, value in (shown | beside).items() if not _is_blank(value) and not _is_named(name, named)}
    if isinstance(prompt, list):
        for name in [name for name in SYSTEM if name in shown]:
            prompt = _after_system(shown.pop(name), prompt, name, where)
            taken.add(name)
        tools = tools_of(shown.pop("tools", None), "tools", where)
        options = options_of(shown.pop("chat_template_kwargs", None), "chat_template_kwargs", where)
        values["prompt"] = Messages(prompt, tools, options) if tools or options else prompt
    if shown and {"prompt", *SIDES} & values.keys():
        raise _left_out(next(iter(shown)), prompt, where)
    return values, taken


def _recognised(values: Values, raw: Mapping[str, Any], where: str) -> tuple[Values, set[str]]:
    values, taken = dict(values), set[str]()
    for name, others in OTHER_NAMES.items():
        for column in others:
            if name not in values and raw.get(column) is not None and (name != "messages" or is_conversation(raw[column])):
                values[name] = raw[column]
                taken.add(column)
    if all(raw.get(name) for name in PREFERENCE) and isinstance(raw["input"], Mapping):
        names = ("prompt", "chosen", "rejected", "tools")
        parts = (raw["input"].get("messages"), raw["preferred_output"], raw["non_preferred_output"], raw["input"].get("tools"))
        return values | {n: part for n, part in zip(names, parts, strict=True) if part is not None}, taken | {*PREFERENCE}
    if isinstance(raw.get("instruction"), str) and not {"prompt", "completion", "messages", "text"} & values.keys():
        return values | _alpaca(raw, values.keys(), where), taken | {*ALPACA}
    return values, taken


def _alpaca(raw: Mapping[str, Any], beside: Collection[str], where: str) -> Values:
    """As turns: those of the history, the instruction with its input below it, and the output."""
    for name in ("input", "output"):
        if not isinstance(raw.get(name), str | None):
            raise UnusableRow(f"{where}: {name!r} is {raw[name]!r:.40}: must be text", "alpaca")
    history = raw.get("history") or []
    if not isinstance(history, list) or not all(_is_exchange(pair) for pair in history):
        raise UnusableRow(f"{where}: 'history' is {history!r:.40}: must be a list of [instruction, output]", "alpaca")
    turns = [text for pair in history for text in pair] + ["\n".join(filter(None, (raw["instruction"], raw.get("input"))))]
    messages = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]
    if raw.get("output") is None or {"chosen", "rejected", "completions"} & set(beside):
        return {"prompt": messages}
    return {"messages": [*messages, {"role": "assistant", "content": raw["output"]}]}


def _is_exchange(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)


def _text(value: Any, name: str, where: str) -> Any:
    return value if isinstance(value, str) and name != "messages" else conversation(value, name, where)


def _with_prompt(values: Values, where: str) -> Values:
    """The values with the prompt apart: whole conversations and texts divided, and prompt and sides of one kind."""
    messages, text = values.pop("messages", None), values.pop("text", None)
    if messages is None and isinstance(text, list):
        messages = text
    names = [name for name in SIDES if name in values]
    listed = values.get("completions", [])
    sides = [values[name] for name in names] + (listed if isinstance(listed, list) else [])
    if messages is not None and not sides:
        return values | _parted(messages, values, where)
    if text is not None and "prompt" not in values:
        return values | {"prompt": "", "completion": text}
    if messages is not None and messages not in (values.get("chosen"), values.get("rejected")):
        if "prompt" in values:
            raise UnusableRow(
                f"{where}: both 'prompt' and 'messages' precede {names[0]!r}{_way_out('messages')}", "two_prompts"
            )
        values["prompt"] = messages
    labels = [*names, *["completions"] * (len(sides) - len(names))]
    if strange := next((name for name, side in zip(labels, sides, strict=True) if type(side) is not type(sides[0])), None):
        raise UnusableRow(
            f"{where}: {labels[0]!r} and {strange!r} must both be strings, or both be lists of messages", "no_messages"
        )
    pair = "chosen" in values and "rejected" in values
    if pair and values["chosen"] == values["rejected"]:
        raise UnusableRow(f"{where}: {EQUAL}", "equal_pair")
    if pair and "prompt" not in values:
        size = _shared_beginning(values["chosen"], values["rejected"])
        values["prompt"] = values["chosen"][:size]
        sides = [side[size:] if name in ("chosen", "rejected") else side for name, side in zip(labels, sides, strict=True)]
    elif "prompt" in values:
        values["prompt"], sides = _divided(values["prompt"], sides, labels, where)
    if len(sides) > len(names):
        values["completions"] = sides[len(names) :]
    return values | dict(zip(names, sides, strict=False))


def _parted(messages: list[dict[str, Any]], values: Values, where: str) -> Values:
    """A conversation's prompt, and its completion: from the first answer on, or the last answer where it is rated."""
    prompt = values.get("prompt")
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"] or [len(messages)]
    size = answers[-1 if {"label", "votes"} & values.keys() else 0]
    if isinstance(prompt, str):
        _check_said(prompt, messages[:size], "messages", where)
    elif prompt is not None:
        size = len(prompt)
        if messages[:size] != prompt:
            raise UnusableRow(f"{where}: 'messages' don't begin with 'prompt'{_way_out('prompt')}", "two_prompts")
    parts = {"prompt": messages[:size], "completion": messages[size:]}
    return {name: part for name, part in parts.items() if part or name == "prompt"}


def _divided(prompt: Any, sides: list[Any], names: Sequence[str], where: str) -> tuple[Any, list[Any]]:
    """A prompt and what follows it, of one kind: where one is a conversation, so is the other. What both hold is there once."""
    if isinstance(prompt, str):
        if not sides or isinstance(sides[0], str):
            return prompt, sides
        opening = sides[0][: _opening(sides)]
        if opening and opening[0]["role"] != "assistant":
            _check_said(prompt, opening, names[0], where)
        else:
            opening = [{"role": "user", "content": prompt}] if prompt.strip() else []
        prompt = opening
    sides = [[{"role": "assistant", "content": side}] if isinstance(side, str) else side for side in sides]
    sides = [side[len(prompt) :] if side[: len(prompt)] == prompt else side for side in sides]
    for name, side in zip(names, sides, strict=True):
        if prompt and side and {prompt[-1]["role"], side[0]["role"]} <= ASKING:
            raise UnusableRow(
                f"{where}: {name!r} begins with a message of {side[0]['role']} that isn't the prompt's: "
                "it must begin with the whole prompt, or with the answer",
                "two_prompts",
            )
    return prompt, sides


def _opening(sides: Sequence[list[dict[str, Any]]]) -> int:
    """How many messages come before what the sides differ in, or, of a single one, before its first answer."""
    if len(sides) > 1:
        return min(_shared_beginning(sides[0], side) for side in sides[1:])
    return sum(1 for _ in takewhile(lambda message: message["role"] != "assistant", sides[0]))


def _shared_beginning(chosen: Any, rejected: Any) -> int:
    """The length of what two conversations both begin with; of two texts, up to the last space or line end of it."""
    size = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    return max(chosen.rfind(" ", 0, size), chosen.rfind("\n", 0, size), 0) if isinstance(chosen, str) else size


def _check_said(prompt: str, opening: Sequence[Mapping[str, Any]], name: str, where: str) -> None:
    """Raises UnusableRow unless a prompt that stands beside a conversation says what this opens with."""
    contents = [message["content"].strip() for message in opening if message["content"].strip()]
    if not any(prompt.strip() in content or content in prompt for content in contents):
        raise UnusableRow(f"{where}: 'prompt' is not what {name!r} begins with{_way_out('prompt')}", "two_prompts")


def _after_system(system: Any, prompt: list[dict[str, Any]], name: str, where: str) -> list[dict[str, Any]]:
    leading = conversation({"role": "system", "content": system}, name, where)
    present = [message for message in prompt if message["role"] == "system"]
    if present and present != leading:
        raise UnusableRow(
            f"{where}: {name!r} is not what the conversation's system message says{_way_out(name)}", "two_prompts"
        )
    return prompt if present else leading + prompt


def _left_out(name: str, prompt: Any, where: str) -> UnusableRow:
    """What to say of a filled column that a model should be shown, and can't be."""
    if name in MEDIA:
        return UnusableRow(f"{where}: {name!r} is filled, and only text can be read{_way_out(name)}", "media")
    kind = "plain text" if isinstance(prompt, str) else "messages"
    remedy = "put them into the messages" if kind == "messages" else "make the prompt messages {role, content}"
    return UnusableRow(
        f"{where}: nothing can show {name!r} to the model beside a prompt of {kind}\n{remedy}{_way_out(name)}", "not_shown"
    )


def _way_out(name: str) -> str:
    return f"; leave the column out with data.leave_out=[{name}]"


def _is_named(name: str, named: Collection[str]) -> bool:
    return any(name == value or f"{{{name}}}" in value for value in named)


def _is_blank(value: Any) -> bool:
    return not value or (isinstance(value, str) and value.strip() in ("", "[]", "{}", "null"))
