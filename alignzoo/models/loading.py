"""Networks, configs and tokenizers from where a user points: a hub name, a folder, an adapter's folder, or a GGUF file.

Whatever a checkpoint holds and its network has no place for, or the other way round, is an error that names it.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from safetensors import safe_open
from torch import nn

from alignzoo.common.folder import CONFIG, MODEL
from alignzoo.errors import UserError, first_line
from alignzoo.models.forward import flat
from alignzoo.settings import embedded

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

    AutoClass = type[_BaseAutoModelClass] | type[PreTrainedModel]

logger = logging.getLogger("alignzoo")
ADAPTER_CONFIG = "adapter_config.json"
QUANTISED = ("is_quantized", "hf_quantizer", "quantization_method")  # what is remembered of a GGUF file once unpacked


@dataclass(frozen=True)
class Location:
    """Where a model is read from. `key` is the setting that says so."""

    key: str
    path: str
    trust_remote_code: bool = False
    gguf: str | None = None  # the file's name; `path` is its folder
    adapter: str | None = None  # what is added to the weights at `path`

    @staticmethod
    def of(path: str, key: str, trust_remote_code: bool = False) -> Location:
        """Raises UserError where nothing is: a path that looks local must be there, a bare owner/name may be on the hub."""
        path = embedded(path)
        file = Path(path).expanduser()
        if (path.startswith((".", "/", "~")) or path.count("/") != 1) and not file.exists():
            raise UserError(f"{key}={path} does not exist")
        where = Location(key, str(file) if file.exists() else path, trust_remote_code)
        if file.suffix == ".gguf" and file.is_file():
            return replace(where, path=str(file.parent), gguf=file.name)
        if file.is_file():
            raise UserError(f"{key}={path} is a file: name the model's folder, or a .gguf file")
        if (file / CONFIG).is_file() and (file / MODEL).is_dir():
            raise UserError(f"{key}={path} is a run's folder: its model is {path}/{MODEL}")
        if file.is_dir():
            adapter = str(file / ADAPTER_CONFIG) if (file / ADAPTER_CONFIG).is_file() else None
        else:
            with where.readable("adapter"):
                adapter = _hub_adapter(where.path)
        return where if adapter is None else where._on_base(adapter)

    def _on_base(self, adapter: str) -> Location:
        with self.readable("adapter"):
            base = str(dict(json.loads(Path(adapter).read_text("utf-8"))).get("base_model_name_or_path") or "")
        if not base or Path(base).expanduser() == Path(self.path):
            raise UserError(
                f"{self} is an adapter that names no model: write base_model_name_or_path into its {ADAPTER_CONFIG}"
            )
        below = Location.of(base, f"{self} is an adapter, whose base_model_name_or_path", self.trust_remote_code)
        if below.adapter:
            raise UserError(f"{self} is an adapter of an adapter, {base}: merge that into its model first")
        folder = Path(self.path)
        if folder.is_dir() and not any(folder.glob("adapter_model.*")):
            raise UserError(f"{self} is an adapter without weights: adapter_model.safetensors is missing")
        return replace(below, key=self.key, adapter=self.path)

    def __str__(self) -> str:
        return f"{self.key}={self.adapter or (Path(self.path) / self.gguf if self.gguf else self.path)}"

    @property
    def options(self) -> dict[str, object]:
        """For every `from_pretrained`."""
        return {"trust_remote_code": self.trust_remote_code, **({"gguf_file": self.gguf} if self.gguf else {})}

    @contextmanager
    def readable(self, what: str, remedy: str = "") -> Iterator[None]:
        """Raises UserError for whatever goes wrong inside, since what a checkpoint holds is its user's."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if not Path(self.path).exists():
                remedy = ". Is the name right, and the hub to be reached?"
            raise UserError(f"no {what} at {self}: {first_line(error).rstrip('.')}{remedy}") from error

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """An adapter's own where it has one, else the model's."""
        from transformers import AutoTokenizer

        beside = self.adapter and (Path(self.adapter) / "tokenizer_config.json").is_file()
        where = replace(self, path=str(self.adapter), gguf=None) if beside else self
        with self.readable("tokenizer", ". Give model.tokenizer=PATH" if self.key == "model.path" else ""):
            return AutoTokenizer.from_pretrained(where.path, **where.options)

    def config(self) -> PretrainedConfig:
        from transformers import AutoConfig

        with self.readable("model"):
            return AutoConfig.from_pretrained(self.path, **self.options)

    def network(self, kind: AutoClass, fresh: Collection[str] = (), trunk: bool = False, **options: Any) -> PreTrainedModel:
        """The network of the class `kind` of transformers, an adapter added to its weights. All its weights must be in the
        checkpoint, and none may be left over, but for those of the modules `fresh`; those of the head are nobody's concern
        where only the `trunk` is wanted. Raises UserError."""
        with self.readable("model"), quiet():
            brought = self.brought()
            if "score.weight" in brought and "config" not in options:
                options["num_labels"] = brought["score.weight"][0]
            options |= {"output_loading_info": True, "ignore_mismatched_sizes": True, **self.options}
            loaded: Any = kind.from_pretrained(self.path, **options)
            module, report = loaded
            _check(self, module, report, set(fresh), trunk, set(brought))
            if self.gguf:
                _forget_quantisation(module)
            module.name_or_path = "" if self.adapter else self.path if not self.gguf else str(Path(self.path) / self.gguf)
            if self.adapter:
                module = _with_adapter(module, self)
            if broken := [name for name, weight in module.named_parameters() if not weight.isfinite().all()]:
                raise UserError(f"{self} holds numbers that are not finite, in {_some(broken)}: put it back from a copy")
            return module

    def brought(self) -> dict[str, list[int]]:
        """{name: shape} of the weights of whole modules that an adapter brings, such as a head."""
        file = Path(self.adapter or "", "adapter_model.safetensors")
        if not self.adapter or not file.is_file():
            return {}
        with safe_open(file, "pt") as weights:
            return {
                name.removeprefix("base_model.model."): weights.get_slice(name).get_shape()
                for name in weights.keys()  # noqa: SIM118 - it is no dict
                if "lora_" not in name
            }


