"""A reward model reads text as it was trained to, whatever the policy's vocabulary, template and system message are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from alignzoo.batch import Completions
from alignzoo.config import compose, instantiate
from alignzoo.contracts import Context
from alignzoo.data.encode import Encoder
from alignzoo.data.prepare import Preparation
from alignzoo.data.rows import Row
from alignzoo.engine.build import Builder
from alignzoo.engine.callbacks import Interrupt
from alignzoo.models.tokenizers import byte_level
from alignzoo.rewards.model import RewardModel
from alignzoo.runs.saving import save
from alignzoo.settings import Sampling
from tests.data.test_templates import FAMILIES, tokenizer

SMALL = ["model.config.hidden_size=16", "model.config.num_hidden_layers=1", "model.config.intermediate_size=16"]
ASKED = ["What is it?", "Who is there?", "Why so late?", "Where to?"]


def sides(i: int, messages: bool) -> dict[str, Any]:
    """A prompt, and the chosen and the rejected answer."""
    texts = {"prompt": ASKED[i], "chosen": f"Yes {i}.", "rejected": f"No, {i}."}
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {name: [{"role": roles[name], "content": text}] if messages else text for name, text in texts.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("messages", "settings"),
    [(True, []), (True, ["data.system=Be brief."]), (False, ["data.chat=true"]), (False, [])],
    ids=["messages", "system", "chat", "plain"],
)
def test_scores_as_reward_are_scores_as_trained(family, messages, settings, tmp_path):
    if family == "gemma":
        settings = [setting for setting in settings if "system" not in setting]  # it knows none
    tokenizer(family).save_pretrained(tmp_path / "words")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(sides(i, messages)) + "\n" for i in range(4)))
    cfg = compose([
        "algorithm=bradley_terry", "data=jsonl", f"data.path={tmp_path}/rows.jsonl", "data.heldout=0", *settings, *SMALL,
        f"model.tokenizer={tmp_path}/words", "trainer.max_steps=1", "trainer.batch=4", "trainer.micro_batch=4",
    ])  # fmt: skip
    trainer = Builder(instantiate(cfg), tmp_path, tmp_path / "cache").trainer(Interrupt(), lambda step, row: None)
    save(trainer, tmp_path)
    scorer = next(n for n in trainer.roles.networks.values() if n.module is trainer.trained.main)
    with torch.no_grad():
        expected = scorer.scores(trainer.loader.order.table.batch(range(4)).chosen)
    assert expected.unique().numel() == 4
    reward = RewardModel(path=str(tmp_path / "model"))
    context, written = policy(messages, tmp_path)
    reward.setup(context)
    torch.testing.assert_close(reward(written).total, expected, rtol=0, atol=1e-6)


def policy(messages: bool, cache: Path) -> tuple[Context, Completions]:
    """Of another vocabulary, whose template is another too, and the chosen answers as it would write them."""
    words = byte_level()
    context = Context(tokenizer=words, seed=0, sampling=Sampling(), context_length=256, cache=cache)
    context.encoder = Encoder(tokenizer=words, messages=messages)
    values = [sides(i, messages) for i in range(4)]
    rows = [Row(str(i), {"prompt": v["prompt"], "completion": v["chosen"]}, {}, {}) for i, v in enumerate(values)]
    table: Any = Preparation(view=Completions, encoder=context.encoder, context=context).table(rows)
    return context, table.batch(range(4))
