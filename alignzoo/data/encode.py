"""Text to tokens: the end of a completion, and what of it the policy wrote.

A prompt and its completion are tokenised whole; which tokens are whose is read off their places in the text. Whoever reads text
for a model does it by the settings that are saved beside it.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from alignzoo.common.folder import ENCODER
from alignzoo.data.json_text import Json
from alignzoo.data.messages import Message, Text, rebuilt, turns_of
from alignzoo.data.render import Renderer, Rendering, Rewrites
from alignzoo.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Encoder", "Rewrites", "TokenText", "Tokens"]


@dataclass(frozen=True)
class Tokens:
    """A completion: ids, which of them are scored, and whether it was cut at the length limit. `prompt` tells of how many the
    text is the prompt's, where that is still before it."""

    ids: list[int]
    scored: list[bool]
    truncated: bool = False
    prompt: int = 0

    def cut(self, limit: int) -> Tokens:
        return self if len(self.ids) <= limit else Tokens(self.ids[:limit], self.scored[:limit], True)

    def after(self, kept: int) -> Tokens:
        """Without the first so many."""
        return Tokens(self.ids[kept:], self.scored[kept:], self.truncated)

    def shared(self, ids: list[int]) -> int:
        """How many tokens are those of the prompt by itself, which has these."""
        same = (i for i, (a, b) in enumerate(zip(ids, self.ids[: self.prompt], strict=False)) if a != b)
        return next(same, min(len(ids), self.prompt))


class TokenText(str):
    """A prompt or completion that stays the tokens it was made of: those of a sample need not be what its text gives again."""

    tokens: Tokens

    @classmethod
    def of(cls, text: str, tokens: Tokens) -> TokenText:
        kept = cls(text)
        kept.tokens = tokens
        return kept


