"""What `loss` returns, weighed: an algorithm's objective is the sum over its terms of sum(term * weight) / W, with W over all
records of an optimizer step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from alignzoo.batch import Batch
from alignzoo.contracts import Algorithm, LearningReward
from alignzoo.errors import UserError

Terms = dict[str, Tensor]
Measures = dict[str, tuple[Tensor, Tensor | None]]


def named_terms(result: object) -> tuple[Terms, Measures]:
    """What `loss` returned: terms by name, and metrics as tensors, with their masks. Raises UserError where it returned
    something else."""
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        kinds = ", ".join(type(part).__name__ for part in (result if isinstance(result, tuple) else [result]))
        raise UserError(f"`loss` returned {kinds}: return the loss and a dict of metrics, as in `return loss, {{}}`")
    terms, metrics = result
    terms = terms if isinstance(terms, dict) else {"loss": terms}
    wrong = {n: v for n, v in terms.items() if not isinstance(v, Tensor)}
    masked = {n: v for n, v in metrics.items() if isinstance(v, tuple)}
    wrong |= {n: v for n, v in metrics.items() if n not in masked and not isinstance(v, Tensor | int | float)}
    for name, value in wrong.items():
        raise UserError(f"`loss` returned a {type(value).__name__} as {name!r}: return a tensor")
    for name, pair in masked.items():
        if len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair) or pair[0].shape != pair[1].shape:
            raise UserError(f"`loss` returned a tuple as {name!r}: return a tensor, or one and a mask of its shape")
    return terms, {n: masked[n] if n in masked else (torch.as_tensor(value), None) for n, value in metrics.items()}


def weights_of(learner: Algorithm | LearningReward, batch: Batch) -> dict[str, Tensor]:
    """The weights of a batch by term name, those of the learner, and under "(B,)" and "(B, T)" those of terms of these shapes
    for which it has none."""
    scored: Tensor | None = getattr(batch, "scored", None)
    return {"(B,)": batch.counted} | ({} if scored is None else {"(B, T)": scored}) | learner.weights(batch)


def weight_of(name: str, term: Tensor, weights: Mapping[str, Tensor], totals: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A term's weights and their total: those declared for it, else the default for its shape."""
    key = name if name in weights else ("(B,)" if term.dim() == 1 else "(B, T)")
    if term.dim() == 0:
        raise UserError(
            f"the term {name!r} is one number, a mean or sum: return one a record, (B,), or a token, (B, T), unreduced"
        )
    if key not in weights or weights[key].shape != term.shape:
        shape = tuple(weights[key].shape) if key in weights else "none"
        raise UserError(
            f"the term {name!r} has shape {tuple(term.shape)}, its weights {shape}: return one value a record, (B,), or a "
            "token, (B, T), or weights of the term's shape from `weights`"
        )
    return weights[key], totals[key]


def weighted_sum(term: Tensor, weight: Tensor, total: Tensor) -> Tensor:
    """sum(term * weight) / total; entries of weight 0 are not read; 0 where the total is 0."""
    summed = torch.where(weight > 0, term, 0) * weight
    return summed.sum() / torch.where(total > 0, total, 1)


def averaging_weight(value: Tensor, mask: Tensor | None, batch: Batch, of_number: float = 1.0) -> Tensor | float:
    """What a metric of a batch is averaged with: its records' weights for (B,), its tokens' for (B, T), `of_number` for one
    number; where it has a mask, there alone."""
    weight: Tensor | float = of_number if value.dim() == 0 else batch.counted
    if value.dim() == 2:
        weight = getattr(batch, "scored", of_number)
    return weight if mask is None else mask * weight
