"""What rewards that ask a pretrained model share: its settings, loading it, and the tokens it reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alignzoo.batch import Completions, token_lists
from alignzoo.contracts import Context, Reward, Source
from alignzoo.errors import UserError, require
from alignzoo.models.loading import Location
from alignzoo.settings import Dtype, embedded

Ids = list[int]


@dataclass(kw_only=True)
class PretrainedReward(Reward):
    """A reward of a frozen model, loaded by the class `architecture` of transformers. A model with the policy's vocabulary
    reads the policy's tokens, any other reads the text. What is longer than its context has no score."""

    name: ClassVar[str]
    architecture: ClassVar[str]

    path: str | None = field(default=None, metadata={"help": "a folder or hub name"})
    dtype: Dtype = field(default=Dtype.float32, metadata={"help": "of the model's weights"})
    batch: int = field(default=32, metadata={"help": "completions scored at once"})

    def __post_init__(self) -> None:
        require(self.batch >= 1, "reward.batch", self.batch, ">= 1")
        self.path = self.path and embedded(self.path)

    def resolve(self, source: Source) -> Reward:
        if not self.path:
            raise UserError(f"reward={self.name} needs a model: give reward.path=PATH")
        if Path(self.path).is_absolute() and not Path(self.path).exists():
            raise UserError(f"reward.path={self.path} does not exist")
        return self

    def setup(self, context: Context) -> None:
        self._device = context.device
        self._model, self._tokenizer = pretrained(self.architecture, str(self.path), self.dtype)
        self._model.to(context.device)
        self._reads_tokens = self._tokenizer.get_vocab() == context.tokenizer.get_vocab()
        self._longest = getattr(self._model.config, "max_position_embeddings", None) or 1 << 30

    def _padded(self, rows: list[Ids], pad: int = 0) -> dict[str, Tensor]:
        """The model's inputs, (n, T) each, padded on the right."""
        ids = [torch.tensor(row, dtype=torch.long, device=self._device) for row in rows]
        attended = [torch.ones_like(row) for row in ids]
        return {"input_ids": pad_sequence(ids, True, pad), "attention_mask": pad_sequence(attended, True)}


def of_policy(c: Completions) -> list[tuple[Ids, Ids]]:
    """The policy's tokens of each prompt and completion."""
    prompts = token_lists(c.prompts.ids, c.prompts.attended)
    return [(prompts[i], ids) for i, ids in zip(c.prompt_of.tolist(), token_lists(c.ids, c.attended), strict=True)]


def pretrained(architecture: str, path: str, dtype: Dtype) -> tuple[Any, Any]:
    """The frozen model at `path`, by that class of transformers, and its tokenizer. Raises UserError where there is none, or
    one of another kind."""
    import transformers

    where = Location.of(path, "reward.path")
    model = where.network(getattr(transformers, architecture), dtype=getattr(torch, dtype.value))
    return model.eval().requires_grad_(False), where.tokenizer()
