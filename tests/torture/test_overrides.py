"""Sets of overrides, good and bad, drawn from the schema: each is a config, or a mistake told in three lines at most."""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from omegaconf import Container, DictConfig, OmegaConf

from alignzoo import compose
from alignzoo.config import command_line
from alignzoo.config.run import instantiate
from alignzoo.engine.build import arguments
from alignzoo.errors import UserError
from alignzoo.pipeline.train import check
from tests.torture.forked import forked, spread

SETS, SEED, LINES = 2000, 20261130, 3
GROUPS = ("algorithm", "model", "data", "reward", "gold", "reference", "peft", "trainer", "generation", "making", "debug")
NUMBERS = [
    "-1", "0", "1", "2", "3", "64", "1e9", "10000000000000000000000", "0.5", "-0.5", "1.5", "1e-300", "1e400", "nan", "inf",
    "-inf",
]  # fmt: skip
TEXTS = [
    "''", "x", "' '", "'a b'", "/nowhere", ".", "~", "é", "'\u2028'", "'\x1b[2J'", "'{prompt}'", "'{'", "'${nowhere}'", "'[1,'",
    "'${oc.env:NOWHERE}'", "'${oc.env:HOME}'", "'${seed}'", "'${.}'", "'\\${x}'", "http://me:secret@localhost:1", "a.b:c",
    "os:system", "a" * 5000,
]  # fmt: skip
OTHERS = [
    "null", "true", "false", "[]", "{}", "[1,2]", "[a]", "{a: 1}", "{a: {kind: length}}", "[[1],[2]]", "", "1,2", "choice(1,2)",
    "[", "}",
]  # fmt: skip
UNKNOWN = [
    "seeds=1", "algorithm.bta=1", "+x=1", "++model.config.x=1", "~seed", "~algorithm.beta", "algorithm@x=dpo", "=1", "a",
    "hydra.run.dir=x",
]  # fmt: skip


def drawn(number: int) -> list[str]:
    """The set of this number: options of some groups, then values of keys that this config has, or has not."""
    rng = random.Random(f"{SEED} {number}")
    with command_line.searching():
        every = {group: [*command_line.options(group), "nowhere"] for group in GROUPS}
    chosen = [f"{group}={rng.choice(every[group])}" for group in rng.sample(GROUPS, rng.randrange(4))]
    try:
        keys = dict(_leaves(compose(chosen)))
    except UserError:
        keys = dict(_leaves(compose()))
    picked = [f"{key}={rng.choice(_values(keys[key], rng))}" for key in rng.sample(sorted(keys), rng.randrange(1, 4))]
    return [*chosen, *picked, *rng.sample(UNKNOWN, rng.random() < 0.1)]


def _leaves(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key in map(str, node):
        inner: Any = node._get_node(key)
        if key in ("choices", "stages", "stage", "pipeline", "plugins_dir"):
            continue
        if isinstance(inner, DictConfig) and not (inner._is_none() or inner._is_missing()) and len(inner):
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", node[key] if not OmegaConf.is_missing(node, key) else None


def _values(now: Any, rng: random.Random) -> list[str]:
    """Of a like kind as a rule: a value that nothing accepts says little."""
    if rng.random() < 0.2:
        return [*NUMBERS, *TEXTS, *OTHERS]
    if isinstance(now, bool):
        return ["true", "false", "yes", "2"]
    if isinstance(now, int | float):
        return NUMBERS
    if isinstance(now, Enum):
        return [member.name for member in type(now)] + ["nowhere"]
    return OTHERS if isinstance(now, Container) else TEXTS


def outcome(overrides: list[str]) -> str:
    """ "" for a config that passes, or a mistake that is told well; else what is wrong."""
    try:
        cfg = compose(overrides)
        check(cfg)
        setup = instantiate(cfg)
        arguments(setup.training, Path("run"), setup.seed)
    except UserError as error:
        lines = str(error).split("\n")
        return "" if len(lines) <= LINES and all(lines) else f"{len(lines)} lines: {str(error)[:300]}"
    except BaseException:
        return traceback.format_exc()
    return ""


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("numbers", spread([range(start, start + 20) for start in range(0, SETS, 20)], 1))
def test_a_set_of_overrides_is_a_config_or_a_mistake_told_in_three_lines(
    numbers: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sets = {number: drawn(number) for number in numbers}
    wrong = {number: told for number, given in sets.items() if (told := forked(lambda given=given: outcome(given)))}
    assert not wrong, "\n\n".join(f"{number}: {sets[number]}\n{told}" for number, told in wrong.items())
