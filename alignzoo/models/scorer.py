"""A scorer that is a model of its own: a sequence classifier with one label, as any Hugging Face tool loads it."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn

from alignzoo.batch import Completions
from alignzoo.errors import UserError
from alignzoo.models.build import location, network
from alignzoo.models.forward import flat, padded
from alignzoo.models.networks import Network
from alignzoo.settings import Model

logger = logging.getLogger("alignzoo")


def scorer(settings: Model, made: Any, pad: int, seed: int) -> nn.Module:
    """The module, in evaluation mode: the trunk of `settings.path` (a language model, an encoder, or a reward model with its
    head), or a fresh one of the config `made`. A fresh head is as transformers makes it, a function of the seed."""
    from transformers import AutoModelForSequenceClassification as Classifier

    if made.is_encoder_decoder or not (hasattr(made, "auto_map") or type(made) in Classifier._model_mapping):
        raise UserError(f"no scorer can be made of model_type={made.model_type}: choose a decoder or an encoder")
    made = copy.deepcopy(made)
    made.num_labels, made.pad_token_id = 1, pad
    made.reads_ended_completions = True  # EOS last: for `reward=model`, which makes text into tokens again
    scored = any(str(name).endswith("ForSequenceClassification") for name in made.architectures or [])
    scored = scored or bool(settings.path and "score.weight" in location(settings).brought())
    if settings.path and not scored:
        logger.warning("model.path=%s is no reward model: its trunk gets a fresh head that scores", settings.path)
    return network(Classifier, settings, made, seed, trunk=not scored)


class ScorerNetwork(Network):
    """`contracts.Scorer`. A decoder is read at the last attended token, without padding; others run as they are."""

    def scores(self, c: Completions) -> Tensor:
        """(B,): the logit of prompt and completion together."""
        with self.gradient():
            inner: Any = flat._inner(self.module)
            head = getattr(inner, "score", None)
            found = _padded(self.module, c) if head is None else self._at_end(inner, head, c)
            return found if found.dtype == torch.float64 else found.float()

    def _at_end(self, inner: Any, head: nn.Module, c: Completions) -> Tensor:
        needed = nn.functional.pad(torch.zeros_like(c.attended), (0, 1)).scatter(1, c.attended.sum(1, keepdim=True), True)
        return head(flat.states(inner.base_model, c, needed, self.shared.forward))[..., 0]


def _padded(module: Any, c: Completions) -> Tensor:
    """(B,): prompt and completion as one row, padded on the right, through the module's own forward."""
    rows, c = len(c), padded.some(c)
    ids, attended = padded.repeated(c.prompts, c.prompt_of)
    ids, attended = torch.cat([ids, c.ids], 1), torch.cat([attended, c.attended], 1)
    order = (~attended).long().argsort(dim=1, stable=True)  # what is attended first, in its order
    attended = attended.gather(1, order)
    ids = torch.where(attended, ids.gather(1, order), module.config.pad_token_id)
    width = max(1, int(attended.sum(1).max()))
    return module(input_ids=ids[:, :width], attention_mask=attended[:, :width].long()).logits[:rows, 0]
