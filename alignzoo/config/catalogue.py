"""What there is to choose from, as text: help, list, cards. Plugins are imported only to show their settings."""

from __future__ import annotations

import importlib.util
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path

import yaml
from rich.markdown import Markdown
from rich.table import Table

from alignzoo.common.console import show, table
from alignzoo.config import needs
from alignzoo.config.registry import (
    ALIASES,
    ENTRY_POINTS,
    GROUPS,
    METRIC,
    SAMPLER,
    Plugin,
    Registry,
    card_of,
    first_comment,
    unknown,
)
from alignzoo.errors import UserError, nearest
from alignzoo.settings import Generation, Making, Model, Peft, Rollout, Training

SCHEMAS: dict[str, type] = {
    "model": Model, "peft": Peft, "trainer": Training, "generation": Generation, "rollout": Rollout, "making": Making,
}  # fmt: skip
ROLE_OF = {"gold": "the judge that stands for a person; held-out completions are scored by it, and nothing is trained on that"}
USE = {METRIC: "metrics=[{}]", SAMPLER: "generation.decoding={}"}
USAGE = """\
alignzoo: one loop, every alignment algorithm

  alignzoo train [OVERRIDE ...]   train; `alignzoo train --help` says more
  alignzoo make [OVERRIDE ...]    pairs, ratings, rankings made by sampling and labelling, as files
  alignzoo bench [OVERRIDE ...]   algorithms x seeds, one table
  alignzoo report RUN ...         compare finished runs: an answer, a table, a page
  alignzoo compare RUN RUN        two runs' policies on the same held-out prompts
  alignzoo sample RUN             completions of a run's policy
  alignzoo chat RUN               talk to a run's policy, its reference beside it
  alignzoo label SOURCE ...       completions shown blind; what people say of them becomes data
  alignzoo list [GROUP]           what there is to choose from; --needs pairs --without reference: such algorithms
  alignzoo card NAME              what an algorithm is, and where it is from; --compare NAME NAME: side by side
  alignzoo plugin new NAME --kind KIND   a small working plugin to start from
  alignzoo plugin check PLUGIN    does it keep the contract? Says what is wrong and why
  alignzoo plugin list            where each plugin comes from, and whether it can be used
  alignzoo doctor                 what this machine can do, and what is missing
  alignzoo --version
  eval "$(alignzoo --shell-completion install=bash)"   completion for bash
"""
TRAIN_USAGE = """\
alignzoo train [group=option] [key=value] ...

  alignzoo train                                   the defaults: DPO on the exact task, seconds
  alignzoo train algorithm=ppo trainer.max_steps=200 seed=1
  alignzoo train algorithm=ppo --help              the settings of PPO; data=jsonl --help, trainer=default --help, ...
  alignzoo train algorithm=ppo --cfg job           the whole config, without running it
  alignzoo train -m algorithm=ppo,dpo seed=0,1,2   one run after the other
  alignzoo train resume=RUN                        go on from the last checkpoint, as the same command does
  alignzoo train pipeline=rlhf                     sft, then a reward model, then PPO on it; the same command goes on
  alignzoo train --config-dir=FOLDER --config-name=NAME   FOLDER/NAME.yaml on top of train.yaml, with the groups in FOLDER
  alignzoo train -m hydra/sweeper=optuna --objective=METRIC ...   a sweeper that goes by a metric (gap_closed, gold or reward)
  alignzoo train pipeline=rlhf --stages            those runs, without making them: settings, folders, how far each is
  alignzoo train pipeline=rlhf stage.policy.seed=1 'stage.sft=[seed=0,trainer.epochs=1]'   settings of single stages
  alignzoo train plugins_dir=DIR algorithm=mine    an algorithm of your own
"""


def show_help() -> None:
    show(USAGE)
    _show_options(Registry(), ["algorithm"])


def show_train_help(overrides: Sequence[str]) -> None:
    """The settings of the options chosen in `overrides`, or, where none is chosen, the groups and their options."""
    chosen = dict(text.split("=", 1) for text in overrides if "=" in text)
    registry = Registry(chosen.pop("plugins_dir", None))
    options = {group: name for group, name in chosen.items() if group in GROUPS or group in SCHEMAS}
    if not options:
        show(TRAIN_USAGE)
        _show_options(registry, [*GROUPS, *yaml_groups()])
    for group, name in options.items():
        _show_settings(registry, group, name)


def show_list(registry: Registry, group: str | None) -> None:
    """A table of every option of every group, or of one group."""
    groups = [*dict.fromkeys((*ENTRY_POINTS, *GROUPS, *yaml_groups()))]
    if group is not None and group not in groups:
        raise UserError(unknown("group", group, groups))
    _show_options(registry, [group] if group else groups)


def _base(registry: Registry, preset: Plugin) -> str:
    """The name of the plugin that it is a preset of."""
    plugins = registry.everything(preset.group)
    return next(p.name for p in plugins if not p.preset and (p.module, p.attribute) == (preset.module, preset.attribute))


