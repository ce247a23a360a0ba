"""`reward=function`: any Python callable, by dotted path."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.common import imports
from alignzoo.contracts import Reward, Scores, Source
from alignzoo.errors import UserError, nearest
from alignzoo.rewards.text_reward import prompts, scores


@dataclass(kw_only=True)
class Function(Reward):
    """Any Python callable, by its dotted path.

    It is called with those of these arguments that its signature names: completions and prompts (list[str] each), record
    (the `Completions`), any column of the data (a list with one entry a completion; `columns` gives it the parameter's name),
    and `arguments` from the config.

    It returns one number a completion, a list or a tensor (B,), or a tensor with one a token (B, T); None means that no score
    can be had. A NaN and an exception are errors that name the row.
    """

    path: str | None = field(default=None, metadata={"help": "module:function or module.function", "trust": True})
    columns: dict[str, str] = field(default_factory=dict, metadata={"help": "parameter of the function: column of the data"})
    arguments: dict[str, Any] = field(default_factory=dict, metadata={"help": "further keyword arguments of the function"})

    def __post_init__(self) -> None:
        self._function: Callable[..., object] | None = None

    def resolve(self, source: Source) -> Reward:
        self._function = load(self.path, "reward.path")
        return self

    def __call__(self, c: Completions) -> Scores:
        function = self._function = self._function or load(self.path, "reward.path")
        returned = function(**self._arguments(function, c))
        if isinstance(returned, Tensor):
            return Scores(total=returned.to(c.ids.device).float())
        numbers = returned.tolist() if hasattr(returned, "tolist") else returned
        if not isinstance(numbers, Sequence):
            raise UserError(f"the reward {self.path} returned a {type(returned).__name__}: return a list or tensor of numbers")
        if len(numbers) != len(c):
            raise UserError(f"the reward {self.path} returned {len(numbers)} scores for {len(c)} completions")
        numbers = [number.item() if getattr(number, "ndim", None) == 0 else number for number in numbers]  # numpy's, torch's
        for row, number in zip(c.row.tolist(), numbers, strict=True):
            if not isinstance(number, int | float | None):
                raise UserError(
                    f"the reward {self.path} returned {number!r} for row {row}: must be a number, or None for no score"
                )
        return scores(numbers, c)

    def _arguments(self, function: Callable[..., object], c: Completions) -> dict[str, object]:
        columns = {name: [values[i] for i in c.prompt_of.tolist()] for name, values in c.prompts.columns.items()}
        columns |= {name: columns[column] for name, column in self.columns.items() if column in columns}
        # made when they are named: records may have no text
        lazily: dict[str, Callable[[], object]] = {
            "completions": lambda: c.text, "prompts": lambda: prompts(c), "record": lambda: c,
        }  # fmt: skip
        arguments: dict[str, object] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments = {**columns, **{builtin: make() for builtin, make in lazily.items()}, **self.arguments}
            elif name in self.arguments:
                arguments[name] = self.arguments[name]
            elif name in lazily:
                arguments[name] = lazily[name]()
            elif name in columns:
                arguments[name] = columns[name]
            elif parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL:
                names = [*lazily, *columns]
                raise UserError(
                    f"the reward {self.path} takes {name!r}, which is none of {', '.join(names)}.{nearest(name, names)}\n"
                    f"name a column with ++reward.columns.{name}=COLUMN, or give a value with ++reward.arguments.{name}=VALUE"
                )
        return arguments


def load(path: str | None, key: str) -> Callable[..., object]:
    """The callable at a dotted path; the current folder is searched too. Raises UserError saying what of it is not there."""
    if not path:
        raise UserError(f"{key} is not set: give {key}=MODULE:FUNCTION, such as mine:score")
    if file := re.fullmatch(r"(?:.*/)?(\w+)\.py(?::(\w+))?", path):
        raise UserError(
            f"{key}={path} names a file: write {key}={file[1]}:{file[2] or 'FUNCTION'}, in the folder of {file[1]}.py"
        )
    module_name, _, name = path.replace(":", ".").rpartition(".")
    if not module_name or not name:
        raise UserError(f"{key}={path}: give a callable as module:function, such as alignzoo.rewards.text:length")
    if "" not in sys.path:
        sys.path.insert(0, "")
    announced = module_name in sys.modules or module_name.startswith("alignzoo.") or os.environ.get("RANK", "0") != "0"
    try:
        if not announced and find_spec(module_name.partition(".")[0]):
            print(f"alignzoo: {key}={path} runs the code of {module_name}", file=sys.stderr, flush=True)
        module = imports.current(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{key}={path}: no module {error.name!r}, looking in the current folder and what is installed"
        ) from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{key}={path}: importing {module_name} failed with {type(error).__name__}: {error}") from error
    function: object = getattr(module, name, None)
    if callable(function):
        return function
    what = "has nothing named" if function is None else "has nothing callable named"
    names = [callable_name for callable_name, value in vars(module).items() if callable(value)]
    raise UserError(f"{key}={path}: {module_name} {what} {name!r}.{nearest(name, names)}")
