"""The task's strings as tokens: prompts, completions, and the prefixes that have to be looked at to know a policy whole."""

from __future__ import annotations

from functools import cached_property
from itertools import islice, product
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from alignzoo.batch import Completions, Prompts
from alignzoo.contracts import Policy
from alignzoo.data.exact.optimum import StringTree
from alignzoo.data.tables import TokenColumns
from alignzoo.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTENT = "abcdefghijklmnopqrstuvwxyz"
PROMPT = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Language:
    """Prompts are equally long strings of capital letters; completions are strings of the first `tree.tokens` small letters."""

    def __init__(self, prompts: int, tree: StringTree, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tree, self.tokenizer = tree, tokenizer
        self.content = torch.tensor([self._single(letter) for letter in CONTENT[: tree.tokens]])  # (k,)
        self.support = torch.cat([self.content, torch.tensor([tokenizer.eos_token_id])])  # (k + 1,), the end last
        self.prompt_ids = torch.tensor([[self._single(letter) for letter in name] for name in prompt_names(prompts)])  # (P, w)
        self.digits, self.lengths = tree.digits()  # (completions, length), (completions,)

    def _single(self, letter: str) -> int:
        ids = self.tokenizer(letter, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise UserError(
                f"data=exact writes {letter!r} as one token, and this tokenizer makes {len(ids)} of it: "
                "use model=small, or another model.tokenizer"
            )
        return int(ids[0])

    def decode(self, ids: list[list[int]]) -> list[str]:
        return list(self.tokenizer.batch_decode(ids, skip_special_tokens=True))

    # --- from numbers to records ---

    def prompts(self, numbers: Tensor, row: Tensor) -> Prompts:
        """The prompts of these numbers, identified by `row`."""
        ids = self.prompt_ids[numbers]
        return Prompts(ids=ids, attended=torch.ones_like(ids, dtype=torch.bool), row=row, decode=self.decode)

    def completions(self, numbers: Tensor) -> TokenColumns:
        """The token columns of a `Completions` record for these completions."""
        lengths, width = self.lengths[numbers], self.tree.length
        ended = lengths < width
        ids = torch.where(torch.arange(width) < lengths[:, None], self.content[self.digits[numbers]], 0)
        ids[ended, lengths[ended]] = self.support[-1]
        attended = torch.arange(width) < (lengths + ended)[:, None]
        return {"ids": ids, "attended": attended, "scored": attended, "truncated": ~ended}

    @cached_property
    def every_prefix(self) -> Completions:
        """Every prompt with every prefix, each scored once: rows are the longest prefixes, each followed by one token."""
        codes = torch.arange(self.tree.tokens ** (self.tree.length - 1))
        steps = self.tree.tokens ** torch.arange(self.tree.length - 1, -1, -1)
        ids = self.content[codes[:, None] * self.tree.tokens // steps % self.tree.tokens]
        count = len(self.prompt_ids)
        numbers = torch.arange(count)
        prompt_of = numbers.repeat_interleave(len(codes))
        return Completions(
            prompts=self.prompts(numbers, numbers),
            prompt_of=prompt_of,
            ids=ids.repeat(count, 1),
            attended=torch.ones(len(prompt_of), self.tree.length, dtype=torch.bool),
            scored=(codes[:, None] % steps == 0).repeat(count, 1),
            truncated=torch.ones(len(prompt_of), dtype=torch.bool),
            row=prompt_of,
        )

    # --- from records to numbers ---

    def prompt_numbers(self, prompts: Prompts) -> Tensor:
        """(P,): which prompt of the task each is. Raises ValueError for others."""
        ids = self.prompt_ids.to(prompts.ids.device)
        same = (prompts.ids[:, None] == ids).all(-1) if prompts.ids.shape[1] == ids.shape[1] else ids.new_zeros(1, 1)
        if not bool(same.any(1).all()):
            raise ValueError("these prompts are none of the exact task's")
        return same.int().argmax(1)

    def digits_of(self, ids: Tensor) -> Tensor:
        """Token ids of any shape to 0 ... k - 1 for content, k for the end, k + 1 for whatever else."""
        support = self.support.to(ids.device)
        same = ids[..., None] == support
        return torch.where(same.any(-1), same.int().argmax(-1), len(support))

    def prefix_numbers(self, digits: Tensor) -> Tensor:
        """(B, T) digits -> (B, T + 1): the number of the prefix before each token, and of the whole. Right up to the first
        digit that is no content; what follows is some valid number."""
        code = digits.new_zeros(len(digits))
        numbers = [code]
        for t in range(digits.shape[1]):
            code = code * self.tree.tokens + digits[:, t].clamp(max=self.tree.tokens - 1)
            numbers.append((self.tree.first(t + 1) + code) if t < self.tree.length else torch.zeros_like(code))
        return torch.stack(numbers, 1)

    def completion_numbers(self, c: Completions) -> Tensor:
        """(B,): which completion of the task each is, -1 where none."""
        end, foreign = self.tree.tokens, self.tree.tokens + 1
        digits = pad(torch.where(c.attended, self.digits_of(c.ids), foreign), (0, 1), value=foreign)
        content = (digits < end).long().cumprod(1).sum(1)
        written, after = c.attended.sum(1), digits.gather(1, content[:, None])[:, 0]
        full = (content == self.tree.length) & (written == content)
        ended = (content < self.tree.length) & (written == content + 1) & (after == end)
        numbers = self.prefix_numbers(digits).gather(1, content[:, None])[:, 0]
        return torch.where(full | ended, numbers, -1)


def prompt_names(count: int) -> list[str]:
    """The first `count` strings over PROMPT, all of the same length."""
    width = 1
    while len(PROMPT) ** width < count:
        width += 1
    return ["".join(name) for name in islice(product(PROMPT, repeat=width), count)]


@torch.no_grad()
def policy_table(language: Language, policy: Policy, device: torch.device) -> Tensor:
    """(P, prefixes, tokens + 1) float64 on the CPU: log-probs of the next token after every prefix of every prompt."""
    c, tree = language.every_prefix, language.tree
    support = language.support.to(device)
    each = len(c) // len(c.prompts)
    tables = []
    for start in range(0, len(c), each):
        part = c.take(range(start, start + each)).to(device)
        logprobs = policy.tokens(part, lambda logits: logits[:, support].double().log_softmax(-1)).cpu()
        levels = [logprobs[:: tree.tokens ** (tree.length - 1 - t), t] for t in range(tree.length)]
        tables.append(torch.cat(levels))
    return torch.stack(tables)
