"""`reward=likelihood`: how probable a language model finds the completion."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Context, Reward, Scores, Source
from alignzoo.errors import UserError, require
from alignzoo.rewards.pretrained import pretrained
from alignzoo.settings import Dtype, embedded

Ids = list[int]


@dataclass(kw_only=True)
class Likelihood(Reward):
    """The log-likelihood of the completion after its prompt under a causal language model, in nats, a token or as a sum.

    A model with the policy's vocabulary reads the policy's tokens; any other reads the text in its own tokens, with its EOS
    after a completion that ended. What is longer than its context has no score.
    """

    path: str | None = field(default=None, metadata={"help": "a folder or hub name"})
    mean: bool = field(default=True, metadata={"help": "whether the sum is divided by the number of tokens"})
    dtype: Dtype = field(default=Dtype.float32, metadata={"help": "of the model's weights"})
    batch: int = field(default=32, metadata={"help": "completions scored at once"})

    def __post_init__(self) -> None:
        require(self.batch >= 1, "reward.batch", self.batch, ">= 1")
        self.path = self.path and embedded(self.path)

    def resolve(self, source: Source) -> Reward:
        if not self.path:
            raise UserError("reward=likelihood needs a model: give reward.path=PATH")
        if Path(self.path).is_absolute() and not Path(self.path).exists():
            raise UserError(f"reward.path={self.path} does not exist")
        return self

    def setup(self, context: Context) -> None:
        self._device = context.device
        self._model, self._tokenizer = pretrained("AutoModelForCausalLM", str(self.path), self.dtype)
        self._model.to(context.device)
        self._reads_tokens = self._tokenizer.get_vocab() == context.tokenizer.get_vocab()
        self._longest = getattr(self._model.config, "max_position_embeddings", None) or 1 << 30

    def __call__(self, c: Completions) -> Scores:
        sequences = self._own_tokens(c) if self._reads_tokens else self._encoded(c)
        valid = [0 < len(ids) <= self._longest for ids, _ in sequences]
        total, known = torch.zeros(len(c), device=c.ids.device), [i for i, fits in enumerate(valid) if fits]
        for start in range(0, len(known), self.batch):
            some = known[start : start + self.batch]
            total[some] = self._scored([sequences[i] for i in some]).to(total.device)
        return Scores(total=total, valid=torch.tensor(valid, device=c.ids.device))

    @torch.no_grad()
    def _scored(self, sequences: list[tuple[Ids, list[bool]]]) -> Tensor:
        """(n,) of sequences and, for each token, whether it counts."""
        width = max(len(ids) for ids, _ in sequences)

        def padded(rows: list[Any]) -> Tensor:
            return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self._device)

        ids, counts = padded([ids for ids, _ in sequences]), padded([counts for _, counts in sequences])
        attended = padded([[1] * len(ids) for ids, _ in sequences])
        logits = self._model(input_ids=ids, attention_mask=attended).logits[:, :-1].float()
        each = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        counts = counts[:, 1:].float()
        total = (each * counts).sum(1)
        return total / counts.sum(1).clamp(min=1) if self.mean else total

    def _own_tokens(self, c: Completions) -> list[tuple[Ids, list[bool]]]:
        prompts = [row[mask].tolist() for row, mask in zip(c.prompts.ids, c.prompts.attended, strict=True)]
        made = []
        for i, prompt in enumerate(prompts[p] for p in c.prompt_of.tolist()):
            mask = c.attended[i]
            made.append((prompt + c.ids[i][mask].tolist(), [False] * len(prompt) + c.scored[i][mask].tolist()))
        return made

    def _encoded(self, c: Completions) -> list[tuple[Ids, list[bool]]]:
        """The text in the model's own tokens; prompt and completion apart, so that it is known which are whose."""
        texts, end = c.prompts.text, self._tokenizer.eos_token_id
        start = end if self._tokenizer.bos_token_id is None else self._tokenizer.bos_token_id
        prompts = [self._tokenizer(text)["input_ids"] or ([] if start is None else [start]) for text in texts]
        made = []
        for p, text, cut in zip(c.prompt_of.tolist(), c.text, c.truncated.tolist(), strict=True):
            own = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            own = own if cut or end is None else [*own, end]
            made.append((prompts[p] + own, [False] * len(prompts[p]) + [True] * len(own)))
        return made