@dataclass(kw_only=True)
class Encoder(Renderer):
    """Tokenises prompts as the model will meet them, and completions as it would write them.

    `encoder_decoder`: the model reads prompts by an encoder of their own, so completions are tokenised by themselves.
    `messages`: what it was made for are messages, so that a text alone is one of a user's.
    """

    encoder_decoder: bool = False
    messages: bool = False

    @classmethod
    def beside(cls, model: str, tokenizer: PreTrainedTokenizerBase) -> Self | None:
        """As the model in this folder was trained to read text; None where alignzoo did not train it."""
        path = Path(model).expanduser() / ENCODER
        return cls(tokenizer=tokenizer, **json.loads(path.read_text("utf-8"))) if path.is_file() else None

    @property
    def settings(self) -> dict[str, Json]:
        """All that tells how text is read, but the tokenizer: what is saved beside a model."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "tokenizer"}
        return kept | {"template": self.template or self.tokenizer.chat_template}

    def save(self, folder: Path) -> None:
        (folder / ENCODER).write_text(json.dumps(self.settings, indent=1, ensure_ascii=False), "utf-8")

    def typed(self, text: Text) -> Text:
        """What somebody typed, as the data's prompts are."""
        return turns_of(text) if self.messages else text

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
        rows = [(i, text) for i, group in enumerate(groups) for text in group if not isinstance(text, TokenText)]
        wholes = iter(self._wholes([(prompts[i], self.rendering(prompts[i], text)) for i, text in rows]))
        encoded = []
        for ids, group in zip(begun, groups, strict=True):
            parts = [text.tokens if isinstance(text, TokenText) else next(wholes) for text in group]
            fresh = [not isinstance(text, TokenText) for text in group]
            shared = [part.shared(ids) for part, new in zip(parts, fresh, strict=True) if new]
            kept = 0 if self.encoder_decoder else min(shared, default=len(ids))
            prompt = (ids if self.encoder_decoder else ids[:kept]) or [self._first]
            encoded.append((prompt, [part.after(kept) if new else part for part, new in zip(parts, fresh, strict=True)]))
        return encoded

    def completions(
        self, prompts: Sequence[Text], prompt_ids: Sequence[list[int]], completions: Sequence[Text]
    ) -> list[Tokens]:
        """The tokens of a completion of each prompt, whose own ids stay as they are: `encode` without taking from them."""
        encoded = self.encode(prompts, [[completion] for completion in completions])
        rows = zip(prompts, prompt_ids, completions, encoded, strict=True)
        return [tokens if begun == ids else self._alone(p, c) for p, begun, c, (ids, (tokens,)) in rows]

    def shortened(self, prompt: Text, limit: int) -> Text:
        """A conversation of at most `limit` tokens: without its earliest messages, but the system's, and then without the
        beginning of the last one; as it is where not even that is enough."""
        system = [message for message in turns_of(prompt) if message["role"] == "system"]
        turns = [message for message in turns_of(prompt) if message["role"] != "system"]

        def fitting(latest: list[Message]) -> Text | None:
            text = rebuilt(prompt, [*system, *latest])
            try:
                return text if len(self.prompts([text])[0]) <= limit else None
            except UserError:  # of turns that begin in the middle of an exchange
                return None

        for start in range(len(turns)):
            if text := fitting(turns[start:]):
                return text
        last, words = turns[-1], str(turns[-1].get("content") or "")
        gone = bisect_left(range(len(words)), True, key=lambda n: fitting([{**last, "content": words[n:]}]) is not None)
        return fitting([{**last, "content": words[gone:]}]) or prompt

    @property
    def _first(self) -> int:
        bos = self.tokenizer.bos_token_id
        return int(self.tokenizer.eos_token_id if bos is None else bos)

    def _begun(self, prompts: Sequence[Text]) -> list[list[int]]:
        fresh = [p for p in prompts if not isinstance(p, TokenText)]
        ids = iter(self._tokenised([self.rendered(p) for p in fresh], [self.plain(p) for p in fresh], offsets=False))
        return [p.tokens.ids if isinstance(p, TokenText) else next(ids)[0] for p in prompts]

    def _wholes(self, rows: Sequence[tuple[Text, Rendering]]) -> list[Tokens]:
        """Each prompt with its completion; of an encoder-decoder the completion alone."""
        renderings = [rendering.completion() if self.encoder_decoder else rendering for _, rendering in rows]
        plain = [self.plain(prompt) and not self.encoder_decoder for prompt, _ in rows]
        tokens = self._tokenised([r.text for r in renderings], plain, offsets=True)
        end = int(self.tokenizer.eos_token_id)
        return [_whole(r, *row, end) for r, row in zip(renderings, tokens, strict=True)]

    def _alone(self, prompt: Text, completion: Text) -> Tokens:
        """By itself: what can be had where the prompt's last tokens must stay though the whole text has others."""
        alone = replace(self, encoder_decoder=True)
        return alone._wholes([(prompt, alone.rendering(prompt, completion))])[0].after(0)

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
            rows = [i for i, marked in enumerate(special) if marked == wanted and (texts[i] or wanted)]
            if not rows:
                continue
            batch = self.tokenizer([texts[i] for i in rows], add_special_tokens=wanted, return_offsets_mapping=offsets)
            end = -1 if wanted and not self.encoder_decoder and self._closes else None
            for place, i in enumerate(rows):
                spans = batch["offset_mapping"][place] if offsets else []
                encoded[i] = (batch["input_ids"][place][:end], spans[:end])
        return encoded

    @cached_property
    def _closes(self) -> bool:
        return bool(self.tokenizer("a")["input_ids"][-1:] == [self.tokenizer.eos_token_id])


def _whole(rendering: Rendering, ids: list[int], spans: Sequence[tuple[int, int]], end: int) -> Tokens:
    """Prompt and completion, up to the last token that the policy writes, and `end` where the template has none."""
    covered = list(_covered(spans))
    scored = [any(stop > a and start < b for a, b in rendering.written) for start, stop in covered]
    prompt = next((i for i, (_, stop) in enumerate(covered) if stop > rendering.start), len(ids))
    last = max((i + 1 for i, mark in enumerate(scored) if mark), default=prompt)
    ids, scored = ids[:last], scored[:last]
    if not rendering.closed and ids[prompt:][-1:] != [end]:
        ids, scored = [*ids, end], [*scored, True]
    return Tokens(ids, scored, prompt=prompt)


def _covered(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The characters that each token stands for: byte-level tokenizers leave white space out of theirs, so that of a token of
    white space alone nothing is left."""
    reached = 0
    for start, stop in spans:
        yield (start if start < stop else min(reached, stop)), stop
        reached = max(reached, stop)
