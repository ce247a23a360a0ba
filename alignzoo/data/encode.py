"""Text to tokens: chat templates, the end of a completion, and what of it the policy wrote.

A prompt and its completion are one text, tokenised whole; which tokens are whose is read off their places in it. Messages stay
messages until then, and whoever reads text for a model does it by the settings that are saved beside it.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from jinja2 import TemplateError

from alignzoo.common.folder import ENCODER
from alignzoo.data.messages import Messages, Text, rebuilt
from alignzoo.errors import UserError

PROBE = "Paris"  # an answer by which a template shows how it ends one


class Rewrites(UserError):
    """The template changes what it wrote of earlier messages when another is added."""


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


@dataclass(frozen=True)
class Rendering:
    """A prompt and its completion as one text, of which the first `start` characters are the prompt. The policy writes the
    stretches `written`; `closed` tells that the last of them ends with the template's own end of a turn."""

    text: str
    start: int
    written: list[tuple[int, int]]
    closed: bool


@dataclass(kw_only=True)
class Encoder:
    """Tokenises prompts as the model will meet them, and completions as it would write them.

    `chat` turns plain texts into a user's message and the assistant's answer, after `system` if there is one. Messages go
    through `template`, or else the tokenizer's own chat template, with `options` (such as enable_thinking).
    `encoder_decoder`: the model reads prompts by an encoder of their own, so completions are tokenised by themselves.
    `messages`: what it was made for are messages, so that a text alone is one of a user's.
    """

    tokenizer: Any
    chat: bool = False
    system: str | None = None
    template: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    encoder_decoder: bool = False
    messages: bool = False

    @classmethod
    def beside(cls, model: str, tokenizer: Any) -> Self | None:
        """As the model in this folder was trained to read text; None where alignzoo did not train it."""
        path = Path(model).expanduser() / ENCODER
        return cls(tokenizer=tokenizer, **json.loads(path.read_text("utf-8"))) if path.is_file() else None

    @property
    def settings(self) -> dict[str, Any]:
        """All that tells how text is read, but the tokenizer: what is saved beside a model."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "tokenizer"}
        return kept | {"template": self.template or self.tokenizer.chat_template}

    def save(self, folder: Path) -> None:
        (folder / ENCODER).write_text(json.dumps(self.settings, indent=1, ensure_ascii=False), "utf-8")

    def typed(self, text: Text) -> Text:
        """What somebody typed, as the data's prompts are."""
        return [{"role": "user", "content": text}] if self.messages and isinstance(text, str) else text

    def prompts(self, prompts: Sequence[Text]) -> list[list[int]]:
        """The ids of each prompt; an empty one is BOS, or EOS without a BOS, since a completion must follow something."""
        return [ids or [self._first] for ids in self._begun(prompts)]

    def encode(self, prompts: Sequence[Text], groups: Sequence[Sequence[Text]]) -> list[tuple[list[int], list[Tokens]]]:
        """The ids of each prompt, and the tokens of its completions, EOS or the template's end of a turn last.

        A token that reaches beyond the prompt is the completion's. Where the whole has other tokens than the prompt by itself
        (a space at its end that joins the next word), the prompt ends with the last token that it shares with all of them,
        and what is left of it stands, not scored, before each. Raises UserError for what the template refuses.
        """
        begun = self._begun(prompts)
        rows = [(i, text) for i, group in enumerate(groups) for text in group if not isinstance(text, Written)]
        renderings = [self._rendering(prompts[i], text) for i, text in rows]
        wholes = iter(self._wholes([prompts[i] for i, _ in rows], renderings))
        encoded = []
        for ids, group in zip(begun, groups, strict=True):
            parts = [text.tokens if isinstance(text, Written) else next(wholes) for text in group]
            fresh = [part for part in parts if isinstance(part, _Whole)]
            kept = 0 if self.encoder_decoder else min((part.shared(ids) for part in fresh), default=len(ids))
            prompt = (ids if self.encoder_decoder else ids[:kept]) or [self._first]
            encoded.append((prompt, [part.after(kept) if isinstance(part, _Whole) else part for part in parts]))
        return encoded

    def completions(
        self, prompts: Sequence[Text], prompt_ids: Sequence[list[int]], completions: Sequence[Text]
    ) -> list[Tokens]:
        """The tokens of a completion of each prompt, whose own ids stay as they are: `encode` without taking from them."""
        encoded = self.encode(prompts, [[completion] for completion in completions])
        rows = zip(prompts, prompt_ids, completions, encoded, strict=True)
        return [tokens if given == ids else self._alone(p, c) for p, given, c, (ids, (tokens,)) in rows]

    def records(self, prompt: Text, completion: Text) -> list[tuple[Text, Text]]:
        """(prompt, completion) as they can be trained: the row itself, or, where the template rewrites earlier turns, each
        answer after the history that it was, or would be, generated from."""
        if isinstance(completion, str) or sum(message["role"] == "assistant" for message in completion) < 2:
            return [(prompt, completion)]
        try:
            self._rendering(prompt, completion)
            return [(prompt, completion)]
        except Rewrites:
            history = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
            whole = [*history, *completion]
            places = [i for i in range(len(history), len(whole)) if whole[i]["role"] == "assistant"]
            return [(rebuilt(prompt, whole[:i]), [whole[i]]) for i in places]

    def shortened(self, prompt: Text, limit: int) -> Text:
        """A conversation of at most `limit` tokens: without its earliest messages, but the system's, and then without the
        beginning of the last one; as it is where not even that is enough."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        system, turns = [m for m in messages if m["role"] == "system"], [m for m in messages if m["role"] != "system"]

        def fits(rest: list[dict[str, Any]]) -> bool:
            try:
                return len(self.prompts([rebuilt(prompt, [*system, *rest])])[0]) <= limit
            except UserError:  # of turns that begin in the middle of an exchange
                return False

        for start in range(len(turns)):
            if fits(turns[start:]):
                return rebuilt(prompt, [*system, *turns[start:]])
        last = turns[-1]
        words, short = str(last.get("content") or ""), {**last, "content": ""}
        if not fits([short]):
            return prompt
        gone = bisect_left(range(len(words)), True, key=lambda n: fits([{**last, "content": words[n:]}]))
        return rebuilt(prompt, [*system, {**last, "content": words[gone:]}])

    @cached_property
    def turn_end(self) -> int | None:
        """The special token by which the template ends an answer; None where it has no template, or ends none so."""
        if not (self.template or self.tokenizer.chat_template):
            return None
        asked = [{"role": "user", "content": "What is the capital of France?"}]
        try:
            opened, whole = self._apply(asked, True), self._apply([*asked, {"role": "assistant", "content": PROBE}], False)
        except UserError:
            return None
        tail = whole[len(opened) :].partition(PROBE)[2] if whole.startswith(opened) else ""
        special = {*self.tokenizer.all_special_ids, *(i for i, t in self.tokenizer.added_tokens_decoder.items() if t.special)}
        return next((i for i in self.tokenizer(tail, add_special_tokens=False)["input_ids"] if i in special), None)

    @property
    def source(self) -> str:
        """The text of its template, or of all where the tokenizer has several."""
        template = self.template or self.tokenizer.chat_template or ""
        return template if isinstance(template, str) else "\n".join(template.values())

    @property
    def _first(self) -> int:
        bos = self.tokenizer.bos_token_id
        return int(self.tokenizer.eos_token_id if bos is None else bos)

    def _begun(self, prompts: Sequence[Text]) -> list[list[int]]:
        fresh = [p for p in prompts if not isinstance(p, Written)]
        ids = iter(self._tokenised([self.rendered(p) for p in fresh], [self.plain(p) for p in fresh], offsets=False))
        return [p.tokens.ids if isinstance(p, Written) else next(ids)[0] for p in prompts]

    def _wholes(self, prompts: Sequence[Text], renderings: Sequence[Rendering]) -> list[_Whole]:
        if self.encoder_decoder:
            shifted = [[(a - r.start, b - r.start) for a, b in r.written] for r in renderings]
            parts = zip(renderings, shifted, strict=True)
            renderings = [Rendering(r.text[r.start :], 0, written, r.closed) for r, written in parts]
        plain = [self.plain(p) and not self.encoder_decoder for p in prompts]
        tokens = self._tokenised([r.text for r in renderings], plain, offsets=True)
        end = self.tokenizer.eos_token_id
        return [_Whole.of(r, *row, end) for r, row in zip(renderings, tokens, strict=True)]

    def _alone(self, prompt: Text, completion: Text) -> Tokens:
        """By itself: what can be had where the prompt's last tokens must stay though the whole text has others."""
        alone = replace(self, encoder_decoder=True)
        (whole,) = alone._wholes([prompt], [alone._rendering(prompt, completion)])
        return whole.after(0)

    def _tokenised(self, texts: list[str], special: list[bool], offsets: bool) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Ids, and the places of each in its text. Texts with `special` get the tokenizer's own special tokens; chat templates
        write theirs into the text. A closing EOS of a tokenizer's is no part of a text that goes on."""
        encoded: list[tuple[list[int], list[tuple[int, int]]]] = [([], []) for _ in texts]
        if offsets and not self.tokenizer.is_fast:
            raise UserError(
                f"the tokenizer {type(self.tokenizer).__name__} does not tell which text a token stands for: give its fast "
                "variant (a tokenizer.json) with model.tokenizer=PATH"
            )
        for wanted in (True, False):
            rows = [i for i, own in enumerate(special) if own == wanted and (texts[i] or wanted)]
            if not rows:
                continue
            made = self.tokenizer([texts[i] for i in rows], add_special_tokens=wanted, return_offsets_mapping=offsets)
            closes = wanted and not self.encoder_decoder and self._closes
            for place, i in enumerate(rows):
                ids, spans = made["input_ids"][place], made["offset_mapping"][place] if offsets else []
                encoded[i] = (ids[:-1], spans[:-1]) if closes else (ids, spans)
        return encoded

    @cached_property
    def _closes(self) -> bool:
        return bool(self.tokenizer("a")["input_ids"][-1:] == [self.tokenizer.eos_token_id])

    def plain(self, prompt: Text) -> bool:
        """Whether it is read as the text it is, through no template."""
        return isinstance(prompt, str) and not (self.chat and prompt)

    def _messages(self, text: Text, role: str) -> list[dict[str, Any]]:
        messages = [{"role": role, "content": text}] if isinstance(text, str) else text
        system = self.system if role == "user" and not any(m["role"] == "system" for m in messages) else None
        return rebuilt(text, [{"role": "system", "content": system}, *messages]) if system else messages

    def rendered(self, prompt: Text) -> str:
        """The text that it is tokenised as. Raises UserError for what the template refuses."""
        if isinstance(prompt, str) and self.plain(prompt):
            return prompt
        messages = self._messages(prompt, "user")
        return self._apply(messages, answer=not messages or messages[-1]["role"] != "assistant")

    def _rendering(self, prompt: Text, completion: Text) -> Rendering:
        """Raises Rewrites where the turns have no one text that holds each as it was generated."""
        if isinstance(prompt, str) and self.plain(prompt):
            whole = prompt + str(completion)
            return Rendering(whole, len(prompt), [(len(prompt), len(whole))], closed=False)
        history, text = self._messages(prompt, "user"), self.rendered(prompt)
        turns, start, written, mark = self._messages(completion, "assistant"), len(text), [], self._end_mark
        end = -1
        for message in turns:
            history, before = rebuilt(history, [*history, message]), history
            if message["role"] == "assistant":
                opened = _extended(text, self._apply(before, answer=True))
                text = _extended(opened, self._apply(history, answer=False))
                end = text.rfind(mark, len(opened)) if mark else -1
                if message.get("weight", 1):  # of OpenAI's files: 0 is shown and not trained
                    written.append((len(opened), len(text) if end < 0 else end + len(mark)))
        if not written:
            roles = ", ".join(str(message["role"]) for message in turns)
            raise UserError(f"there is no answer of an assistant to train among the messages of {roles}")
        return Rendering(text, start, written, closed=end >= 0)

    @cached_property
    def _end_mark(self) -> str:
        return "" if self.turn_end is None else str(self.tokenizer.convert_ids_to_tokens(self.turn_end))

    def _apply(self, messages: list[dict[str, Any]], answer: bool) -> str:
        if not (self.template or self.tokenizer.chat_template):
            raise UserError(
                "the data is made of messages, and the tokenizer has no chat template\n"
                "give one with data.chat_template=FILE (jinja), or a tokenizer that has one with model.tokenizer=PATH"
            )
        own = messages.options if isinstance(messages, Messages) else {}
        tools = messages.tools if isinstance(messages, Messages) else None
        options = {"chat_template": self.template, "tokenize": False, "add_generation_prompt": answer, **self.options, **own}
        try:
            return str(self.tokenizer.apply_chat_template(list(messages), tools=tools, **options))
        except (TemplateError, TypeError) as error:
            roles = ", ".join(str(message["role"]) for message in messages)
            raise UserError(f"the chat template refuses the messages {roles}: {error}") from error