@lru_cache(maxsize=64)
def _hub_adapter(name: str) -> str | None:
    """An adapter's config file of the hub, asked for once: a run looks for its model several times as it starts."""
    from transformers.utils import find_adapter_config_file

    return find_adapter_config_file(name)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers keeps its own report of the weights, and its warnings, to itself."""
    from transformers.utils import logging as verbosity

    before = verbosity.get_verbosity()
    verbosity.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        verbosity.set_verbosity(before)


def merged(module: Any) -> PreTrainedModel:
    """A network with its adapters in its weights; itself changes. Embeddings that share a tensor get one each where an adapter
    is on either, which would otherwise be added to both."""
    if flat.adapted_ties(module):
        output = module.get_output_embeddings()
        layer = getattr(output, "base_layer", output)
        layer.weight = nn.Parameter(layer.weight.detach().clone())
        module.config.tie_word_embeddings = False
    whole: PreTrainedModel = module.merge_and_unload()
    return whole


def _with_adapter(module: PreTrainedModel, where: Location) -> PreTrainedModel:
    from peft import PeftConfig, PeftModel

    folder = str(where.adapter)
    wrapped = PeftModel(module, PeftConfig.from_pretrained(folder))
    keys = wrapped.load_adapter(folder, "default")
    if wrong := [*keys.missing_keys, *keys.unexpected_keys]:
        raise UserError(f"{where} is an adapter that does not fit {where.path}: look at {_some(wrong)}")
    return merged(wrapped).requires_grad_(True)  # peft froze what it adapted


class Report(TypedDict):
    """What transformers says of the weights that it has loaded: by name, with the shapes of those that differ."""

    missing_keys: set[str]
    unexpected_keys: set[str]
    mismatched_keys: set[tuple[str, tuple[int, ...], tuple[int, ...]]]


def _check(where: Location, module: PreTrainedModel, report: Report, fresh: set[str], trunk: bool, brought: set[str]) -> None:
    """Raises UserError for weights that are missing, left over or of another shape, but for those that an adapter has
    `brought`, and where only the trunk is wanted, or an adapter brings the head, those of the head. Pooling is of the head."""
    prefix = f"{module.base_model_prefix}."
    head = trunk or any(not name.startswith(prefix) for name in brought)

    def concerns(key: str, missing: bool) -> bool:
        if key in brought:
            return False
        return not head or (missing and not trunk) or (key.startswith(prefix) and "pooler" not in key.split("."))

    shapes = {key: f"{key} as {_shape(there)}, not {_shape(here)}" for key, there, here in report["mismatched_keys"]}
    faults = {
        "lacks {}": {key: key for key in report["missing_keys"]},
        "has {}, for which there is no place": {key: key for key in report["unexpected_keys"]},
        "has {}": shapes,
    }
    keys = {key for how, named in faults.items() for key in named if concerns(key, how == "lacks {}")}
    allowed = {name: {key for key in keys if key == name or key.startswith(f"{name}.")} for name in fresh}
    if useless := sorted(name for name, named in allowed.items() if not named):
        raise UserError(f"model.fresh={useless}: {where} lacks no such weights: leave it out")
    keys -= set().union(*allowed.values())
    if not keys:
        return
    texts = {how: sorted(text for key, text in named.items() if key in keys) for how, named in faults.items()}
    kind = (getattr(module.config, "architectures", None) or ["model"])[0]
    holds = "" if kind == type(module).__name__ else f" holds a {kind}, and as a {type(module).__name__} it"
    parts = sorted({key.rpartition(".")[0] for key in keys})
    remedy = f", or let it be with model.fresh=[{','.join(parts)}]" if where.key == "model.path" and len(parts) <= 3 else ""
    faulty = " and ".join(how.format(_some(named)) for how, named in texts.items() if named)
    raise UserError(f"{where}{holds} {faulty}. Name another{remedy}")


def _some(texts: list[str]) -> str:
    return f"{', '.join(texts[:2])}" + (f" and {len(texts) - 2} more" if len(texts) > 2 else "")


def _shape(size: Iterable[int]) -> str:
    return "x".join(map(str, size))


def _forget_quantisation(module: PreTrainedModel) -> None:
    """Its weights are plain tensors now; remembered as quantised, they could not be saved."""
    for name in QUANTISED:
        if hasattr(module, name):
            delattr(module, name)
    if hasattr(module.config, "quantization_config"):
        del module.config.quantization_config
