"""What can be known to be wrong before any model loads: roles nobody supplies, sampling an algorithm can't use, sizes that
don't divide.
"""

from __future__ import annotations

from collections.abc import Mapping

from alignzoo.contracts import (
    Algorithm,
    Couples,
    Kind,
    OnlineAlgorithm,
    Reference,
    Reward,
    Role,
    Sampler,
    Source,
    TrainerPlugin,
    learning,
)
from alignzoo.errors import UserError
from alignzoo.settings import LOOPS, EarlyStop, Generation, Peft, Rollout, Training, Truncation

METHODS = {
    Kind.POLICY: frozenset({"logprobs", "tokens", "generate"}),
    Kind.VALUE: frozenset({"values"}),
    Kind.ACTION_VALUE: frozenset({"tokens"}),
    Kind.SCORER: frozenset({"scores", "comparisons"}),
    Kind.EMBEDDER: frozenset({"embed"}),
}


def check_adapter(reference: Reference, peft: Peft) -> None:
    """A reference that is the policy without its adapter needs one."""
    if reference.needs_adapter and not peft.enabled:
        raise UserError("reference=adapter needs a policy with an adapter: add peft=lora, or choose reference=copy")


def check_main(name: str, main: str, choices: Mapping[str, str | None], labels: bool = False) -> None:
    """A run without a policy has no use for a kind of reference, or a reward unless that labels, which only the defaults may
    name.
    """
    for group, usual in (("reward", ("task", "none")), ("reference", ("copy", "none"))):
        if main != "policy" and choices[group] not in usual and not (labels and group == "reward"):
            raise UserError(f"{name} trains a {main} and no policy, so {group}={choices[group]} would do nothing: leave it out")


def check_roles(
    name: str, algorithm: Algorithm | TrainerPlugin, reward: Reward | None, reference: Reference, source: Source,
    paths: dict[str, str | None],
) -> None:  # fmt: skip
    """A policy or scorer is trained; every role is supplied, and offers what is needed of it. Raises UserError."""
    declared = algorithm.roles()
    main = declared.get("policy") or next((role for role in declared.values() if role.trained), None)
    if main is None or not main.trained or main.kind is not (Kind.POLICY if "policy" in declared else Kind.SCORER):
        roles = ", ".join(f"{n} ({role.kind.name}{', trained' if role.trained else ''})" for n, role in declared.items())
        raise UserError(
            f"{name} must train a POLICY named policy, or, without one, a SCORER before any other role; its roles: {roles}"
        )
    for role_name, role in declared.items():
        if role.kind is Kind.REWARD:
            if reward is None:
                raise UserError(
                    f"{name} needs a reward, and there is none: take reward=function reward.path=MODULE:NAME or reward=model,\n"
                    "reward=task takes the data's own, where it has one"
                )
        elif role.start == "reference":
            _check_reference(name, role_name, role, reference)
        elif role.start == "config" and not paths.get(role_name) and not source.supplies(role_name):
            raise UserError(
                f"{name} needs a {role_name}: give roles.{role_name}=PATH of a model (data=exact brings its own teacher)"
            )


def _check_reference(name: str, role_name: str, role: Role, reference: Reference) -> None:
    kind = type(reference).__name__
    missing = sorted((role.needs & METHODS[role.kind]) - reference.offers)
    if not reference.offers:
        raise UserError(
            f"{name} needs a {role_name} model, and reference=none: choose reference=copy, or reference=adapter with peft=lora"
        )
    if missing:
        raise UserError(
            f"{name} needs {', '.join(missing)} of the {role_name}, which {kind} does not offer: choose reference=copy"
        )


def check_followers(name: str, roles: Mapping[str, Role], reference: Reference, adapter: bool) -> None:
    """What follows has weights of its own, in the form of those that it follows, which are trained. Raises UserError."""
    for role_name, role in roles.items():
        if role.follows is None:
            continue
        leader, where = roles.get(role.follows.role), f"{name}: the role {role_name} follows {role.follows.role}"
        if leader is None or not leader.trained or role.trained:
            raise UserError(f"{where}: what follows is not trained, and what it follows is a trained role of the algorithm")
        if leader.kind is not role.kind or bool(leader.shares) != bool(role.shares):
            raise UserError(f"{where}, which is another kind of network: give both the same kind, and `shares` to both or none")
        if role.start == "reference" and not reference.moves:
            raise UserError(f"{where}, and {type(reference).__name__} has no weights to move: choose reference=copy")
        if adapter and role.follows.role == "policy":
            raise UserError(f"{where}, whose weights are its adapter's and the model's together: leave peft out")


