"""Where tuning looks: the settings that an algorithm declares ranges for, as they are in one bench, and values of them."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignzoo.errors import UserError
from alignzoo.settings import Search, searches

DIGITS = 4  # of a number tried, so that it can be read and typed again
NEAR = 0.05  # of a range: a value this near to an end says that better ones may lie beyond
RANGE = set(Search.__dataclass_fields__)


@dataclass(frozen=True)
class Dimension:
    """One setting. `ends` says of the lower and the upper end whether the setting itself, not only the range, ends there."""

    key: str
    search: Search
    configured: Any
    ends: tuple[bool, bool] = (False, False)

    @property
    def whole(self) -> bool:
        return isinstance(self.configured, int) and not isinstance(self.configured, bool)

    def at(self, share: float) -> Any:
        """The value below which this share of the range lies, in its logarithm where it is searched so."""
        low, high = self.search.low, self.search.high
        if low is None or high is None:
            return plain(self.search.options[int(share * len(self.search.options))])
        top = high + 1 if self.whole else high
        value = low * (top / low) ** share if self.search.log else low + share * (top - low)
        return min(math.floor(value), int(high)) if self.whole else min(max(float(f"{value:.{DIGITS}g}"), low), high)

    def at_an_end(self, value: Any) -> bool:
        """Whether the best may lie beyond the range: the value is near an end that isn't the setting's own."""
        low, high = self.search.low, self.search.high
        if low is None or high is None:
            return False
        scale = math.log if self.search.log else float
        share = (scale(value) - scale(low)) / (scale(high) - scale(low))
        return (share <= NEAR and not self.ends[0]) or (share >= 1 - NEAR and not self.ends[1])


@dataclass(frozen=True)
class Space:
    """The settings that are searched for one algorithm, and why others aren't: {key: reason}."""

    dimensions: list[Dimension] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def trials(self, count: int, seed: int, algorithm: str) -> list[dict[str, Any]]:
        """`count` settings to try: as configured, then a scrambled Sobol sequence's (Sobol, 1967; Owen, 1998), which more
        trials only make longer. Where nothing is searched there is only the first."""
        import numpy as np
        from scipy.stats import qmc

        others = count - 1 if self.dimensions else 0
        if others < 1:
            return [{}]
        stream = int.from_bytes(hashlib.sha256(f"{seed}/{algorithm}".encode()).digest()[:8], "big")
        sequence = qmc.Sobol(len(self.dimensions), rng=np.random.default_rng(stream))
        points = sequence.random_base2(math.ceil(math.log2(others)))[:others]
        return [{}, *({d.key: d.at(float(x)) for d, x in zip(self.dimensions, point, strict=True)} for point in points)]

    def edges(self, settings: Mapping[str, Any]) -> list[str]:
        """The keys whose value lies at an end of its range."""
        found = {d.key: d for d in self.dimensions}
        return [key for key, value in settings.items() if found[key].at_an_end(value)]


def space(cfg: DictConfig, asked: Mapping[str, Search | None], fixed: Mapping[str, str]) -> Space:
    """What the algorithm of `cfg` and its trainer declare, changed by what is `asked` for (None: don't search), without the
    keys in `fixed` ({key: why}) and those that have no meaning beside the other settings.

    Raises UserError for a configured value out of its range, and for an asked range that the setting refuses.
    """
    ranges: dict[str, Search | None] = {**declared(cfg), **asked}
    dimensions, left_out = [], {}
    for key, search in ranges.items():
        why = "not to be searched" if search is None else "" if key in asked else _fixed(key, fixed)
        if search is not None and not why and (refused := _refused(cfg, key, search)):
            if key in asked:
                raise UserError(f"the range {search} of {key}: {refused}")
            why = "without effect beside the other settings"
        if search is None or why:
            left_out[key] = why
        else:
            dimensions.append(_dimension(cfg, key, search))
    return Space(dimensions, left_out)


def declared(cfg: DictConfig) -> dict[str, Search]:
    """{key: range} of the algorithm and the trainer."""
    schemas = {group: OmegaConf.get_type(cfg[group]) for group in ("algorithm", "trainer")}
    return {f"{group}.{key}": search for group, schema in schemas.items() if schema for key, search in searches(schema)}


def given(node: Mapping[str, Any], labels: list[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Ranges as a suite or `bench.search` gives them: ({key: text} for every algorithm, {label: {key: text}}). Keys may be
    nested or dotted."""
    everyone: dict[str, Any] = {}
    single: dict[str, dict[str, Any]] = {}
    for key, value in flat(node).items():
        first, _, rest = key.partition(".")
        if first in labels and rest:
            single.setdefault(first, {})[rest] = value
        else:
            everyone[key] = value
    return everyone, single


def read(key: str, value: Any, before: Search | None) -> Search | None:
    """[low, high], in the scale of the range `before`; {low, high, log} or {options}; null for none. Raises UserError."""
    try:
        if value is None:
            return None
        if isinstance(value, dict):
            named: dict[str, Any] = {**value, "options": tuple(value.get("options", ()))}
            return Search(**named)
        low, high = value
        return Search(low, high, log=before is not None and before.log)
    except (TypeError, ValueError) as error:
        remedy = "[low,high], {low: 1e-4, high: 1e-2, log: true}, {options: [1,2]}, or null to leave it as it is"
        raise UserError(f"the range {value} of {key} can't be read ({error}): write {remedy}") from None


def has(cfg: DictConfig, key: str) -> bool:
    """Whether there is such a setting in one of the config groups."""
    *groups, last = key.split(".")
    node: Any = cfg
    for group in groups:
        node = node.get(group) if OmegaConf.is_dict(node) and group in node else None
    return bool(groups) and OmegaConf.is_dict(node) and last in node


def plain(value: Any) -> Any:
    """As it stands in a config file."""
    return value.name if isinstance(value, Enum) else value


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{dotted key: range as written}."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict) and not set(value) <= RANGE:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _fixed(key: str, fixed: Mapping[str, str]) -> str:
    return next((why for name, why in fixed.items() if key == name or key.startswith(f"{name}.")), "")


def _dimension(cfg: DictConfig, key: str, search: Search) -> Dimension:
    configured = OmegaConf.select(cfg, key)
    if configured not in search:
        raise UserError(
            f"{key}={plain(configured)} is what tuning would start from, and out of the range that it would search, {search}: "
            f"give another by bench.search.{key}=[low,high], or null to leave it as it is"
        )
    low, high = search.low, search.high
    if low is None or high is None:
        return Dimension(key, search, configured)
    step = 1 if isinstance(configured, int) else NEAR * (high - low)
    beyond = (low / 2, high * 2) if search.log and not isinstance(configured, int) else (low - step, high + step)
    return Dimension(key, search, configured, (bool(_error(cfg, key, beyond[0])), bool(_error(cfg, key, beyond[1]))))


def _refused(cfg: DictConfig, key: str, search: Search) -> str:
    """What is wrong with a value of the range, or nothing."""
    return next((error for error in (_error(cfg, key, end) for end in search.ends) if error), "")


def _error(cfg: DictConfig, key: str, value: Any) -> str:
    """What the config group says of this value, or nothing where it takes it."""
    group = copy.deepcopy(cfg[key.split(".")[0]])
    try:
        OmegaConf.update(group, key.partition(".")[2], value, force_add=False)
        OmegaConf.to_object(group)
    except (UserError, OmegaConfBaseException) as error:
        return str(error).splitlines()[0]
    return ""