@dataclass(frozen=True)
class _Whole:
    """The tokens of a prompt with its completion: ids, which are scored, and up to which of them the text is the prompt's."""

    ids: list[int]
    scored: list[bool]
    prompt: int

    @classmethod
    def of(cls, rendering: Rendering, ids: list[int], spans: Sequence[tuple[int, int]], end: int) -> _Whole:
        covered = list(_covered(spans))
        scored = [any(stop > a and start < b for a, b in rendering.written) for start, stop in covered]
        prompt = next((i for i, (_, stop) in enumerate(covered) if stop > rendering.start), len(ids))
        last = max((i + 1 for i, mark in enumerate(scored) if mark), default=prompt)
        ids, scored = ids[:last], scored[:last]
        if not rendering.closed and ids[prompt:][-1:] != [end]:
            ids, scored = [*ids, end], [*scored, True]
        return cls(ids, scored, prompt)

    def shared(self, ids: list[int]) -> int:
        """How many tokens are those of the prompt by itself."""
        same = (i for i, (a, b) in enumerate(zip(ids, self.ids[: self.prompt], strict=False)) if a != b)
        return next(same, min(len(ids), self.prompt))

    def after(self, kept: int) -> Tokens:
        return Tokens(self.ids[kept:], self.scored[kept:])


def _covered(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The characters that each token stands for: byte-level tokenizers leave white space out of theirs, so that of a token of
    white space alone nothing is left."""
    reached = 0
    for start, stop in spans:
        yield (start if start < stop else min(reached, stop)), stop
        reached = max(reached, stop)


def _extended(before: str, after: str) -> str:
    """`after`. Raises Rewrites where it does not begin with `before`."""
    if after.startswith(before):
        return after
    raise Rewrites(
        "the chat template rewrites earlier text when a message is added, so a completion has no beginning of its own\n"
        f"{before[-30:]!r} became {after[: len(before)][-30:]!r}; train the last turn alone with data.turns=last, or give "
        "another template with data.chat_template=FILE"
    )
