"""Prompts as people and other models read them: what they were made of, not the tokens that a policy was given."""

from __future__ import annotations

from alignzoo.batch import Prompts
from alignzoo.data.rows import Text


def originals(prompts: Prompts) -> list[Text]:
    """The text or the messages that each prompt was made of; the text of its tokens where its data does not say."""
    return list(prompts.text) if prompts.made_of is None else prompts.made_of


def readable(text: Text) -> str:
    """Text as it is; of messages what the user says, where that is all, else each after its role."""
    if isinstance(text, str):
        return text
    if [message["role"] for message in text] == ["user"]:
        return str(text[0].get("content") or "")
    return "\n".join(f"{message['role']}: {message.get('content') or message.get('tool_calls') or ''}" for message in text)
