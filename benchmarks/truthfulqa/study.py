"""Preference accuracy on held-out TruthfulQA pairs: a bag of words, the SFT start, and DPO from it.

    python benchmarks/truthfulqa/study.py data.path=truthfulqa_pairs.jsonl.gz run_dir=runs/truthfulqa [more overrides]

Trains (or takes up what is done), then writes `results.json` beside this file. Held-out rows share no prompt with training
rows, which is checked by hash; the bootstrap draws prompts, since pairs of one prompt are not independent.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

import alignzoo
from alignzoo.batch import Pairs
from alignzoo.common.noise import Noise
from alignzoo.config import instantiate
from alignzoo.contracts import Context
from alignzoo.data.rows import Row
from alignzoo.models.networks import PolicyNetwork, Shared
from alignzoo.settings import Sampling

WORD = re.compile(r"\w+|[^\w\s]")
PENALTY = 1e-3  # of the bag of words; 3e-3 to 3e-4 differ by 2 points
RESAMPLES = 10_000


def main(overrides: list[str]) -> None:
    cfg = alignzoo.compose(["experiment=truthfulqa", *overrides])
    folder, first = Path(cfg.run_dir), Path(cfg.stages.sft) / "model"
    summary = alignzoo.train(cfg)
    if summary["status"] != "finished":
        sys.exit("interrupted: the same command goes on")
    source = instantiate(cfg).data
    train, heldout, _ = source.rows()
    assert {row.key for row in train}.isdisjoint(row.key for row in heldout)
    tokenizer = AutoTokenizer.from_pretrained(first)
    context = Context(tokenizer=tokenizer, seed=0, sampling=Sampling(max_new_tokens=32), context_length=256, cache=folder)
    pairs = source.tables(Pairs, context).heldout
    assert pairs is not None and len(pairs) == len(heldout)
    start, end = (_log_odds(path, pairs, tokenizer) for path in (first, folder / "model"))
    correct = {
        "bag_of_words": _bag_of_words(train, heldout) > 0,
        "sft_logprob": start > 0,
        "dpo_logprob": end > 0,
        "dpo_implicit_reward": end - start > 0,
    }
    _check_training(summary, len(train))
    groups = np.unique([row.key for row in heldout], return_inverse=True)[1]
    results: dict[str, Any] = {
        "pairs": {"train": len(train), "heldout": len(heldout), "heldout_prompts": int(groups.max()) + 1},
        "accuracy": {name: round(float(values.float().mean()), 4) for name, values in correct.items()},
        "difference_and_95_percent_interval": {
            f"{name} - {base}": _difference(correct[name], correct[base], groups)
            for name, base in (
                ("dpo_implicit_reward", "sft_logprob"), ("dpo_logprob", "sft_logprob"), ("dpo_implicit_reward", "bag_of_words"),
            )
        },
        "overrides": [text for text in overrides if not text.startswith(("data.path", "run_dir"))],
        "seconds": {name: value for name, value in summary.items() if name.endswith("_seconds")},
    }  # fmt: skip
    text = json.dumps(results, indent=1)
    Path(__file__).with_name("results.json").write_text(text + "\n")
    print(text)


def _check_training(summary: dict[str, Any], rows: int) -> None:
    """The run trained on as many rows as are on the training side here."""
    assert summary["data_report"]["train"] == rows, summary["data_report"]


@torch.no_grad()
def _log_odds(path: Path, pairs: Any, tokenizer: Any) -> Tensor:
    """(N,) log pi(chosen) - log pi(rejected)."""
    module = AutoModelForCausalLM.from_pretrained(path).eval()
    policy = PolicyNetwork(module, Shared(Noise(0), {tokenizer.eos_token_id}))
    chunks = [pairs.batch(range(i, min(i + 64, len(pairs)))).both for i in range(0, len(pairs), 64)]
    sides = [both.sum(policy.logprobs(both)).chunk(2) for both in chunks]
    return torch.cat([chosen - rejected for chosen, rejected in sides])


def _bag_of_words(train: list[Row], heldout: list[Row]) -> Tensor:
    """(N,) the log-odds of a Bradley-Terry model, linear in which words occur."""
    words = sorted({word for row in train for side in ("chosen", "rejected") for word in _words(row[side])})
    column = {word: i for i, word in enumerate(words)}
    seen, new = (_features(rows, column) for rows in (train, heldout))
    weight = torch.zeros(len(words), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.softplus(-(seen @ weight)).mean() + PENALTY * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (new @ weight).detach()


def _words(text: str) -> set[str]:
    return set(WORD.findall(text.lower()))


def _features(rows: list[Row], column: dict[str, int]) -> Tensor:
    features = torch.zeros(len(rows), len(column))
    for i, row in enumerate(rows):
        for side, sign in (("chosen", 1), ("rejected", -1)):
            for word in _words(row[side]) & column.keys():
                features[i, column[word]] += sign
    return features


def _difference(first: Tensor, second: Tensor, groups: np.ndarray) -> list[float]:
    """The difference of accuracies, and its 95 % interval by a paired bootstrap over prompts."""
    gain = (first.float() - second.float()).numpy()
    sums, counts = np.bincount(groups, gain), np.bincount(groups)
    draws = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    return [round(float(value), 4) for value in (gain.mean(), *np.quantile(means, [0.025, 0.975]))]


if __name__ == "__main__":
    main(sys.argv[1:])
