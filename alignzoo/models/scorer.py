"""A scorer that is a model of its own: a sequence classifier with one label, as any Hugging Face tool loads it."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from alignzoo.batch import Completions
from alignzoo.errors import UserError
from alignzoo.models.forward import flat, padded
from alignzoo.models.modules import location, network
from alignzoo.models.networks import Network
from alignzoo.settings import Model

if TYPE_CHECKING:
    from transformers import PretrainedConfig

logger = logging.getLogger("alignzoo")


def scorer(settings: Model, config: PretrainedConfig, pad: int, seed: int, pairs: bool = False) -> nn.Module:
    """The module, in evaluation mode: the trunk of `settings.path` (a language model, an encoder, or a reward model with its
    head), or a fresh one of the config. A fresh head is as transformers makes it, a function of the seed. What is saved says
    whether it reads `pairs` of completions."""
    from transformers import AutoModelForSequenceClassification as Classifier

    if config.is_encoder_decoder or not (hasattr(config, "auto_map") or type(config) in Classifier._model_mapping):
        raise UserError(f"no scorer can be made of model_type={config.model_type}: choose a decoder or an encoder")
    config = copy.deepcopy(config)
    config.num_labels, config.pad_token_id = 1, pad
    config.reads_pairs = pairs
    config.reads_ended_completions = True  # EOS last: for `reward=model`, which makes text into tokens again
    scored = any(str(name).endswith("ForSequenceClassification") for name in config.architectures or [])
    scored = scored or bool(settings.path and "score.weight" in location(settings).brought())
    if settings.path and not scored:
        logger.warning("model.path=%s is no reward model: its trunk gets a fresh head that scores", settings.path)
    return network(Classifier, settings, config, seed, trunk=not scored)


class ScorerNetwork(Network):
    """`contracts.Scorer`. A decoder is read at the last attended token, without padding; others run as they are."""

    def scores(self, c: Completions) -> Tensor:
        """(B,): the logit of prompt and completion together."""
        with self.gradient():
            trunk = padded.inner(self.module).base_model
            head: nn.Module | None = getattr(padded.inner(self.module), "score", None)
            return padded.exact(_padded(self.module, c) if head is None else self._at_end(trunk, head, c))

    def comparisons(self, first: Completions, second: Completions) -> Tensor:
        """(B,): the difference of the scores of both orders."""
        scores = self.scores(Completions.cat([after(first, second, self.eos), after(second, first, self.eos)]))
        return torch.sub(*scores.chunk(2))

    @property
    def eos(self) -> int:
        assert self.shared.tokenizer is not None
        return self.shared.tokenizer.eos

    def _at_end(self, trunk: nn.Module, head: nn.Module, c: Completions) -> Tensor:
        needed = nn.functional.pad(torch.zeros_like(c.attended), (0, 1)).scatter(1, c.attended.sum(1, keepdim=True), True)
        return head(flat.states(trunk, c, needed, self.shared.forward))[..., 0]


def after(first: Completions, second: Completions, eos: int) -> Completions:
    """Each of `first`, ended by EOS where it was cut, and `second` after it, from its first scored token on. Both (B,), of the
    same prompts."""
    begun = second.scored.cumsum(1) > 0
    end = torch.full_like(first.ids[:, :1], eos)
    ids = torch.cat([first.ids, end, second.ids], 1)
    attended = torch.cat([first.attended, first.truncated[:, None], second.attended & begun], 1)
    scored = torch.cat([first.scored, first.truncated[:, None], second.scored], 1)
    ids, attended, scored = _packed(attended, ids, attended, scored)
    return Completions(
        prompts=first.prompts, prompt_of=first.prompt_of, ids=torch.where(attended, ids, 0), attended=attended, scored=scored,
        truncated=second.truncated, row=first.row,
    )  # fmt: skip


def _padded(module: nn.Module, c: Completions) -> Tensor:
    """(B,): prompt and completion as one row, padded on the right, through the module's own forward."""
    rows, c = len(c), padded.some(c)
    ids, attended = padded.repeated(c.prompts, c.prompt_of)
    ids, attended = torch.cat([ids, c.ids], 1), torch.cat([attended, c.attended], 1)
    ids, attended = _packed(attended, ids, attended)
    ids = torch.where(attended, ids, padded.inner(module).config.pad_token_id)
    scores: Tensor = module(input_ids=ids, attention_mask=attended.long()).logits
    return scores[:rows, 0]


def _packed(attended: Tensor, *columns: Tensor) -> list[Tensor]:
    """The columns (B, T) with what is attended first, in its order, as wide as the longest row."""
    order = (~attended).long().argsort(dim=1, stable=True)[:, : max(1, int(attended.sum(1).max()))]
    return [column.gather(1, order) for column in columns]