def show_card(registry: Registry, name: str) -> None:
    """The card of every plugin called `name`; raises UserError where there is none."""
    groups = [group for group in ENTRY_POINTS if name in registry.names(group)]
    if not groups:
        names = {option for group in ENTRY_POINTS for option in registry.names(group)}
        raise UserError(f"no card {name!r}.{nearest(name, names)} `alignzoo list` shows all names")
    for group in groups:
        plugin = registry.get(group, name)
        card = card_of(plugin)
        facts = {"family": card.family, "needs": ", ".join(card.needs), "data": card.data, "paper": card.paper}
        head = [f"**{key}**: {value}  " for key, value in {**facts, "from": plugin.origin}.items() if value]
        text = f"```yaml\n{plugin.preset.read_text('utf-8')}```" if plugin.preset else card.text
        show(Markdown("\n".join([f"# {group} {name}", "", card.summary, "", *head, "", text])))
        show(f"Settings: alignzoo train {group}={name} --help" if group in GROUPS else f"Use: {USE[group]}".format(name))


def show_plugins(registry: Registry) -> None:
    """Every plugin with where it comes from and whether it can be used: imports them all."""
    rows = options_table("group", "name", "from", "status")
    for group in ENTRY_POINTS:
        for plugin in registry.everything(group):
            rows.add_row(group, plugin.name, plugin.origin, _status(registry, plugin))
    show(rows)


def _status(registry: Registry, plugin: Plugin) -> str:
    try:
        registry.metric(plugin.name) if plugin.group == METRIC else registry.load(plugin.group, plugin.name)
    except UserError as error:
        return str(error)
    return "preset" if plugin.preset else "ok"


def options_table(*columns: str) -> Table:
    return table(*columns, whole=("group", "option", "key", "name"), wide=columns[-1])


def yaml_groups() -> dict[str, dict[str, Path]]:
    """The options that are YAML files, by group."""
    folders = [folder for folder in sorted(conf_folder().iterdir()) if any(folder.glob("*.yaml"))]
    return {folder.name: {path.stem: path for path in sorted(folder.glob("*.yaml"))} for folder in folders}


def conf_folder() -> Path:
    spec = importlib.util.find_spec("alignzoo_conf")
    if spec is None or spec.origin is None:
        raise UserError("alignzoo is not installed: its package alignzoo_conf is missing. Run pip install again")
    return Path(spec.origin).parent


def _show_options(registry: Registry, groups: Sequence[str]) -> None:
    rows, files = options_table("group", "option", "family", "needs", "what it is"), yaml_groups()
    for group in dict.fromkeys(groups):
        for plugin, card in needs.by_family(registry.everything(group)) if group in ENTRY_POINTS else []:
            needed = f"as {_base(registry, plugin)}, or less" if plugin.preset else ", ".join(needs.by_card(card))
            summary = card_of(plugin).summary if plugin.preset else card.summary
            rows.add_row(group, plugin.name, card.family, needed, summary)
        if group in ALIASES:
            rows.add_row(group, "none", "", "", f"or any {ALIASES[group]}: {ROLE_OF[group]}")
        for name, path in files.get(group, {}).items():
            rows.add_row(group, name, "", "", first_comment(path))
        rows.add_section()
    show(rows)


def _show_settings(registry: Registry, group: str, name: str) -> None:
    """Every key of an option, with the values that a preset or YAML file gives it."""
    file: Path | None
    if group in SCHEMAS:
        options = yaml_groups()[group]
        if name not in options:
            raise UserError(unknown(group, name, options))
        schema, file, summary = SCHEMAS[group], options[name], first_comment(options[name])
    else:
        plugin = registry.get(group, name)
        schema, file, summary = registry.load(group, name), plugin.preset, card_of(plugin).summary
    settings = list(settings_of(schema, f"{group}.", yaml.safe_load(file.read_text("utf-8")) or {} if file else {}))
    searched = any(search for _, _, _, search, _ in settings)
    rows = options_table("key", "type", "default", *(["tuned within"] if searched else []), "what it is")
    for key, kind, default, search, text in settings:
        rows.add_row(key, kind, default, *([search] if searched else []), text)
    show(f"{group}={name}: {summary}\n")
    show(rows if settings else "It has no settings.")


def settings_of(schema: type, prefix: str, values: Mapping[str, typing.Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Key, type, default, where tuning looks, what it is."""
    kinds = typing.get_type_hints(schema)
    # the comments behind fields are the help of those that declare none
    comments = dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(schema), re.MULTILINE))
    for f in fields(schema):
        kind, value = kinds[f.name], f.default_factory() if f.default_factory is not MISSING else f.default
        default = "" if is_dataclass(kind) else _text(values.get(f.name, value))
        text = f.metadata.get("help") or comments.get(f.name, "")
        yield prefix + f.name, _type(kind), default, str(f.metadata.get("search", "")), text
        if is_dataclass(kind) and isinstance(kind, type):
            yield from settings_of(kind, f"{prefix}{f.name}.", values.get(f.name, {}))


def _type(kind: object) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " | ".join(kind.__members__)
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return " | ".join(map(_type, typing.get_args(kind)))
    if kind is type(None):
        return "null"
    if is_dataclass(kind):
        return "keys below"
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("typing.", "")


def _text(value: object) -> str:
    if value is MISSING or value == "???":
        return "must be given"
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)
