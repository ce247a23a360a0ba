"""What is made up: the source that the reference is trained on, and the reward. Both are tables made from the seed alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alignzoo.data.exact.optimum import StringTree
from alignzoo.statistics.intervals import deviation


def source_policy(tree: StringTree, prompts: int, seed: int) -> Tensor:
    """(P, prefixes, tokens + 1) log-probs: a Markov source. The next token depends on the one before, on the prompt and, as to
    ending, on the position."""
    rng = np.random.default_rng([seed, 1])
    follows = rng.normal(size=(tree.tokens + 1, tree.tokens + 1))  # by the token before, the last row at the start
    topic = rng.normal(size=(prompts, tree.tokens + 1))
    levels = []
    for t in range(tree.length):
        before = np.arange(tree.tokens**t) % tree.tokens if t else np.array([tree.tokens])
        logits = topic[:, None] + follows[before]
        logits[..., -1] += 0.5 * t - 1.5
        levels.append(logits)
    return torch.from_numpy(np.concatenate(levels, 1)).log_softmax(-1)


def rewards(tree: StringTree, prompts: int, seed: int, interaction: float, roughness: float, sparsity: float = 0.0) -> Tensor:
    """(P, completions): preferences for tokens, by prompt and by position, plus `interaction` times preferences for neighbours,
    the same for all prompts, plus `roughness` times noise that follows no rule; each part and the whole of mean 0 and
    variance 1 over a prompt's completions. After that, the worst `sparsity` of them get 0."""
    rng = np.random.default_rng([seed, 2])
    digits, lengths = (x.numpy() for x in tree.digits())
    blank = tree.tokens  # what stands after the end
    tokens = np.where(np.arange(tree.length) < lengths[:, None], digits, blank)
    single = rng.normal(size=(prompts, 1, blank + 1)) + rng.normal(size=(tree.length, blank + 1))
    double = rng.normal(size=(blank + 1, blank + 1))
    additive, neighbours = np.zeros((2, prompts, tree.completions))
    for t in range(tree.length):
        additive += single[:, t, tokens[:, t]]
    for t in range(tree.length - 1):
        neighbours += double[tokens[:, t], tokens[:, t + 1]]
    noise = rng.normal(size=additive.shape)
    total = _standard(additive) + interaction * _standard(neighbours) + roughness * _standard(noise)
    return torch.from_numpy(sparse(_standard(total), sparsity))


def _standard(x: np.ndarray) -> np.ndarray:
    spread = deviation(x, 1)
    return (x - x.mean(1, keepdims=True)) / np.where(spread > 0, spread, 1)


def sparse(rewards: np.ndarray, share: float) -> np.ndarray:
    """(P, completions): 0 for the worst `share` of a prompt's completions, rounded down; the rest as they are."""
    worst = rewards.argsort(1, kind="stable")[:, : int(share * rewards.shape[1])]
    thinned = rewards.copy()
    np.put_along_axis(thinned, worst, 0.0, 1)
    return thinned
