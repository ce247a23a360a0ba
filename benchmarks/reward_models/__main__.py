"""A bag of words and a small reward model on the same held-out pairs.

    python -m benchmarks.reward_models NAME data.path=pairs.jsonl.gz run_dir=runs/reward/NAME [more overrides]

Trains `experiment=reward_model` (or takes up what is done), fits the bag of words to the same training rows, and writes NAME to
`results.json` beside this file. Held-out rows share no prompt with training rows, which is checked; the bootstrap draws
prompts, since pairs of one prompt are not independent.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import alignzoo
from alignzoo.batch import Pairs
from alignzoo.common.noise import Noise
from alignzoo.config import instantiate
from alignzoo.contracts import Context
from alignzoo.models.networks import Shared
from alignzoo.models.scorer import ScorerNetwork
from alignzoo.settings import Sampling
from alignzoo.statistics import calibration
from benchmarks.reward_models.bag_of_words import BagOfWords

RESAMPLES = 10_000
CHUNK = 64
RESULTS = Path(__file__).with_name("results.json")


def main(name: str, overrides: list[str]) -> None:
    cfg = alignzoo.compose(["experiment=reward_model", *overrides])
    folder = Path(cfg.run_dir)
    summary = alignzoo.train(cfg)
    if summary["status"] != "finished":
        sys.exit("interrupted: the same command goes on")
    source = instantiate(cfg).data
    train, heldout, _ = source.rows()
    prompts = [row.key for row in heldout]
    assert {row.key for row in train}.isdisjoint(prompts) and summary["data_report"]["train"] == len(train)
    trained, tested = ([(row["chosen"], row["rejected"]) for row in rows] for rows in (train, heldout))
    margins = {
        "bag_of_words": BagOfWords(trained).margins(tested).double().numpy(),
        cfg.choices.algorithm: _margins(folder / "model", source, len(heldout)),
    }
    longer = np.array([len(chosen) - len(rejected) for chosen, rejected in tested], dtype=np.float64)
    figures = {model: measures(values) for model, values in margins.items()} | {"longer": measures(longer, log_loss=False)}
    groups = np.unique(prompts, return_inverse=True)[1]
    bag, model = (calibration.right(values) for values in margins.values())
    record = {
        "pairs": {"train": len(train), "heldout": len(heldout), "heldout_prompts": len(set(prompts))},
        **figures,
        "reward model - bag of words": interval(model - bag, groups),
        "overrides": [text for text in overrides if not text.startswith(("data.path", "run_dir"))],
        "seconds": round(sum(v for k, v in summary.items() if k == "training_seconds"), 1),
    }
    every = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(every | {name: record}, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def measures(margins: calibration.Floats, log_loss: bool = True) -> dict[str, float]:
    """Accuracy; and what else there is to say of margins that are log-odds."""
    figures = {"accuracy": calibration.accuracy(margins)}
    if log_loss:
        error = calibration.expected_calibration_error(margins)
        figures |= {"log_loss": calibration.log_loss(margins), "calibration_error": error}
    return {name: round(value, 4) for name, value in figures.items()}


@torch.no_grad()
def _margins(model: Path, source: Any, count: int) -> calibration.Floats:
    """(N,): how much higher the reward model scores the chosen."""
    tokenizer, module = AutoTokenizer.from_pretrained(model), AutoModelForSequenceClassification.from_pretrained(model).eval()
    length = module.config.max_position_embeddings
    context = Context(tokenizer=tokenizer, seed=0, sampling=Sampling(max_new_tokens=1), context_length=length, cache=model)
    pairs: Any = source.tables(Pairs, context).heldout
    assert len(pairs) == count, "some pairs are equal once cut: raise data.max_completion_tokens"
    network = ScorerNetwork(module, Shared(Noise(0), {tokenizer.eos_token_id}))
    rows = [range(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]
    sides = [network.scores(pairs.batch(part).both).double().chunk(2) for part in rows]
    return torch.cat([chosen - rejected for chosen, rejected in sides]).numpy()


def interval(difference: calibration.Floats, groups: Any) -> list[float]:
    """The mean, and its 95 % percentile interval over resampled prompts."""
    sums, counts = np.bincount(groups, difference), np.bincount(groups)
    drawn = np.random.default_rng(0).integers(len(counts), size=(RESAMPLES, len(counts)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return [round(float(value), 4) for value in (difference.mean(), low, high)]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
