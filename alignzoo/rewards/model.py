"""`reward=model`: a trained reward model."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Context, Reward, Scores, Source
from alignzoo.data.encode import Encoder
from alignzoo.data.readable import originals, readable
from alignzoo.data.rows import Text
from alignzoo.errors import UserError, require
from alignzoo.rewards.pretrained import pretrained
from alignzoo.settings import Dtype, embedded


class Level(Enum):
    sequence = "sequence"
    token = "token"


@dataclass(kw_only=True)
class RewardModel(Reward):
    """A sequence-classification model: one score a completion, or, with level=token, its head's score at every token.

    With one label the score is the logit; with several, the log-probability of `label`. A model that reads text as the policy
    does reads the policy's tokens. Any other reads prompt and completion as it was trained to where alignzoo trained it
    (`encoder.json` beside it), else messages through its own chat template, and text as it is. A text longer than the model's
    context has no score.
    """

    path: str | None = field(default=None, metadata={"help": "a folder or hub name"})
    level: Level = field(default=Level.sequence, metadata={"help": "a score a completion, or a score a token"})
    label: int = field(default=1, metadata={"help": "of several labels, the one whose log-probability is the score"})
    dtype: Dtype = field(default=Dtype.float32, metadata={"help": "of the model's weights"})
    batch: int = field(default=32, metadata={"help": "completions scored at once"})

    def __post_init__(self) -> None:
        require(self.batch >= 1, "reward.batch", self.batch, ">= 1")
        require(self.label >= 0, "reward.label", self.label, ">= 0")
        self.path = self.path and embedded(self.path)

    def resolve(self, source: Source) -> Reward:
        if not self.path:
            raise UserError("reward=model needs a model: give reward.path=PATH")
        if Path(self.path).expanduser().exists() or not Path(self.path).is_absolute():
            return self
        raise UserError(f"reward.path={self.path} does not exist")

    def model_path(self) -> str | None:
        return self.path

    def setup(self, context: Context) -> None:
        self._device = context.device
        self._model, self._tokenizer = pretrained("AutoModelForSequenceClassification", str(self.path), self.dtype)
        self._model.to(context.device)
        self._encoder = Encoder.beside(str(self.path), self._tokenizer)
        alike = self._encoder is None or context.encoder is None or self._encoder.settings == context.encoder.settings
        if self._encoder is None and getattr(self._model.config, "reads_ended_completions", False):
            self._encoder = Encoder(tokenizer=self._tokenizer)  # trained here before settings were saved beside models
        self._reads_tokens = alike and self._tokenizer.get_vocab() == context.tokenizer.get_vocab()
        labels = int(self._model.config.num_labels)
        if labels > 1 and self.label >= labels:
            raise UserError(f"reward.label={self.label}: {self.path} has labels 0 to {labels - 1}")
        if self.level is Level.token and not (self._reads_tokens and hasattr(self._model, "score")):
            why = "has no head that scores every token" if self._reads_tokens else "has another vocabulary than the policy"
            raise UserError(f"reward.level=token: {self.path} {why}; use reward.level=sequence")
        self._longest = getattr(self._model.config, "max_position_embeddings", None) or 1 << 30

    @torch.no_grad()
    def __call__(self, c: Completions) -> Scores:
        ids = self._tokens(c) if self._reads_tokens else self._encoded(c)
        valid = torch.tensor([len(row) <= self._longest for row in ids], device=c.ids.device)
        ids = [row[: self._longest] for row in ids]
        chunks = [slice(i, i + self.batch) for i in range(0, len(ids), self.batch)]
        if self.level is Level.sequence:
            totals = [self._sequence(ids[chunk]) for chunk in chunks]
            return Scores(total=torch.cat(totals).to(c.ids.device), valid=valid)
        total = torch.zeros(c.ids.shape, device=c.ids.device)
        for i, scores in enumerate(row for chunk in chunks for row in self._each_token(ids[chunk])):
            count = int(c.attended[i].sum())
            own = scores[len(scores) - count :] if valid[i] else total[i, :count]
            total[i, : len(own)] = own.to(total.device)
        return Scores(total=torch.where(c.scored, total, 0), valid=valid)

    def _sequence(self, ids: list[list[int]]) -> Tensor:
        """(n,) the model's own score of each sequence."""
        return self._score(self._model(**self._padded(ids)).logits)

    def _each_token(self, ids: list[list[int]]) -> list[Tensor]:
        """The head's score at every token of each sequence."""
        trunk = getattr(self._model, self._model.base_model_prefix)
        scores = self._score(self._model.score(trunk(**self._padded(ids)).last_hidden_state))
        return [row[: len(own)] for row, own in zip(scores, ids, strict=True)]

    def _score(self, logits: Tensor) -> Tensor:
        """(..., labels) -> (...)."""
        logits = logits.float()
        return logits[..., 0] if logits.shape[-1] == 1 else logits.log_softmax(-1)[..., self.label]

    def _padded(self, ids: list[list[int]]) -> dict[str, Tensor]:
        width, used = max(len(row) for row in ids), {token for row in ids for token in row}
        # the model finds its last token by the first padding: that must be no token of a text, as EOS often is
        pad = self._model.config.pad_token_id = next(token for token in range(len(used) + 1) if token not in used)
        padded = torch.tensor([row + [pad] * (width - len(row)) for row in ids], device=self._device)
        attended = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids], device=self._device)
        return {"input_ids": padded, "attention_mask": attended}

    def _tokens(self, c: Completions) -> list[list[int]]:
        prompts = [row[mask].tolist() for row, mask in zip(c.prompts.ids, c.prompts.attended, strict=True)]
        completions = [row[mask].tolist() for row, mask in zip(c.ids, c.attended, strict=True)]
        return [prompts[i] + completion for i, completion in zip(c.prompt_of.tolist(), completions, strict=True)]

    def _encoded(self, c: Completions) -> list[list[int]]:
        """As the model was trained to read prompt and completion; the end is left out of one that was cut."""
        prompts = originals(c.prompts)
        rows = zip(c.prompt_of.tolist(), c.text, c.truncated.tolist(), strict=True)
        return [self._text(prompts[i], completion, truncated) for i, completion, truncated in rows]

    def _text(self, prompt: Text, completion: str, truncated: bool) -> list[int]:
        if self._encoder is None:
            return self._foreign(prompt, completion)
        prompt = self._encoder.typed(prompt)
        answer = completion if isinstance(prompt, str) else [{"role": "assistant", "content": completion}]
        ((begun, (ended,)),) = self._encoder.encode([prompt], [[answer]])
        return begun + (ended.ids[:-1] if truncated else ended.ids)

    def _foreign(self, prompt: Text, completion: str) -> list[int]:
        """As such models are used: the whole conversation through the template, or the text as it is."""
        messages = not isinstance(prompt, str) and bool(self._tokenizer.chat_template)
        text = readable(prompt) + completion
        if messages:
            text = self._tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": completion}], tokenize=False)
        ids: list[int] = self._tokenizer(text, add_special_tokens=not messages)["input_ids"]
        return ids
