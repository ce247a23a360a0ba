"""`reward=likelihood`: how probable a language model finds the completion."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.batch import Completions, token_lists
from alignzoo.contracts import Scores
from alignzoo.rewards.pretrained import Ids, PretrainedReward, of_policy


@dataclass(kw_only=True)
class Likelihood(PretrainedReward):
    """The log-likelihood of the completion after its prompt under a causal language model, in nats, a token or as a sum.

    A model with the policy's vocabulary reads the policy's tokens; any other reads the text in its own tokens, with its EOS
    after a completion that ended. What is longer than its context has no score.
    """

    name = "likelihood"
    architecture = "AutoModelForCausalLM"

    mean: bool = field(default=True, metadata={"help": "whether the sum is divided by the number of tokens"})

    def __call__(self, c: Completions) -> Scores:
        sequences = self._own_tokens(c) if self._reads_tokens else self._encoded(c)
        valid = [0 < len(ids) <= self._longest for ids, _ in sequences]
        total, places = torch.zeros(len(c), device=c.ids.device), [i for i, fits in enumerate(valid) if fits]
        for start in range(0, len(places), self.batch):
            chunk = places[start : start + self.batch]
            total[chunk] = self._scored([sequences[i] for i in chunk]).to(total.device)
        return Scores(total=total, valid=torch.tensor(valid, device=c.ids.device))

    @torch.no_grad()
    def _scored(self, sequences: list[tuple[Ids, Ids]]) -> Tensor:
        """(n,) of sequences and, for each token, 1 where it counts, else 0."""
        inputs = self._padded([ids for ids, _ in sequences])
        counts = self._padded([counts for _, counts in sequences])["input_ids"][:, 1:].float()
        logits = self._model(**inputs).logits[:, :-1].float()
        each = logits.log_softmax(-1).gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
        total = (each * counts).sum(1)
        return total / counts.sum(1).clamp(min=1) if self.mean else total

    def _own_tokens(self, c: Completions) -> list[tuple[Ids, Ids]]:
        counts = token_lists(c.scored.long(), c.attended)
        return [
            (prompt + ids, [0] * len(prompt) + scored)
            for (prompt, ids), scored in zip(of_policy(c), counts, strict=True)
        ]  # fmt: skip

    def _encoded(self, c: Completions) -> list[tuple[Ids, Ids]]:
        """The text in the model's own tokens; prompt and completion apart, so that it is known which are whose."""
        end, start = self._tokenizer.eos_token_id, self._tokenizer.bos_token_id
        first = [token for token in (start, end) if token is not None][:1]  # before the completion of an empty prompt
        prompts = [self._tokenizer(text)["input_ids"] or first for text in c.prompts.text]
        sequences = []
        for p, text, cut in zip(c.prompt_of.tolist(), c.text, c.truncated.tolist(), strict=True):
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            ids = ids if cut or end is None else [*ids, end]
            sequences.append((prompts[p] + ids, [0] * len(prompts[p]) + [1] * len(ids)))
        return sequences
