"""How far raters agree, as it is, and beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import combinations

import numpy as np

Unit = Mapping[str, float]  # what each rater said of one thing


class Level(Enum):
    """What differs: values that are the same or not, or numbers that are more or less apart."""

    nominal = "nominal"
    interval = "interval"


def agreement(units: Sequence[Unit], level: Level) -> dict[str, float]:
    """Every measure that these units allow, by name; nothing where no two raters said something of the same unit.

    `raw_agreement` and, of two raters, `cohens_kappa`; of more who all rated every unit that several rated,
    `fleiss_kappa`: those take values as names. `krippendorffs_alpha` needs no complete table, and knows the level.
    """
    several = [unit for unit in units if len(unit) > 1]
    raters = {rater for unit in several for rater in unit}
    measures: dict[str, float | None] = {"raw_agreement": raw(several)}
    if len(raters) == 2:
        measures["cohens_kappa"] = cohen([tuple(unit[rater] for rater in sorted(raters)) for unit in several])
    elif len({len(unit) for unit in several}) == 1:
        measures["fleiss_kappa"] = fleiss([list(unit.values()) for unit in several])
    measures["krippendorffs_alpha"] = krippendorff([list(unit.values()) for unit in several], level)
    return {name: value for name, value in measures.items() if value is not None}


def raw(units: Sequence[Unit]) -> float | None:
    """The share of the pairs of raters of a unit who said the same, averaged over units."""
    shares = [np.mean([a == b for a, b in combinations(unit.values(), 2)]) for unit in units]
    return float(np.mean(shares)) if shares else None


def cohen(pairs: Sequence[tuple[object, ...]]) -> float | None:
    """kappa = (p_o - p_e) / (1 - p_e) of two raters, p_e from what each says how often (Cohen 1960, A coefficient of agreement
    for nominal scales, eq. 1). None where both always say one and the same."""
    values, n = {value for pair in pairs for value in pair}, max(len(pairs), 1)
    says = [Counter(pair[rater] for pair in pairs) for rater in (0, 1)]
    expected = sum(says[0][value] * says[1][value] for value in values) / n**2
    return _beyond_chance(sum(a == b for a, b in pairs) / n, expected)


def fleiss(units: Sequence[Sequence[float]]) -> float | None:
    """kappa = (P - P_e) / (1 - P_e) of any n raters a unit, not the same ones necessarily (Fleiss 1971, Measuring nominal scale
    agreement among many raters, eq. 2 to 7). None where all always say one and the same."""
    values = sorted({value for unit in units for value in unit})
    counts = np.array([[list(unit).count(value) for value in values] for unit in units], dtype=float).reshape(len(units), -1)
    if not counts.size:
        return None
    n = counts.sum(1)[0]
    observed = (counts * (counts - 1)).sum(1) / (n * (n - 1))
    return _beyond_chance(float(observed.mean()), float(((counts.sum(0) / counts.sum()) ** 2).sum()))


def krippendorff(ratings: Sequence[Sequence[float]], level: Level) -> float | None:
    """alpha = 1 - D_o / D_e, from how different the values of a unit are, and all values that were paired; units may have
    different numbers of raters (Krippendorff 2011, Computing Krippendorff's alpha-reliability, section E). None where all
    say one and the same."""
    units = [np.asarray(unit, dtype=float) for unit in ratings if len(unit) > 1]
    if not units:
        return None
    every = np.concatenate(units)
    observed = sum(_difference(unit, level) / (len(unit) - 1) for unit in units) / len(every)
    expected = _difference(every, level) / (len(every) * (len(every) - 1))
    return float(1 - observed / expected) if expected > 0 else None


def _difference(values: np.ndarray, level: Level) -> float:
    """The sum of the squared difference over all ordered pairs of values."""
    kinds, counts = np.unique(values, return_counts=True)
    apart = kinds[:, None] - kinds[None, :]
    squared = apart**2 if level is Level.interval else (apart != 0).astype(float)
    return float(counts @ squared @ counts)


def _beyond_chance(observed: float, expected: float) -> float | None:
    return (observed - expected) / (1 - expected) if expected < 1 else None
