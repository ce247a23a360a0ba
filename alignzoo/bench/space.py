"""Where tuning looks: the settings that an algorithm declares ranges for, as they are in one bench, and values of them."""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignzoo.errors import UserError, first_line
from alignzoo.runs import results
from alignzoo.settings import Search, searches

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Settings = dict[str, object]  # {dotted key: value, as it stands in a config file}
DRAWS = 8  # for each trial, among which repeats are passed over
DIGITS = 4  # of a number tried, so that it can be read and typed again
NEAR = 0.05  # of a range: a value this near to an end says that better ones may lie beyond


@dataclass(frozen=True)
class Dimension:
    """One setting. `ends` says of the lower and the upper end whether the setting itself, not only the range, ends there."""

    key: str
    search: Search
    configured: object
    ends: tuple[bool, bool] = (False, False)

    @property
    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        low, high = self.search.low, self.search.high
        if low is None or high is None:
            return CategoricalDistribution([getattr(option, "name", option) for option in self.search.options])
        if isinstance(self.configured, int):
            return IntDistribution(int(low), int(high), log=self.search.log)
        return FloatDistribution(low, high, log=self.search.log)

    def readable(self, drawn: object) -> object:
        """In few digits, and still in the range."""
        if not isinstance(drawn, float) or self.search.low is None or self.search.high is None:
            return drawn
        return min(max(float(f"{drawn:.{DIGITS}g}"), self.search.low), self.search.high)

    def at_an_end(self, value: object) -> bool:
        """Whether the best may lie beyond the range: the value is near an end that isn't the setting's own."""
        low, high = self.search.low, self.search.high
        if low is None or high is None or not isinstance(value, int | float):
            return False
        scale = math.log if self.search.log else float
        share = (scale(value) - scale(low)) / (scale(high) - scale(low))
        return (share <= NEAR and not self.ends[0]) or (share >= 1 - NEAR and not self.ends[1])


@dataclass(frozen=True)
class Space:
    """The settings that are searched for one algorithm, and why others aren't: {key: reason}."""

    dimensions: list[Dimension] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def configured(self) -> Settings:
        return {d.key: plain(d.configured) for d in self.dimensions}

    def trials(self, count: int, seed: int, algorithm: str) -> list[Settings]:
        """`count` settings to try, all known before the first is run: as configured, then Optuna's scrambled Sobol sequence
        (Sobol, 1967; Owen, 1998) without repeats, which more trials only make longer. Fewer where there are no others."""
        if not self.dimensions:
            return [{}]
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        stream = int.from_bytes(hashlib.sha256(f"{seed}/{algorithm}".encode()).digest()[:4], "big")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(
                sampler=optuna.samplers.QMCSampler(scramble=True, seed=stream, warn_independent_sampling=False)
            )
        space = {d.key: d.distribution for d in self.dimensions}
        # of a study without a finished trial, the sampler would draw the first one from no sequence
        study.add_trial(optuna.create_trial(params=self.configured, distributions=space, value=0.0))
        settled = [self.configured]
        for _ in range(DRAWS * count):
            drawn = study.ask(space).params
            settings = {d.key: d.readable(drawn[d.key]) for d in self.dimensions}
            if settings not in settled:
                settled.append(settings)
        return [{}, *settled[1:count]]

    def edges(self, settings: Mapping[str, object]) -> list[str]:
        """The keys whose value lies at an end of its range."""
        return [d.key for d in self.dimensions if d.at_an_end(settings[d.key])]


def space(cfg: DictConfig, ranges: Mapping[str, Search | None], fixed: Mapping[str, str]) -> Space:
    """What the algorithm of `cfg` and its trainer declare, changed by these `ranges` (None: don't search), without the
    keys in `fixed` ({key: why}) and those that have no meaning beside the other settings.

    Raises UserError for a configured value out of its range, and for one of the `ranges` that the setting refuses.
    """
    dimensions, left_out = [], {}
    for key, search in {**declared(cfg), **ranges}.items():
        if search is None:
            left_out[key] = "not to be searched"
            continue
        why = next((why for name, why in fixed.items() if f"{key}.".startswith(f"{name}.")), "") if key not in ranges else ""
        refusal = next((error for error in (_error(cfg, key, end) for end in search.ends) if error), "")
        if why or (refusal and key not in ranges):
            left_out[key] = why or "without effect beside the other settings"
        elif refusal:
            raise UserError(f"the range {search} of {key}: {refusal}")
        else:
            dimensions.append(_dimension(cfg, key, search))
    return Space(dimensions, left_out)


def declared(cfg: DictConfig) -> dict[str, Search]:
    """{key: range} of the algorithm and the trainer."""
    schemas = {group: OmegaConf.get_type(cfg[group]) for group in ("algorithm", "trainer")}
    return {f"{group}.{key}": search for group, schema in schemas.items() if schema for key, search in searches(schema)}


def by_label(written: Mapping[str, object], labels: Collection[str]) -> tuple[Settings, dict[str, Settings]]:
    """{key or label.key: range} as ({key: range} for every algorithm, {label: {key: range}})."""
    everyone: Settings = {}
    single: dict[str, Settings] = {}
    for key, value in written.items():
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
            return Search(**{**value, "options": tuple(value.get("options", ()))})
        low, high = value
        return Search(low, high, log=before is not None and before.log)
    except (TypeError, ValueError) as error:
        remedy = "[low,high], {low: 1e-4, high: 1e-2, log: true}, {options: [1,2]}, or null to leave it as it is"
        raise UserError(f"the range {value} of {key} can't be read ({error}): write {remedy}") from None


def has(cfg: DictConfig, key: str) -> bool:
    """Whether there is such a setting in one of the config groups."""
    return "." in key and key in results.flat(OmegaConf.to_container(cfg))


def plain(value: object) -> object:
    """As it stands in a config file."""
    return value.name if isinstance(value, Enum) else value


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


def _error(cfg: DictConfig, key: str, value: object) -> str:
    """What the config group says of this value, or nothing where it takes it."""
    group = copy.deepcopy(cfg[key.split(".")[0]])
    try:
        OmegaConf.update(group, key.partition(".")[2], value, force_add=False)
        OmegaConf.to_object(group)
    except (UserError, OmegaConfBaseException) as error:
        return first_line(error)
    return ""
