"""A policy that is a table, as a module like any language model: the optimal policy, which distillation learns from."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from alignzoo.batch import Prompts
from alignzoo.data.exact.language import Language


class OptimalPolicy(nn.Module):
    """Logits (B, L, V) are the table's log-probs after each prefix, -inf for tokens that no completion contains.

    table (P, prefixes, tokens + 1). Token ids are a prompt and what follows; `cache` carries those seen before.
    """

    def __init__(self, language: Language, table: Tensor, vocabulary: int) -> None:
        super().__init__()
        self.language, self.vocabulary = language, vocabulary
        self.table = nn.Parameter(table.float(), requires_grad=False)
        self.config = SimpleNamespace(is_encoder_decoder=False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, cache: _Seen | None = None, use_cache: bool = False
    ) -> SimpleNamespace:
        seen = input_ids if cache is None else torch.cat([cache.ids, input_ids], 1)
        width = self.language.prompt_ids.shape[1]
        start = seen[:, :width]
        prompts = Prompts(ids=start, attended=torch.ones_like(start, dtype=torch.bool), row=torch.arange(len(start)))
        place = self.language.prefix_numbers(self.language.digits_of(seen[:, width:]))  # (B, L - w + 1)
        logprobs = self.table[self.language.prompt_numbers(prompts)[:, None], place.clamp(max=self.table.shape[1] - 1)]
        logits = logprobs.new_full((*seen.shape, self.vocabulary), -torch.inf)
        logits[:, width - 1 :, self.language.support.to(seen.device)] = logprobs
        return SimpleNamespace(logits=logits[:, -input_ids.shape[1] :], cache=_Seen(seen) if use_cache else None)


class _Seen:
    """What stands for a key-value cache: the token ids."""

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.ids = self.ids.repeat_interleave(repeats, 0)
