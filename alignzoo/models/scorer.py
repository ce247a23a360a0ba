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


def scorer(settings: Model, config: PretrainedConfig, pad: int, seed: int) -> nn.Module:
    """The module, in evaluation mode: the trunk of `settings.path` (a language model, an encoder, or a reward model with its
    head), or a fresh one of the config. A fresh head is as transformers makes it, a function of the seed."""
    from transformers import AutoModelForSequenceClassification as Classifier

    if config.is_encoder_decoder or not (hasattr(config, "auto_map") or type(config) in Classifier._model_mapping):
        raise UserError(f"no scorer can be made of model_type={config.model_type}: choose a decoder or an encoder")
    config = copy.deepcopy(config)
    config.num_labels, config.pad_token_id = 1, pad
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

    def _at_end(self, trunk: nn.Module, head: nn.Module, c: Completions) -> Tensor:
        needed = nn.functional.pad(torch.zeros_like(c.attended), (0, 1)).scatter(1, c.attended.sum(1, keepdim=True), True)
        return head(flat.states(trunk, c, needed, self.shared.forward))[..., 0]


def _padded(module: nn.Module, c: Completions) -> Tensor:
    """(B,): prompt and completion as one row, padded on the right, through the module's own forward."""
    rows, c = len(c), padded.some(c)
    ids, attended = padded.repeated(c.prompts, c.prompt_of)
    ids, attended = torch.cat([ids, c.ids], 1), torch.cat([attended, c.attended], 1)
    order = (~attended).long().argsort(dim=1, stable=True)  # what is attended first, in its order
    attended = attended.gather(1, order)
    ids = torch.where(attended, ids.gather(1, order), padded.inner(module).config.pad_token_id)
    width = max(1, int(attended.sum(1).max()))
    scores: Tensor = module(input_ids=ids[:, :width], attention_mask=attended[:, :width].long()).logits
    return scores[:rows, 0]
