"""The config of one run, and the objects that it becomes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from hydra import compose as hydra_compose
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from alignzoo.config import environment, foreign_names, hydra_errors
from alignzoo.config.command_line import check_options, parse, searching
from alignzoo.config.registry import SAMPLER, Registry
from alignzoo.errors import UserError
from alignzoo.settings import LOOPS, SERVER, Generation
from alignzoo.setup import RunConfig

FRESH_RATE = 1e-4
logger = logging.getLogger("alignzoo")


def single(overrides: Sequence[str] = ()) -> DictConfig:
    """The config of one run, which is no pipeline's last."""
    parsed = parse(overrides)
    with searching(parsed):
        check_options(parsed)
        try:
            whole = hydra_compose("train", list(overrides), return_hydra_config=True)
            choices = whole.hydra.runtime.choices
            with open_dict(whole):
                del whole["hydra"]
            return complete(whole, choices, overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(hydra_errors.explain(error)) from error


def instantiate(cfg: DictConfig) -> RunConfig:
    """The objects a config describes. Raises UserError where a value is out of range or missing, and for a
    metric that nobody has."""
    from alignzoo.contracts import learning

    try:
        run = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise UserError(hydra_errors.describe(error)) from error
    assert isinstance(run, RunConfig)
    roles = {**run.algorithm.roles(), **learning(run.reward).roles()}
    for name, path in run.roles.items():  # one that nothing has would be ignored
        if path is not None and name not in roles:
            raise UserError(f"roles.{name}={path}, but {run.choices['algorithm']} takes no {name}: leave it out")
    _set_gold(run)
    registry = Registry(run.plugins_dir)
    run.measures = {name: registry.metric(name) for name in run.metrics}
    run.samplers = _samplers(run.generation, registry)
    return run


def complete(cfg: DictConfig, choices: Mapping[str, object], overrides: Sequence[str]) -> DictConfig:
    """What Hydra composed, resolved but for texts of the environment, with the options chosen and the keys overridden. Raises
    UserError for a key that no dataclass has."""
    with open_dict(cfg):
        cfg.override_keys = [o.get_key_element().lstrip("+~") for o in parse(overrides)]
        cfg.choices = {group: choice for group, choice in choices.items() if group.isidentifier()}
        if cfg.choices.experiment:
            cfg.choices.settings = _settings(str(choices["experiment@_global_"]))
    environment.resolve(cfg)
    hydra_errors.check_keys(cfg)
    _check_sampler(str(cfg.generation.decoding), cfg.plugins_dir)
    if cfg.trainer.learning_rate is None:
        cfg.trainer.learning_rate = _learning_rate(cfg)
    return cfg


def _learning_rate(cfg: DictConfig) -> float:
    """That of fresh weights, or where those of a model are to be changed, what is known to be right for it."""
    path = cfg.model.path
    if not path or path.startswith("alignzoo://"):
        return FRESH_RATE
    rate, source = FRESH_RATE, "usual for LoRA"
    if not cfg.peft.enabled:
        rate = OmegaConf.get_type(cfg.algorithm).published_rate  # type: ignore[union-attr]
        source = f"published for {cfg.choices.algorithm} and all weights of a language model"
    _tell_once(f"trainer.learning_rate={rate:g}, as {source}")
    return rate


@lru_cache(maxsize=64)
def _tell_once(text: str) -> None:
    logger.warning(text)


def _settings(name: str) -> str | None:
    """What sets the algorithm's values for the experiment, as EXPERIMENT/ALGORITHM; None where it runs on its defaults."""
    loader: Any = GlobalHydra.instance().config_loader()
    return name if loader.repository.config_exists(f"experiment/{name}") else None


def _samplers(generation: Generation, registry: Registry) -> dict[str, Any]:
    """The sampler of `generation.decoding`, unless it is a loop of ours. Raises UserError for settings that it doesn't have."""
    name = generation.decoding
    kind: Any = None if name in LOOPS else registry.load(SAMPLER, name)
    if generation.server != SERVER and not (kind and kind.by_server):
        servers = [n for n in registry.names(SAMPLER) if getattr(registry.load(SAMPLER, n), "by_server", False)]
        raise UserError(
            f"generation.server={generation.server} is only used with generation.decoding={' or '.join(servers) or 'vllm'}"
        )
    if kind is None:
        if generation.options:
            raise UserError(
                f"generation.options={generation.options} does nothing with generation.decoding={name}: leave it out"
            )
        return {}
    try:
        return {name: OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), generation.options))}
    except OmegaConfBaseException as error:
        raise UserError(f"generation.options of {name}: {hydra_errors.describe(error)}") from error


def _check_sampler(name: str, plugins_dir: str | None) -> None:
    """Raises UserError for what neither is a loop of ours nor a plugin."""
    setting = f"generation.decoding={name}"
    if remedy := foreign_names.REMOVED.get(setting):
        raise UserError(f"there is no {setting} any more: {remedy}")
    if name not in LOOPS:
        Registry(plugins_dir).get(SAMPLER, name)


def _set_gold(run: RunConfig) -> None:
    """The judge of a run, or None. Raises UserError for one that changes while it judges."""
    from alignzoo.contracts import learning

    run.gold = run.gold and run.gold.resolve(run.data)
    if run.gold is None and run.choices["gold"] == "task":
        raise UserError(f"gold=task, and data={run.choices['data']} brings no reward: choose another judge, or none")
    if run.gold is not None and (learning(run.gold).roles() or learning(run.gold).teaches()):
        raise UserError(f"gold={run.choices['gold']} learns while it judges: choose a reward that stays as it is")
