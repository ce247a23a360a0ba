"""The formats of data sets, told apart by each row's columns and their shapes, as the columns of TRL's dataset types.

OpenAI's preference files | ShareGPT (`conversations`) with what axolotl and LLaMA-Factory put beside | Alpaca
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile

from alignzoo.data.messages import (
    Columns,
    Json,
    Message,
    Messages,
    Text,
    UnusableRow,
    conversation,
    is_conversation,
    options_of,
    tools_of,
    turns_of,
)  # fmt: skip

SIDES = ("completion", "chosen", "rejected")
BESIDE = ("tools", "chat_template_kwargs")  # what a chat template is handed besides messages
OTHER_NAMES = {"messages": ("conversations", "conversation"), "label": ("kto_tag",), "tools": ("functions",)}
PREFERENCE = ("input", "preferred_output", "non_preferred_output")
ALPACA = ("instruction", "input", "output", "history")
SYSTEM = ("system", "system_prompt")
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
ASKING = {"system", "developer", "user"}
EQUAL = "'chosen' equals 'rejected', so there is nothing to prefer; drop it with data.unusable=drop"

Values = dict[str, Json]


def as_trl(values: Values, raw: Columns, named: Collection[str], where: str) -> tuple[Values, set[str]]:
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


def _recognised(values: Values, raw: Columns, where: str) -> tuple[Values, set[str]]:
    values, taken = dict(values), set[str]()
    for name, columns in OTHER_NAMES.items():
        for column in columns:
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


def _alpaca(raw: Columns, beside: Collection[str], where: str) -> Values:
    """As turns: those of the history, the instruction with its input below it, and the output."""
    for name in ("input", "output"):
        if not isinstance(raw.get(name), str | None):
            raise UnusableRow(f"{where}: {name!r} is {raw[name]!r:.40}: must be text", "alpaca")
    history = raw.get("history") or []
    if not isinstance(history, list) or not all(
        isinstance(pair, list) and [type(text) for text in pair] == [str, str] for pair in history
    ):
        raise UnusableRow(f"{where}: 'history' is {history!r:.40}: must be a list of [instruction, output]", "alpaca")
    turns = [text for pair in history for text in pair] + ["\n".join(filter(None, (raw["instruction"], raw.get("input"))))]
    messages = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]
    if raw.get("output") is None or {"chosen", "rejected", "completions"} & set(beside):
        return {"prompt": messages}
    return {"messages": [*messages, {"role": "assistant", "content": raw["output"]}]}


def _text(value: Json, name: str, where: str) -> Json:
    return value if isinstance(value, str) and name != "messages" else conversation(value, name, where)


def answers_in(values: Columns) -> list[tuple[str, Text]]:
    """(column, text) of each completion in these values."""
    listed = values.get("completions", [])
    texts = [("completions", text) for text in listed] if isinstance(listed, list) else []
    return [(name, values[name]) for name in SIDES if name in values] + texts


def with_answers(values: Columns, answers: Sequence[Text]) -> Values:
    """The values with others in place of `answers_in`."""
    names = [name for name in SIDES if name in values]
    listed = {"completions": list(answers[len(names) :])} if len(answers) > len(names) else {}
    return {**values, **dict(zip(names, answers, strict=False)), **listed}


def _with_prompt(values: Values, where: str) -> Values:
    """The values with the prompt apart: whole conversations and texts divided, and prompt and sides of one kind."""
    messages, text = values.pop("messages", None), values.pop("text", None)
    if messages is None and isinstance(text, list):
        messages = text
    names, sides = [name for name, _ in answers_in(values)], [side for _, side in answers_in(values)]
    if messages is not None and not sides:
        return values | _parted(messages, values, where)
    if text is not None and "prompt" not in values:
        return values | {"prompt": "", "completion": text}
    if messages is not None and messages not in (values.get("chosen"), values.get("rejected")):
        if "prompt" in values:
            raise _contrary(f"{where}: both 'prompt' and 'messages' precede {names[0]!r}", "messages")
        values["prompt"] = messages
    if strange := next((name for name, side in zip(names, sides, strict=True) if type(side) is not type(sides[0])), None):
        wanted = "must both be strings, or both be lists of messages"
        raise UnusableRow(f"{where}: {names[0]!r} and {strange!r} {wanted}", "no_messages")
    pair = "chosen" in values and "rejected" in values
    if pair and values["chosen"] == values["rejected"]:
        raise UnusableRow(f"{where}: {EQUAL}", "equal_pair")
    if pair and "prompt" not in values:
        size = _shared_beginning(values["chosen"], values["rejected"])
        values["prompt"] = values["chosen"][:size]
        sides = [side[size:] if name in ("chosen", "rejected") else side for name, side in zip(names, sides, strict=True)]
    elif "prompt" in values:
        values["prompt"], sides = _divided(values["prompt"], sides, names, where)
    return with_answers(values, sides)


def _parted(messages: list[Message], values: Values, where: str) -> Values:
    """A conversation's prompt, and its completion: from the first answer on, or the last answer where it is rated."""
    prompt = values.get("prompt")
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"] or [len(messages)]
    size = answers[-1 if {"label", "votes"} & values.keys() else 0]
    if isinstance(prompt, str):
        _check_said(prompt, messages[:size], "messages", where)
    elif prompt is not None:
        size = len(prompt)
        if messages[:size] != prompt:
            raise _contrary(f"{where}: 'messages' don't begin with 'prompt'", "prompt")
    parts = {"prompt": messages[:size], "completion": messages[size:]}
    return {name: part for name, part in parts.items() if part or name == "prompt"}


