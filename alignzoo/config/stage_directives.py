"""What the command line says of single stages: `stage.NAME...`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from alignzoo.config import grammar
from alignzoo.config.overrides import split_list
from alignzoo.config.stage_files import NAME
from alignzoo.config.stage_overrides import Given, text_of
from alignzoo.errors import UserError, nearest


def directed(pipeline: str, stages: dict[str, list[str]], directives: Sequence[Given]) -> dict[str, dict[str, Any]]:
    """Does to `stages` what the command line says: `~stage.NAME` drops one, `+stage.NAME=[...]` puts one in its place, or at
    the end, `stage.NAME=[...]` and `stage.NAME.KEY=VALUE` change one. Returns what was said, by stage and key."""
    asked: dict[str, dict[str, Any]] = {}
    dropped: dict[str, int] = {}
    for o in directives:
        name, _, key = o.key.removeprefix("stage.").partition(".")
        line = o.text
        if line.startswith("+") and not key:
            if name in stages or not NAME.fullmatch(name):
                remedy = f"drop it first by ~stage.{name}" if name in stages else "letters, digits, - and _ make a name"
                raise UserError(
                    f"{line}: {'there is a stage of this name' if name in stages else 'no name for a stage'}: {remedy}"
                )
            _insert(stages, name, _listed(o), dropped.pop(name, len(stages)))
            continue
        told, name = name, [*stages][-1] if name == "last" and stages and "last" not in stages else name
        if name not in stages:
            raise UserError(f"{line}: {pipeline} has no stage {name!r}.{nearest(name, stages)} Stages: {', '.join(stages)}")
        if o.parsed.is_delete():
            dropped[name] = list(stages).index(name)
            del stages[name]
            asked.pop(told, None)
            continue
        given = [f"{key}={line.partition('=')[2]}"] if key else _listed(o)
        stages[name] += given
        asked.setdefault(told, {}).update({p.get_key_element().lstrip("+~"): _plain(p) for p in grammar.parse(given)})
    if not stages:
        raise UserError(f"pipeline={pipeline} has no stage left")
    return asked


def _insert(stages: dict[str, list[str]], name: str, given: list[str], place: int) -> None:
    items = [*stages.items()]
    items.insert(place, (name, given))
    stages.clear()
    stages.update(items)


def _listed(o: Given) -> list[str]:
    """The overrides in stage.NAME=[a=1,b=2]."""
    given = split_list(text_of(o.parsed.value()))
    if not given or any("=" not in text and not text.startswith("~") for text in given):
        raise UserError(f"can't read {o.text!r}: write stage.NAME='[key=value,key=value]'")
    return given


def _plain(o: Override) -> Any:
    value = None if o.is_delete() else o.value()
    return OmegaConf.to_container(OmegaConf.create({"value": value}))["value"]  # type: ignore[index, call-overload]
