"""The command `alignzoo doctor`: versions, devices, precision, and what is missing for which feature."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignzoo import API_VERSION, __version__
from alignzoo.common.cache import cache_folder
from alignzoo.config.registry import SAMPLER, Registry
from alignzoo.contracts import Sampler
from alignzoo.errors import first_line
from alignzoo.runs.single import PACKAGES, environment

if TYPE_CHECKING:
    import torch

FEATURES = {
    "adapters (peft=lora)": "peft",
    "metrics of text as rewards": "evaluate",
    "data=hub, data=parquet": "datasets",
    "hosted TRL trainers": "trl",
    "trainer.trackers=[tensorboard]": "tensorboard",
    "trainer.trackers=[wandb]": "wandb",
    "trainer.trackers=[trackio]": "trackio",
    "trainer.trackers=[mlflow]": "mlflow",
    "trainer.arguments.deepspeed": "deepspeed",
    "model.attention=flash_attention_2": "flash_attn",
}
UNTESTED = {
    "FSDP through the Trainer": "its parts are tested on a CPU mesh, a whole run is not",
    "DeepSpeed": "a run is not tested",
}


def main(argv: Sequence[str] = ()) -> int:
    argparse.ArgumentParser("alignzoo doctor", description="What this machine can do, and what is missing.").parse_args(argv)
    about = environment()
    parts = {"versions": _versions(about), "devices": _devices(about), "features": _features()}
    for title, lines in {**parts, "not tested": _untested(), "privacy": _privacy()}.items():
        print(title)
        for name, text in lines:
            print(f"  {name:<36} {text}")
    return 0


def _versions(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "alignzoo", f"{__version__}, plugin contract {API_VERSION}"
    yield "python", f"{about['python']} on {about['platform']}"
    for name in PACKAGES[1:]:
        yield name, about["versions"][name] or "missing: pip install alignzoo again"


def _devices(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    import torch

    yield "CPU", f"{about['cpus']} cores, {about['threads']} threads for torch"
    for number, name in enumerate(about["devices"]):
        yield f"GPU {number}", name
    if not about["devices"]:
        yield "GPU", "none that torch can use: everything runs on the CPU"
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        yield str(dtype).removeprefix("torch."), _precision(dtype)


def _precision(dtype: torch.dtype) -> str:
    """Tried, not looked up."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        x = torch.ones(4, 4, dtype=dtype, device=device, requires_grad=True)
        (x @ x).sum().backward()
    except RuntimeError as error:
        return f"no: {first_line(error)}"
    native = device == "cpu" or dtype != torch.bfloat16 or torch.cuda.is_bf16_supported(including_emulation=False)
    return f"works on {device}" + ("" if native else ", emulated and slow")


def _features() -> Iterator[tuple[str, str]]:
    samplers = {f"generation.decoding={name}": kind.package for name, kind in _samplers().items() if kind.package}
    for feature, module in {**FEATURES, **samplers}.items():
        there = importlib.util.find_spec(module) is not None
        yield feature, "ready" if there else f"missing: pip install {module.replace('flash_attn', 'flash-attn')}"


def _untested() -> Iterator[tuple[str, str]]:
    yield from UNTESTED.items()
    yield from ((f"generation.decoding={name}", kind.untested) for name, kind in _samplers().items() if kind.untested)


def _samplers() -> dict[str, type[Sampler]]:
    registry = Registry()
    return {name: registry.load(SAMPLER, name) for name in registry.names(SAMPLER)}


def _privacy() -> Iterator[tuple[str, str]]:
    silent, offline = _is_set("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"), _is_set("HF_HUB_OFFLINE")
    yield "telemetry", f"alignzoo has none; that of the Hugging Face hub is {'off' if silent else 'on: set DO_NOT_TRACK=1'}"
    asked_for = "the Hugging Face hub is asked for models and data named by its ids"
    yield "network", "offline (HF_HUB_OFFLINE)" if offline else asked_for
    yield "code of models", "not run unless model.trust_remote_code=true"
    yield "cache", str(cache_folder())


def _is_set(*names: str) -> bool:
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)