def _divided(prompt: Text, sides: list[Json], names: Sequence[str], where: str) -> tuple[Text, list[Json]]:
    """A prompt and what follows it, of one kind: where one is a conversation, so is the other. What both hold is there once."""
    if isinstance(prompt, str):
        if not sides or isinstance(sides[0], str):
            return prompt, sides
        # what comes before the sides differ, or, of a single one, before its first answer
        sizes = [_shared_beginning(sides[0], side) for side in sides[1:]]
        opening = sides[0][: min(sizes)] if sizes else list(takewhile(lambda turn: turn["role"] != "assistant", sides[0]))
        if opening and opening[0]["role"] != "assistant":
            _check_said(prompt, opening, names[0], where)
        else:
            opening = turns_of(prompt) if prompt.strip() else []
        prompt = opening
    sides = [turns_of(side, "assistant") for side in sides]
    sides = [side[len(prompt) :] if side[: len(prompt)] == prompt else side for side in sides]
    for name, side in zip(names, sides, strict=True):
        if prompt and side and {prompt[-1]["role"], side[0]["role"]} <= ASKING:
            what = f"begins with a message of {side[0]['role']} that isn't the prompt's"
            wanted = "it must begin with the whole prompt, or with the answer"
            raise UnusableRow(f"{where}: {name!r} {what}: {wanted}", "two_prompts")
    return prompt, sides


def _shared_beginning(chosen: Json, rejected: Json) -> int:
    """The length of what two conversations both begin with; of two texts, up to the last space or line end of it."""
    size = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    return max(chosen.rfind(" ", 0, size), chosen.rfind("\n", 0, size), 0) if isinstance(chosen, str) else size


def _check_said(prompt: str, opening: Sequence[Columns], name: str, where: str) -> None:
    """Raises UnusableRow unless a prompt that stands beside a conversation says what this opens with."""
    contents = [message["content"].strip() for message in opening if message["content"].strip()]
    if not any(prompt.strip() in content or content in prompt for content in contents):
        raise _contrary(f"{where}: 'prompt' is not what {name!r} begins with", "prompt")


def _after_system(system: Json, prompt: list[Message], name: str, where: str) -> list[Message]:
    leading = conversation({"role": "system", "content": system}, name, where)
    present = [message for message in prompt if message["role"] == "system"]
    if present and present != leading:
        raise _contrary(f"{where}: {name!r} is not what the conversation's system message says", name)
    return prompt if present else leading + prompt


def _contrary(what: str, column: str) -> UnusableRow:
    return UnusableRow(f"{what}; leave the column out with data.leave_out=[{column}]", "two_prompts")


def _left_out(name: str, prompt: Text | None, where: str) -> UnusableRow:
    """What to say of a filled column that a model should be shown, and can't be."""
    way_out = f"leave the column out with data.leave_out=[{name}]"
    if name in MEDIA:
        return UnusableRow(f"{where}: {name!r} is filled, and only text can be read; {way_out}", "media")
    kind, remedy = ("messages", "put them into the messages")
    if isinstance(prompt, str):
        kind, remedy = ("plain text", "make the prompt messages {role, content}")
    what = f"nothing can show {name!r} to the model beside a prompt of {kind}"
    return UnusableRow(f"{where}: {what}\n{remedy}; {way_out}", "not_shown")


def _is_named(name: str, named: Collection[str]) -> bool:
    return any(name == value or f"{{{name}}}" in value for value in named)


def _is_blank(value: Json) -> bool:
    return not value or (isinstance(value, str) and value.strip() in ("", "[]", "{}", "null"))
