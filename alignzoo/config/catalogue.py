"""What there is to choose from, as text: help, list, cards. Plugins are imported only to show their settings."""

from __future__ import annotations

import importlib.util
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from alignzoo.config.registry import ALIASES, ENTRY_POINTS, GROUPS, METRIC, Plugin, Registry, card_of, first_comment, unknown
from alignzoo.errors import UserError, nearest
from alignzoo.settings import Generation, Making, Model, Peft, Rollout, Training

SCHEMAS: dict[str, Any] = {
    "model": Model, "peft": Peft, "trainer": Training, "generation": Generation, "rollout": Rollout, "making": Making,
}  # fmt: skip
ROLE_OF = {"gold": "the judge that stands for a person; held-out completions are scored by it, and nothing is trained on that"}
USAGE = """\
alignzoo: one loop, every alignment algorithm

  alignzoo train [OVERRIDE ...]   train; `alignzoo train --help` says more
  alignzoo make [OVERRIDE ...]    pairs, ratings, rankings made by sampling and labelling, as files
  alignzoo bench [OVERRIDE ...]   algorithms x seeds, one table
  alignzoo report RUN ...         compare finished runs: an answer, a table, a page
  alignzoo sample RUN             completions of a run's policy
  alignzoo label SOURCE ...       completions shown blind; what people say of them becomes data
  alignzoo list [GROUP]           what there is to choose from
  alignzoo card NAME              what an algorithm is, and where it is from
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
    _print(USAGE)
    _print_options(Registry(), ["algorithm"])


def show_train_help(overrides: Sequence[str]) -> None:
    """The settings of the options chosen in `overrides`, or, where none is chosen, the groups and their options."""
    chosen = dict(text.split("=", 1) for text in overrides if "=" in text)
    registry = Registry(chosen.pop("plugins_dir", None))
    groups = {group: name for group, name in chosen.items() if group in GROUPS or group in SCHEMAS}
    if not groups:
        _print(TRAIN_USAGE)
        _print_options(registry, [*GROUPS, *yaml_groups()])
    for group, name in groups.items():
        _print_settings(registry, group, name)


def show_list(registry: Registry, group: str | None) -> None:
    """A table of every option of every group, or of one group."""
    groups = [*dict.fromkeys((*ENTRY_POINTS, *GROUPS)), *(name for name in yaml_groups() if name not in GROUPS)]
    if group is not None and group not in groups:
        raise UserError(unknown("group", group, groups))
    _print_options(registry, [group] if group else groups)


def show_card(registry: Registry, name: str) -> None:
    """The card of every plugin called `name`; raises UserError where there is none."""
    found = [group for group in ENTRY_POINTS if name in registry.names(group)]
    if not found:
        everything = {n for group in ENTRY_POINTS for n in registry.names(group)}
        raise UserError(f"no card {name!r}.{nearest(name, everything)} `alignzoo list` shows all names")
    for group in found:
        card, plugin = registry.card(group, name), registry.get(group, name)
        facts = {
            "family": card.family,
            "needs": ", ".join(card.needs),
            "data": card.data,
            "paper": card.paper,
            "from": plugin.origin,
        }
        head = [f"**{key}**: {value}  " for key, value in facts.items() if value]
        text = f"```yaml\n{plugin.preset.read_text('utf-8')}```" if plugin.preset else card.text
        _print(Markdown("\n".join([f"# {group} {name}", "", card.summary, "", *head, "", text])))
        _print(f"Settings: alignzoo train {group}={name} --help" if group in GROUPS else f"Use: metrics=[{name}]")


def show_plugins(registry: Registry) -> None:
    """Every plugin with where it comes from and whether it can be used: imports them all."""
    table = _table("group", "name", "from", "status")
    for group in ENTRY_POINTS:
        for plugin in registry.everything(group):
            table.add_row(group, plugin.name, plugin.origin, _status(registry, plugin))
    _print(table)


def _status(registry: Registry, plugin: Plugin) -> str:
    try:
        registry.metric(plugin.name) if plugin.group == METRIC else registry.load(plugin.group, plugin.name)
    except UserError as error:
        return str(error)
    return "preset" if plugin.preset else "ok"


def yaml_groups() -> dict[str, dict[str, Path]]:
    """The options that are YAML files, by group."""
    folders = [folder for folder in sorted(conf_folder().iterdir()) if any(folder.glob("*.yaml"))]
    return {folder.name: {path.stem: path for path in sorted(folder.glob("*.yaml"))} for folder in folders}


def conf_folder() -> Path:
    spec = importlib.util.find_spec("alignzoo_conf")
    if spec is None or spec.origin is None:
        raise UserError("alignzoo is not installed: its package alignzoo_conf is missing. Run pip install again")
    return Path(spec.origin).parent


def _print_options(registry: Registry, groups: Sequence[str]) -> None:
    table, files = _table("group", "option", "family", "what it is"), yaml_groups()
    for group in dict.fromkeys(groups):
        for plugin in registry.everything(group) if group in ENTRY_POINTS else []:
            card = card_of(plugin)
            table.add_row(group, plugin.name, "preset" if plugin.preset else card.family, card.summary)
        if group in ALIASES:
            table.add_row(group, "none", "", f"or any {ALIASES[group]}: {ROLE_OF[group]}")
        for name, path in files.get(group, {}).items():
            table.add_row(group, name, "", first_comment(path))
        table.add_section()
    _print(table)


def _print_settings(registry: Registry, group: str, name: str) -> None:
    """Every key of an option, with the values that a preset or YAML file gives it."""
    schema: Any
    file: Path | None
    if group in SCHEMAS:
        known = yaml_groups()[group]
        if name not in known:
            raise UserError(unknown(group, name, known))
        schema, file, summary = SCHEMAS[group], known[name], first_comment(known[name])
    else:
        schema, file, summary = registry.load(group, name), registry.get(group, name).preset, registry.card(group, name).summary
    values: dict[str, Any] = yaml.safe_load(file.read_text("utf-8")) or {} if file else {}
    rows = _rows(schema, f"{group}.", values)
    searched = any(row[3] for row in rows)
    table = _table("key", "type", "default", *(["tuned within"] if searched else []), "what it is")
    for key, kind, default, search, text in rows:
        table.add_row(key, kind, default, *([search] if searched else []), text)
    _print(f"{group}={name}: {summary}\n")
    _print(table if table.rows else "It has no settings.")


def _rows(schema: Any, prefix: str, values: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Key, type, default, where tuning looks, what it is."""
    rows: list[tuple[str, str, str, str, str]] = []
    kinds, comments = typing.get_type_hints(schema), _comments(schema)
    for f in fields(schema):
        kind = kinds[f.name]
        default = "" if is_dataclass(kind) else _text(values[f.name]) if f.name in values else _default(f)
        search, text = f.metadata.get("search", ""), f.metadata.get("help") or comments.get(f.name, "")
        rows.append((prefix + f.name, _type(kind), default, str(search), str(text)))
        if is_dataclass(kind):
            rows += _rows(kind, f"{prefix}{f.name}.", values.get(f.name, {}))
    return rows


def _comments(schema: Any) -> dict[str, str]:
    """The comments behind fields, by name: the help of a field that declares none."""
    found = re.finditer(r"^    (\w+): .*?  # (.*)$", inspect.getsource(schema), re.MULTILINE)
    return {match[1]: match[2] for match in found}


def _type(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " | ".join(kind.__members__)
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return " | ".join(_type(part) for part in typing.get_args(kind))
    if kind is type(None):
        return "null"
    if is_dataclass(kind):
        return "keys below"
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("typing.", "")


def _default(f: Field[Any]) -> str:
    return _text(f.default_factory() if f.default_factory is not MISSING else f.default)


def _text(value: Any) -> str:
    if value is MISSING or value == "???":
        return "must be given"
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns[:-1]:
        table.add_column(name, no_wrap=name in ("group", "option", "key", "name"))
    table.add_column(columns[-1], ratio=1)
    return table


def _print(what: Any) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(what, markup=False, highlight=False)
