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

import torch
from torch import Tensor

from alignzoo.batch import Completions
from alignzoo.common import imports
from alignzoo.contracts import Reward, Scores, ScoringError, Source
from alignzoo.data.readable import originals, readable
from alignzoo.errors import UserError, nearest


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
        self._function: Callable[..., Any] | None = None

    def resolve(self, source: Source) -> Reward:
        self._load()
        return self

    def __call__(self, c: Completions) -> Scores:
        try:
            returned = self._call(c)
        except UserError:
            raise
        except Exception as error:
            raise ScoringError(
                f"the reward {self.path} failed with {type(error).__name__}: {error}\nscoring {self._culprit(c)}"
            ) from error
        return self._scores(returned, c)

    def _call(self, c: Completions) -> Any:
        function = self._load()
        return function(**self._arguments(function, c))

    def _culprit(self, c: Completions) -> str:
        """The first completion that the function fails on by itself."""
        for i in range(len(c)):
            one = c.take([i])
            try:
                self._call(one)
            except Exception:
                return f"row {int(one.row[0])}: {one.text[0][:60]!r}"
        return f"{len(c)} completions together"

    def _load(self) -> Callable[..., Any]:
        if self._function is None:
            self._function = load(self.path, "reward.path")
        return self._function

    def _arguments(self, function: Callable[..., Any], c: Completions) -> dict[str, Any]:
        columns = {name: [values[i] for i in c.prompt_of.tolist()] for name, values in c.prompts.columns.items()}
        columns |= {name: columns[column] for name, column in self.columns.items() if column in columns}
        lazily: dict[str, Callable[[], Any]] = {
            "completions": lambda: c.text,
            "prompts": lambda: _prompts(c),
            "record": lambda: c,
        }
        given: dict[str, Any] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given = {**columns, **{known: make() for known, make in lazily.items()}, **self.arguments}
            elif name in self.arguments:
                given[name] = self.arguments[name]
            elif name in lazily:
                given[name] = lazily[name]()
            elif name in columns:
                given[name] = columns[name]
            elif parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL:
                known = [*lazily, *columns]
                raise UserError(
                    f"the reward {self.path} takes {name!r}, which is none of {', '.join(known)}.{nearest(name, known)}\n"
                    f"name a column with ++reward.columns.{name}=COLUMN, or give a value with ++reward.arguments.{name}=VALUE"
                )
        return given

    def _scores(self, returned: Any, c: Completions) -> Scores:
        if isinstance(returned, Tensor):
            total, valid = returned.to(c.ids.device).float(), torch.ones(len(c), dtype=torch.bool, device=c.ids.device)
        else:
            numbers = _numbers(returned, c, str(self.path))
            valid = torch.tensor([number is not None for number in numbers], device=c.ids.device)
            total = torch.tensor([0.0 if number is None else number for number in numbers], device=c.ids.device)
        if total.shape not in ((len(c),), c.ids.shape):
            raise UserError(
                f"the reward {self.path} returned scores of shape {tuple(total.shape)} for {len(c)} completions: "
                f"return one a completion, ({len(c)},), or one a token, {tuple(c.ids.shape)}"
            )
        read = torch.where(c.scored, total, 0) if total.dim() == 2 else total[:, None]
        missing = (torch.isnan(read).any(1) & valid).nonzero()[:, 0].tolist()
        if missing:
            raise ScoringError(
                f"the reward {self.path} returned NaN for row {int(c.row[missing[0]])}: {c.text[missing[0]][:60]!r}\n"
                "return None where no score can be had"
            )
        return Scores(total=total, valid=valid)


def load(path: str | None, key: str) -> Callable[..., Any]:
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
    told = module_name in sys.modules or module_name.startswith("alignzoo.") or os.environ.get("RANK", "0") != "0"
    try:
        if not told and find_spec(module_name.partition(".")[0]):
            print(f"alignzoo: {key}={path} runs the code of {module_name}", file=sys.stderr, flush=True)
        module = imports.current(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{key}={path}: no module {error.name!r}, looking in the current folder and what is installed"
        ) from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{key}={path}: importing {module_name} failed with {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        what = "has nothing named" if function is None else "has nothing callable named"
        names = [known for known, value in vars(module).items() if callable(value)]
        raise UserError(f"{key}={path}: {module_name} {what} {name!r}.{nearest(name, names)}")
    return function


def _numbers(returned: Any, c: Completions, path: str) -> list[float | None]:
    if not isinstance(returned, Sequence) and not hasattr(returned, "tolist"):
        raise UserError(f"the reward {path} returned a {type(returned).__name__}: return a list or tensor of numbers")
    listed = returned.tolist() if hasattr(returned, "tolist") else list(map(_plain, returned))
    if len(listed) != len(c):
        raise UserError(f"the reward {path} returned {len(listed)} scores for {len(c)} completions")
    for row, number in zip(c.row.tolist(), listed, strict=True):
        if number is not None and not isinstance(number, int | float):
            raise UserError(f"the reward {path} returned {number!r} for row {row}: must be a number, or None for no score")
    return listed


def _plain(number: Any) -> Any:
    """A number of numpy's or torch's as one of Python's."""
    return number.item() if getattr(number, "ndim", None) == 0 else number


def _prompts(c: Completions) -> list[str]:
    texts = [readable(prompt) for prompt in originals(c.prompts)]
    return [texts[i] for i in c.prompt_of.tolist()]
