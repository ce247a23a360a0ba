"""`reward=model`: a trained reward model."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.contracts import Context, Scores
from alignzoo.data.encode import Encoder
from alignzoo.data.readable import originals, readable
from alignzoo.data.rows import Text
from alignzoo.errors import UserError, require
from alignzoo.rewards.pretrained import Ids, PretrainedReward, of_policy


class ScoreLevel(Enum):
    sequence = "sequence"
    token = "token"


@dataclass(kw_only=True)
class SequenceReward(PretrainedReward):
    """A reward of a sequence-classification model, and how it reads. A model that reads text as the policy does reads the
    policy's tokens. Any other reads prompt and completion as it was trained to where alignzoo trained it (`encoder.json` beside
    it), else messages through its own chat template, and text as it is. A text longer than the model's context has no score."""

    architecture = "AutoModelForSequenceClassification"
    pairs: ClassVar[bool] = False  # whether it reads two completions at once

    def setup(self, context: Context) -> None:
        super().setup(context)
        if bool(getattr(self._model.config, "reads_pairs", False)) is not self.pairs:
            reads, fits = ("a pair", "preference") if self.pairs is False else ("one completion", "model")
            raise UserError(f"reward={self.name} reward.path={self.path}: this model reads {reads}: use reward={fits}")
        self._encoder = Encoder.beside(str(self.path), self._tokenizer)
        alike = self._encoder is None or context.encoder is None or self._encoder.settings == context.encoder.settings
        self._reads_tokens = self._reads_tokens and alike
        if self._encoder is None and getattr(self._model.config, "reads_ended_completions", False):
            self._encoder = Encoder(tokenizer=self._tokenizer)  # trained here before settings were saved beside models

    def _logits(self, rows: list[Ids]) -> Tensor:
        """(n, labels): the model's own scores of each sequence."""
        logits: Tensor = self._model(**self._unlike(rows)).logits
        return logits.float()

    def _unlike(self, rows: list[Ids]) -> dict[str, Tensor]:
        """The model's inputs. It finds its last token by the first padding, which must be no token of a text, as EOS may."""
        tokens = {token for row in rows for token in row}
        self._model.config.pad_token_id = next(token for token in range(len(tokens) + 1) if token not in tokens)
        return self._padded(rows, self._model.config.pad_token_id)

    def _rows(self, c: Completions) -> list[Ids]:
        return [prompt + ids for prompt, ids in self._parts(c)]

    def _parts(self, c: Completions) -> list[tuple[Ids, Ids]]:
        """Prompt and completion as the model was trained to read them; the end is left out of one that was cut."""
        if self._reads_tokens:
            return of_policy(c)
        prompts = originals(c.prompts)
        completions = zip(c.prompt_of.tolist(), c.text, c.truncated.tolist(), strict=True)
        read = self._foreign if self._encoder is None else self._as_trained
        return [read(prompts[i], text, cut) for i, text, cut in completions]

    def _as_trained(self, prompt: Text, completion: str, truncated: bool) -> tuple[Ids, Ids]:
        assert self._encoder is not None
        prompt = self._encoder.typed(prompt)
        answer = completion if isinstance(prompt, str) else [{"role": "assistant", "content": completion}]
        ((begun, (ended,)),) = self._encoder.encode([prompt], [[answer]])
        return begun, ended.ids[:-1] if truncated else ended.ids

    def _foreign(self, prompt: Text, completion: str, truncated: bool) -> tuple[Ids, Ids]:
        """As such models are used: the whole conversation through the template, or the text as it is."""
        messages = not isinstance(prompt, str) and bool(self._tokenizer.chat_template)
        text = readable(prompt) + completion
        if messages:
            text = self._tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": completion}], tokenize=False)
        ids: Ids = self._tokenizer(text, add_special_tokens=not messages)["input_ids"]
        return [], ids


@dataclass(kw_only=True)
class RewardModel(SequenceReward):
    """A sequence-classification model: one score a completion, or, with level=token, its head's score at every token.

    With one label the score is the logit; with several, the log-probability of `label`.
    """

    name = "model"

    level: ScoreLevel = field(default=ScoreLevel.sequence, metadata={"help": "a score a completion, or a score a token"})
    label: int = field(default=1, metadata={"help": "of several labels, the one whose log-probability is the score"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.label >= 0, "reward.label", self.label, ">= 0")

    def model_path(self) -> str | None:
        return self.path

    def setup(self, context: Context) -> None:
        super().setup(context)
        labels = int(self._model.config.num_labels)
        if labels > 1 and self.label >= labels:
            raise UserError(f"reward.label={self.label}: {self.path} has labels 0 to {labels - 1}")
        if self.level is ScoreLevel.token and not (self._reads_tokens and hasattr(self._model, "score")):
            why = "has no head that scores every token" if self._reads_tokens else "has another vocabulary than the policy"
            raise UserError(f"reward.level=token: {self.path} {why}; use reward.level=sequence")

    @torch.no_grad()
    def __call__(self, c: Completions) -> Scores:
        rows = self._rows(c)
        valid = torch.tensor([len(row) <= self._longest for row in rows], device=c.ids.device)
        rows = [row[: self._longest] for row in rows]
        chunks = [rows[i : i + self.batch] for i in range(0, len(rows), self.batch)]
        if self.level is ScoreLevel.sequence:
            return Scores(total=torch.cat([self._sequence(chunk) for chunk in chunks]).to(c.ids.device), valid=valid)
        total = torch.zeros(c.ids.shape, device=c.ids.device)
        for i, scores in enumerate(row for chunk in chunks for row in self._each_token(chunk)):
            if valid[i]:
                count = int(c.attended[i].sum())
                total[i, :count] = scores[len(scores) - count :].to(total.device)
        return Scores(total=torch.where(c.scored, total, 0), valid=valid)

    def _sequence(self, rows: list[Ids]) -> Tensor:
        """(n,) the model's own score of each sequence."""
        return self._score(self._logits(rows))

    def _each_token(self, rows: list[Ids]) -> list[Tensor]:
        """The head's score at every token of each sequence."""
        trunk = getattr(self._model, self._model.base_model_prefix)
        scores = self._score(self._model.score(trunk(**self._unlike(rows)).last_hidden_state))
        return [each[: len(row)] for each, row in zip(scores, rows, strict=True)]

    def _score(self, logits: Tensor) -> Tensor:
        """(..., labels) -> (...)."""
        logits = logits.float()
        return logits[..., 0] if logits.shape[-1] == 1 else logits.log_softmax(-1)[..., self.label]
