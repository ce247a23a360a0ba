"""`trainer.arguments`: what of transformers.TrainingArguments acts is taken, all else refused before anything is loaded."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import TrainingArguments

from alignzoo.engine import hf_arguments
from alignzoo.settings import Optimizer, Schedule, Training, UserError
from alignzoo.testing import toys
from alignzoo_plugins.sft.sft import SFT

NAMES = [f.name for f in dataclasses.fields(TrainingArguments) if f.init]
ENGINES = {
    "output_dir", "seed", "max_steps", "learning_rate", "optim", "lr_scheduler_type", "warmup_steps", "weight_decay",
    "adam_beta1", "adam_beta2", "max_grad_norm", "bf16", "report_to", "use_cpu", "ignore_data_skip", "remove_unused_columns",
    "num_train_epochs",
}  # fmt: skip


def refusal(hosted=False, schedule=Schedule.cosine, **arguments):
    """What is said of these arguments where there is no GPU, one process and no tracker."""
    with pytest.raises(UserError) as caught:
        hf_arguments.check(Training(arguments=arguments, schedule=schedule), hosted)
    return str(caught.value)


@pytest.mark.parametrize("hosted", [False, True])
def test_what_does_not_act_is_refused_with_a_reason(hosted):
    acting = hf_arguments.HOSTED if hosted else hf_arguments.ACTING
    known = {name for names in hf_arguments.REASONS.values() for name in names}
    for name in {*NAMES} - {*acting}:
        text = refusal(hosted, **{name: 1})
        assert text.startswith(f"trainer.arguments.{name} is not for you to set: ")
        assert (name in known) != (name in ENGINES), f"{name}: acts, has a reason, or is set by the engine"


@pytest.mark.parametrize(
    ("name", "need"),
    [
        ("tf32", "a GPU"),
        ("fsdp", "several processes"),
        ("run_name", "a tracker other"),
        ("project", "trainer.trackers=[trackio]"),
    ],
)
def test_what_would_act_elsewhere_says_where(name, need, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert f"trainer.arguments.{name} would do nothing: it needs {need}" in refusal(**{name: True})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"adam_epsilom": 1e-6}, "transformers.TrainingArguments has no such argument. Did you mean 'adam_epsilon'?"),
        ({"warmup_ratio": 0.1}, "has no such argument: here it is trainer.warmup_steps, a number of steps"),
        ({"weight_decay": 0.1}, "trainer.arguments.weight_decay is not for you to set: here it is trainer.weight_decay"),
        ({"lr_scheduler_type": "linear"}, "is not for you to set: here it is trainer.schedule"),
        ({"adam_epsilon": "abc"}, "adam_epsilon=abc is out of range: must be of type float"),
        ({"adam_epsilon": -1.0}, "adam_epsilon=-1.0 is out of range: must be >= 0, and finite"),
        ({"lr_scheduler_kwargs": {"cycles": 2}}, "trainer.schedule=cosine has no 'cycles': it takes num_cycles"),
        ({"lr_scheduler_kwargs": {"num_cycles": "x"}}, "num_cycles=x is out of range: must be a number"),
    ],
)
def test_a_wrong_name_or_value_is_named(arguments, text):
    assert text in refusal(**arguments)


def test_lr_scheduler_kwargs_need_the_schedule_that_reads_them():
    text = refusal(schedule=Schedule.constant, lr_scheduler_kwargs={"num_cycles": 2})
    assert text == "trainer.arguments.lr_scheduler_kwargs would do nothing: it needs trainer.schedule=cosine. Leave it out"


def test_a_run_and_a_bench_refuse_alike(tmp_path):
    made = toys.setup(SFT(), training={"arguments": {"label_smoothing_factor": 0.1}})
    with pytest.raises(UserError, match="label_smoothing_factor is not for you to set: smoothing is an algorithm's"):
        toys.trainer(made, tmp_path)


def test_what_is_taken_acts(tmp_path):
    def weights(name, **arguments):
        training = {"optimizer": Optimizer.adamw, "schedule": Schedule.cosine, "arguments": arguments}
        trainer = toys.trainer(toys.setup(SFT(), training=training), tmp_path / name)
        trainer.train()
        return torch.cat([p.detach().flatten() for p in trainer.trained.parameters()])

    plain = weights("plain")
    assert torch.equal(plain, weights("again"))
    assert not torch.equal(plain, weights("epsilon", adam_epsilon=1e-2))
    assert not torch.equal(plain, weights("cycles", lr_scheduler_kwargs={"num_cycles": 1}))
