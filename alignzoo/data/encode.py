"""Text to tokens: chat templates, the end of a completion, and what of it the policy wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from jinja2 import TemplateError

from alignzoo.data.rows import Text
from alignzoo.errors import UserError

Segment = tuple[str, bool]  # a stretch of a completion, and whether the policy wrote it


@dataclass(frozen=True)
class Tokens:
    """A completion: ids, which of them are scored, and whether it was cut at the length limit."""

    ids: list[int]
    scored: list[bool]
    truncated: bool = False

    def cut(self, limit: int) -> Tokens:
        return self if len(self.ids) <= limit else Tokens(self.ids[:limit], self.scored[:limit], True)


class Written(str):
    """A prompt or completion that stays the tokens it was made of: those of a sample need not be what its text gives again."""

    tokens: Tokens

    @classmethod
    def of(cls, text: str, tokens: Tokens) -> Written:
        made = cls(text)
        made.tokens = tokens
        return made


@dataclass(kw_only=True)
class Encoder:
    """Tokenises prompts as the model will meet them, and completions as it would write them.

    `chat` turns plain texts into a user's message and the assistant's answer, after `system` if there is one. Messages go
    through `template`, or else the tokenizer's own chat template, with `options` (such as enable_thinking).
    """

    tokenizer: Any
    chat: bool = False
    system: str | None = None
    template: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def prompts(self, prompts: Sequence[Text]) -> list[list[int]]:
        """The ids of each prompt; an empty one is BOS, or EOS without a BOS, since a completion must follow something."""
        fresh = [p for p in prompts if not isinstance(p, Written)]
        made = iter(self._ids([self._rendered(p) for p in fresh], [self._plain(p) for p in fresh]))
        encoded = [p.tokens.ids if isinstance(p, Written) else next(made) for p in prompts]
        start = self.tokenizer.eos_token_id if self.tokenizer.bos_token_id is None else self.tokenizer.bos_token_id
        return [ids or [start] for ids in encoded]

    def completions(
        self, prompts: Sequence[Text], prompt_ids: Sequence[list[int]], completions: Sequence[Text]
    ) -> list[Tokens]:
        """The tokens of each completion, EOS last.

        A completion is tokenised together with its prompt where that leaves the prompt's own tokens as they are, and on its own
        otherwise: the prompt must be what `prompts` made of it, since that is what the model is given when it samples.
        """
        rows = zip(prompts, prompt_ids, completions, strict=True)
        fresh = [row for row in rows if not isinstance(row[2], Written)]
        made = iter(self._encoded(*zip(*fresh, strict=True))) if fresh else iter(())
        return [c.tokens if isinstance(c, Written) else next(made) for c in completions]

    def _encoded(self, prompts: Sequence[Text], prompt_ids: Sequence[list[int]], completions: Sequence[Text]) -> list[Tokens]:
        segments = [self._segments(p, c) for p, c in zip(prompts, completions, strict=True)]
        firsts = [parts[0][0] for parts in segments]
        alone = self._ids(firsts, [False] * len(firsts))
        plain = [self._plain(p) for p in prompts]
        joint = self._ids([self._rendered(p) + first for p, first in zip(prompts, firsts, strict=True)], plain)
        encoded = []
        for parts, prefix, ids, both, own in zip(segments, prompt_ids, alone, joint, plain, strict=True):
            first = both[len(prefix) :] if both[: len(prefix)] == prefix else ids
            rest = self._ids([text for text, _ in parts[1:]], [False] * len(parts[1:]))
            stretches = [first, *rest]
            stretches[-1] = self._ended(stretches[-1], templated=not own)
            marks = [mark for stretch, (_, mark) in zip(stretches, parts, strict=True) for _ in stretch]
            encoded.append(Tokens([token for stretch in stretches for token in stretch], marks))
        return encoded

    def _ended(self, ids: list[int], templated: bool) -> list[int]:
        """Closed by EOS; what a template writes after it is never sampled, so it goes."""
        end = self.tokenizer.eos_token_id
        if templated and end in ids:
            return ids[: len(ids) - ids[::-1].index(end)]
        return ids if ids[-1:] == [end] else [*ids, end]

    def _ids(self, texts: list[str], special: list[bool]) -> list[list[int]]:
        """Texts with `special` get the tokenizer's own special tokens; chat templates write theirs into the text."""
        encoded: list[list[int]] = [[] for _ in texts]
        for wanted in (True, False):
            rows = [i for i, own in enumerate(special) if own == wanted and (texts[i] or wanted)]
            ids = self.tokenizer([texts[i] for i in rows], add_special_tokens=wanted)["input_ids"] if rows else []
            for i, tokens in zip(rows, ids, strict=True):
                encoded[i] = tokens
        return encoded

    def _plain(self, prompt: Text) -> bool:
        return isinstance(prompt, str) and not (self.chat and prompt)

    def _messages(self, text: Text, role: str) -> list[dict[str, Any]]:
        messages = [{"role": role, "content": text}] if isinstance(text, str) else text
        system = self.system if role == "user" and not any(m["role"] == "system" for m in messages) else None
        return [{"role": "system", "content": system}, *messages] if system else messages

    def _rendered(self, prompt: Text) -> str:
        if isinstance(prompt, str) and self._plain(prompt):
            return prompt
        messages = self._messages(prompt, "user")
        return self._apply(messages, answer=not messages or messages[-1]["role"] != "assistant")

    def _segments(self, prompt: Text, completion: Text) -> list[Segment]:
        """The text each message adds: the assistant's words are scored, other turns and the headers of answers are not."""
        if isinstance(prompt, str) and self._plain(prompt):
            return [(str(completion), True)]
        history = self._messages(prompt, "user")
        written = [self._rendered(prompt)]
        marks = []
        for message in self._messages(completion, "assistant"):
            if message["role"] == "assistant":
                written.append(self._apply(history, answer=True))
                marks.append(False)
            history = [*history, message]
            written.append(self._apply(history, answer=False))
            marks.append(message["role"] == "assistant")
        added = [(self._added(before, after), mark) for (before, after), mark in zip(pairwise(written), marks, strict=True)]
        return [segment for segment in added if segment[0]]

    def _added(self, before: str, after: str) -> str:
        if not after.startswith(before):
            raise UserError(
                "the chat template rewrites earlier text when a message is added, so a completion has no beginning of its own\n"
                f"{before[-30:]!r} became {after[: len(before)][-30:]!r}; give another with data.chat_template=FILE"
            )
        return after[len(before) :]

    def _apply(self, messages: list[dict[str, Any]], answer: bool) -> str:
        if not (self.template or self.tokenizer.chat_template):
            raise UserError(
                "the data is made of messages, and the tokenizer has no chat template\n"
                "give one with data.chat_template=FILE (jinja), or a tokenizer that has one with model.tokenizer=PATH"
            )
        options = {"chat_template": self.template, "tokenize": False, "add_generation_prompt": answer, **self.options}
        try:
            return str(self.tokenizer.apply_chat_template(messages, **options))
        except TemplateError as error:
            roles = ", ".join(str(message["role"]) for message in messages)
            raise UserError(f"the chat template refuses the messages {roles}: {error}") from error
