"""Hydra's and OmegaConf's errors in one or two lines: what is wrong, the value, the remedy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.errors import MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from alignzoo.config import foreign_names
from alignzoo.config.registry import unknown
from alignzoo.errors import UserError, first_line, nearest

WORDS = {"Float": "a number", "Integer": "a whole number", "bool": "true or false"}
ELEMENTS = {str: "a text", float: "a number"}  # of the lists and mappings of settings
SWEEPERS = {("hydra/sweeper", name) for name in ("ax", "nevergrad", "optuna")}  # that there are
NOT_KEYS = ("choices", "override_keys", "stages", "stage")  # filled in by alignzoo itself


def explain(error: Exception) -> str:
    """The message for an error raised while composing."""
    cause = error.__cause__ or error.__context__
    where = re.match(r"In '(.+?)'", str(error))
    place = f"in conf {where[1]}: " if where else ""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        remedy = f"\nTo have it: pip install hydra-{name}-sweeper" if (group, name) in SWEEPERS else ""
        return place + unknown(group, name, error.options or []) + remedy
    if isinstance(error, OmegaConfBaseException):
        return place + describe(error)
    if isinstance(cause, OmegaConfBaseException):
        return place + describe(cause)
    if str(error).startswith("Ambiguous value"):
        return first_line(error) + ": for one run after the other add -m, for a list write [a,b], for a string quote it"
    return first_line(error)


def describe(error: OmegaConfBaseException) -> str:
    """The message for an error about one key or value."""
    key = str(error.full_key or "")
    if isinstance(error, ConfigAttributeError | ConfigKeyError) and error.object_type not in (None, dict):
        return unknown_key(key, error.object_type, error.parent_node)
    if isinstance(error, ConfigAttributeError | ConfigKeyError) and isinstance(error.parent_node, DictConfig):
        parent, _, name = key.rpartition(".")
        if parent == "trainer.arguments" and (ours := foreign_names.keys(key)):
            return f"no key {key!r}: here it is {ours}"
        return f"no key {key!r}.{nearest(name, map(str, error.parent_node))} To add it write +{key}=..."
    if isinstance(error, MissingMandatoryValue):
        return f"{key} has no value: give {key}=..."
    if isinstance(error, InterpolationKeyError):
        return first_line(error)
    if isinstance(error, ValidationError):
        return _bad_value(key, first_line(error), error.value)
    return f"{key}: {first_line(error)}" if key else first_line(error)


def unknown_key(key: str, schema: object, config: DictConfig | None = None) -> str:
    """The message for a key that the dataclass `schema`, of a node of `config`, has no field for."""
    schemas = {group: OmegaConf.get_type(config, group) for group in map(str, config or ()) if group != "hydra"}
    if ours := foreign_names.keys(key, schemas):
        return f"no key {key!r}: here it is {ours}"
    if remedy := foreign_names.REMOVED.get(key):
        return f"there is no {key} any more: {remedy}"
    parent, _, name = key.rpartition(".")
    names = sorted(f.name for f in fields(schema) if f.name not in NOT_KEYS) if is_dataclass(schema) else []
    return f"no key {key!r}.{nearest(name, names)} Keys{f' of {parent}' if parent else ''}: {', '.join(names) or 'none'}"


def check_keys(node: DictConfig, prefix: str = "") -> None:
    """Raise UserError for what Hydra doesn't object to: a key that no dataclass has (`+group.key=` puts it there), and a list
    or a mapping among values of a simple type."""
    schema = OmegaConf.get_type(node)
    typed = is_dataclass(schema)
    names = {f.name for f in fields(schema)} if is_dataclass(schema) else set()
    for key in map(str, node):
        if typed and key not in names:
            raise UserError(unknown_key(f"{prefix}{key}", schema, node))
        inner = node._get_node(key)
        if not isinstance(inner, DictConfig | ListConfig) or inner._is_none() or inner._is_missing():
            continue
        if inner._metadata.element_type in ELEMENTS:
            check_elements(inner, f"{prefix}{key}")
        elif isinstance(inner, DictConfig):
            check_keys(inner, f"{prefix}{key}.")


def check_elements(values: Any, key: str) -> None:
    """Raise UserError for a list or a mapping among the values, of a simple type, of an OmegaConf list or mapping."""
    for place in range(len(values)) if isinstance(values, ListConfig) else values:
        value = values._get_node(place)
        if OmegaConf.is_config(value):
            raise UserError(f"{key}[{place}]={value} must be {ELEMENTS[values._metadata.element_type]}")


def _bad_value(key: str, text: str, value: Sequence[object]) -> str:
    if "is not a ListConfig" in text:
        return f"{key}={value} must be a list: {key}=[{value}]"
    if text.startswith("Cannot convert 'list' to string"):
        return f"{key} must be a text, not a list: write '{key}=\"{','.join(map(str, value))}\"'"
    if converted := re.match(r"Value '(.*)' (?:of type '.*' could not be converted to|is not a valid) (\w+)", text):
        return f"{key}={converted[1]} is not {WORDS.get(converted[2], converted[2])}"
    if choice := re.match(r"Invalid value '(.*)', expected one of \[(.*)\]", text):
        allowed = choice[2].split(", ")
        return f"{key}={choice[1]} is not one of: {choice[2]}.{nearest(choice[1], allowed)}"
    return f"{key}: {text}"
