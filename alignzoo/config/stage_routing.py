"""Which override of a command line is for which stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignzoo.config import grammar, run
from alignzoo.config.stage_overrides import Given, references, replaced
from alignzoo.errors import UserError

# what the last stage climbs, and how: said of the pipeline as a whole, it is said of that one
OF_THE_LAST = ("algorithm", "reward", "reference", "rollout", "roles", "budget", "metrics", "early_stop", "label")


@lru_cache(maxsize=256)
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    return run.single(overrides)


def composed(overrides: Sequence[str], name: str) -> DictConfig:
    """The config of a stage. Raises UserError that names the stage."""
    try:
        return _composed(tuple(overrides))
    except UserError as error:
        raise UserError(f"stage {name}: {error}") from error


def distributed(stages: Mapping[str, list[str]], origin: Mapping[str, int], given: Sequence[Given]) -> dict[str, list[str]]:
    """The overrides of each stage: its own, and of those for all (and for the last) the ones it has the keys of; what the
    command line says of single stages comes last. Raises UserError for one that no stage has the key of."""
    last = [*stages][-1]
    used: set[int] = set()
    lists = {}
    for name, own in stages.items():
        tied = [Given(text, grammar.parse([text])[0]) for text in own if references(text)]
        makes = any(text.startswith("making") for text in own)
        meant = [
            o for o in given
            if (name == last or o.head not in OF_THE_LAST) and (makes or o.key != "making") and not _is_tied(o, tied)
        ]  # fmt: skip
        file, single = own[: origin.get(name, 0)], own[origin.get(name, 0) :]
        file = _without_replaced(file, [*meant, *(Given(text, grammar.parse([text])[0]) for text in single)])
        before, chosen = ([o.text for o in meant if o.chooses and o.first is first] for first in (True, False))
        start = ["pipeline=none", *before, *file, *chosen]
        values = [o for o in meant if not o.chooses]
        probe = _probe([*start, *single], stages, name) if values else None
        fitting = [o for o in values if _has(probe, o)]
        used |= {id(o) for o in meant if o.chooses or o in fitting}
        lists[name] = [*start, *(o.text for o in fitting), *single]
    for o in given:
        if id(o) not in used:
            _refuse(o, stages, lists)
    return lists


def _without_replaced(file: Sequence[str], given: Sequence[Given]) -> list[str]:
    """A stage's own overrides without the settings of an algorithm or reward in whose place the command line puts another."""
    own = {text.partition("=")[0]: text.partition("=")[2] for text in file}
    gone = {o.key for o in given if o.key in ("algorithm", "reward") and o.text.partition("=")[2] != own.get(o.key)}
    return [text for text in file if not any(text.startswith(f"{key}.") for key in gone)]


def _probe(overrides: list[str], stages: Mapping[str, Any], name: str) -> DictConfig:
    """A config by which to see which keys a stage has."""
    stand_ins = {stage: "stage" for stage in stages}
    return composed([replaced(text, stand_ins) for text in overrides], name)


def _has(cfg: Any, o: Given) -> bool:
    """Whether the run has the key; for a key to be added, its node. Settings of `making` are for a run that makes its data."""
    if o.head == "making" and cfg.making.kind.name == "none":
        return False
    node, (*parents, leaf) = cfg, o.key.split(".")
    for name in parents:
        node = node._get_node(name) if isinstance(node, DictConfig) and name in node else None
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return False
    return leaf in node or o.parsed.is_add() or not OmegaConf.is_struct(node)


def _refuse(o: Given, stages: Mapping[str, list[str]], lists: Mapping[str, list[str]]) -> None:
    """An override that fits no stage: which takes it from another, or what is wrong with it in the last."""
    for name in [*stages][::-1]:
        for text in stages[name]:
            if references(text) and _is_tied(o, [Given(text, grammar.parse([text])[0])]):
                raise UserError(f"{o.text} fits no stage: {name} has {text}. Replace it: ~stage.{name} '+stage.{name}=[...]'")
    last = [*stages][-1]
    try:
        _probe([*lists[last], o.text], stages, last)
    except UserError as error:
        raise UserError(f"{o.text} fits no stage: of {str(error).removeprefix('stage ')}") from None
    raise UserError(f"{o.text} fits no stage: none of {', '.join(stages)} has a use for it")


def _is_tied(o: Given, tied: Sequence[Given]) -> bool:
    """What a stage takes from another stays so: model=, where its model.path is another's result."""
    return any(o.key == other.key or (o.chooses and o.head == other.head) for other in tied)
