"""Settings that act with another choice, and not with the one a run has: no mistake, since swapping by one override is the
promise, and not passed over either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignzoo.contracts import Kind, OnlineAlgorithm, Source, TrainerPlugin
from alignzoo.engine.build import Builder
from alignzoo.settings import Made, Unit


def unused(builder: Builder, keys: Sequence[str]) -> dict[str, list[str]]:
    """{the choice that makes it so: those of `keys` that have no effect with it}."""
    by_cause: dict[str, list[str]] = {}
    for cause, idle in _idle(builder):
        if named := [key for key in keys if any(f"{key}.".startswith(f"{name}.") for name in idle)]:
            by_cause[cause] = [*dict.fromkeys(by_cause.get(cause, []) + named)]
    return by_cause


def _idle(builder: Builder) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(what makes it so, groups and keys without effect)."""
    setup, training = builder.setup, builder.setup.training
    algorithm, writes = f"algorithm={setup.name}", builder.main == "policy"
    if not builder.online:
        yield algorithm, ("rollout",)
    if setup.making.kind is not Made.none and not builder.makes:
        yield algorithm, ("making",)
    if not getattr(builder.algorithm, "needs_logprobs_of_samples", False):
        yield algorithm, ("generation.truncation",)
    if isinstance(builder.algorithm, OnlineAlgorithm) and not _leaves_out(builder.algorithm):
        yield algorithm, ("rollout.refill",)
    if isinstance(builder.algorithm, TrainerPlugin):
        yield algorithm, ("trainer.by_length", "rollout.refill", "rollout.lag")
    if not writes:
        yield algorithm, ("trainer.eval_prompts", "trainer.reference_samples")
        if not builder.makes:
            yield algorithm, ("generation", "gold", "scoring")
    elif builder.reward is None and setup.gold is None and not builder.makes:
        yield f"reward={setup.choices['reward']}", ("scoring",)
    if not training.eval_steps:
        yield "trainer.eval_steps=0", ("trainer.reference_samples",)
    elif type(builder.source).curves is not Source.curves:
        yield f"data={setup.choices['data']}", ("trainer.reference_samples",)
    if setup.budget.unit is not Unit.none:
        yield f"budget.unit={setup.budget.unit.value}", ("trainer.max_steps", "trainer.epochs")
    elif training.max_steps:
        yield f"trainer.max_steps={training.max_steps}", ("trainer.epochs",)


def _leaves_out(algorithm: OnlineAlgorithm) -> bool:
    """Whether prompts of a rollout may have to be replaced: scored alike, or left out by the algorithm itself."""
    scored = any(role.kind is Kind.REWARD for role in algorithm.roles().values())
    return scored or type(algorithm).refills is not OnlineAlgorithm.refills