def check_lessons(
    choices: Mapping[str, str | None], algorithm: Algorithm | TrainerPlugin, reward: Reward | None, gold: Reward | None
) -> None:
    """What a reward learns by itself it learns from the completions of an algorithm that samples and asks for rewards."""
    if not learning(reward).teaches():
        return
    name = choices["algorithm"]
    scored = any(role.kind is Kind.REWARD for role in algorithm.roles().values())
    if not isinstance(algorithm, OnlineAlgorithm) or not scored:
        raise UserError(
            f"reward={choices['reward']} learns from what the policy writes for it, and {name} has nothing scored, "
            "or does so in a trainer of its own:\nchoose an online algorithm, such as reinforce, grpo or ppo"
        )
    if learning(reward).needs_labels() and gold is None:
        raise UserError(
            f"reward={choices['reward']} needs a judge to label completions: say who with gold=NAME, "
            "such as gold=ratings gold.path=FILE or gold=sentiment"
        )


def check_sampling(name: str, algorithm: Algorithm | TrainerPlugin, generation: Generation) -> None:
    """Ratio and score-function gradients need the log-probs of what was sampled from."""
    needs = isinstance(algorithm, OnlineAlgorithm | TrainerPlugin) and algorithm.needs_logprobs_of_samples
    if needs and generation.temperature == 0:
        raise UserError(
            f"{name} learns from its own samples, and generation.temperature=0 never varies them: choose a temperature > 0"
        )
    if needs and generation.truncates and generation.truncation is Truncation.refuse:
        used = ", ".join(f"{k}={getattr(generation, k)}" for k in ("top_k", "top_p", "min_p"))
        raise UserError(
            f"{name} needs the log-probs of the distribution it samples from, which truncation ({used}) changes.\n"
            "Turn it off, or set generation.truncation=accept to use the untruncated ones."
        )


def check_decoding(name: str, algorithm: Algorithm | TrainerPlugin, generation: Generation, sampler: Sampler) -> None:
    """Whether this machine and algorithm can sample so."""
    if generation.decoding not in LOOPS and isinstance(algorithm, TrainerPlugin) and algorithm.online:
        raise UserError(
            f"{name} samples by itself, and generation.decoding={generation.decoding} would do nothing: leave it out"
        )
    sampler.check(generation)


def check_early_stop(early: EarlyStop, training: Training, judged: bool) -> None:
    """A run that evaluates only at its end can't be stopped by that, nor by a judge it doesn't have."""
    if not early.metric:
        return
    if not training.eval_steps:
        raise UserError(f"early_stop.metric={early.metric} is looked at every trainer.eval_steps: give trainer.eval_steps")
    if early.metric.split("/")[0] == "gold" and not judged:
        raise UserError(f"early_stop.metric={early.metric} needs a judge: choose one with gold=NAME, such as gold=sentiment")


def refuse_sharded(name: str, algorithm: Algorithm | TrainerPlugin, early: EarlyStop) -> None:
    """Weights that no process has whole can't be kept while training goes on, nor moved by an algorithm."""
    if isinstance(algorithm, Algorithm) and type(algorithm).around_step is not Algorithm.around_step:
        raise UserError(f"{name} takes optimizer steps of its own, which weights that are sharded over processes don't allow")
    if early.metric:
        raise UserError(
            f"early_stop.metric={early.metric} can't keep weights that are sharded over processes: leave early_stop out"
        )


def check_sizes(algorithm: Algorithm, training: Training, rollout: Rollout, ranks: int) -> int:
    """The micro-batch. Raises UserError where batch, micro-batch, rollout and ranks don't divide, or coupling forbids
    cutting.
    """
    micro = micro_batch(training, ranks)
    if isinstance(algorithm, OnlineAlgorithm) and rollout.samples < algorithm.least_samples():
        raise UserError(
            f"rollout.samples={rollout.samples} is too few: this algorithm, by its settings, compares the completions of a "
            f"prompt, at least {algorithm.least_samples()}"
        )
    if isinstance(algorithm, OnlineAlgorithm) and rollout.prompts % ranks:
        raise UserError(f"rollout.prompts={rollout.prompts} does not divide among {ranks} processes")
    if algorithm.couples is Couples.MICROBATCH and micro != training.batch:
        raise UserError(
            "this algorithm's loss couples the records of a micro-batch: "
            f"use trainer.micro_batch={training.batch} and one process"
        )
    return micro


def micro_batch(training: Training, ranks: int) -> int:
    """Records of one forward of a rank. Raises UserError where they don't divide."""
    each, left = divmod(training.batch, ranks)
    if left:
        raise UserError(f"trainer.batch={training.batch} does not divide among {ranks} processes")
    micro = each if training.micro_batch == "auto" else int(training.micro_batch)
    if each % micro:
        raise UserError(
            f"trainer.micro_batch={micro} does not divide trainer.batch={training.batch}"
            + (f" over {ranks} processes ({each} each)" if ranks > 1 else "")
        )
    return micro
