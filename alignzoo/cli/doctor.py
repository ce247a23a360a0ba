"""The command `alignzoo doctor`: versions, devices, precision, and what is missing for which feature."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Iterator
from typing import Any

from alignzoo import API_VERSION, __version__
from alignzoo.common.cache import cache_folder
from alignzoo.runs.single import PACKAGES, environment

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
    "generation.decoding=vllm": "vllm",
}
TELEMETRY = ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")


def main() -> int:
    """Print what was found."""
    for title, lines in (
        ("versions", _versions()),
        ("devices", _devices()),
        ("features", _features()),
        ("not tested", _untested()),
        ("privacy", _privacy()),
    ):
        print(title)
        for name, text in lines:
            print(f"  {name:<36} {text}")
    return 0


def _versions() -> Iterator[tuple[str, str]]:
    found = environment()
    yield "alignzoo", f"{__version__}, plugin contract {API_VERSION}"
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for name in PACKAGES[1:]:
        yield name, found["versions"][name] or "missing: pip install alignzoo again"


def _devices() -> Iterator[tuple[str, str]]:
    import torch

    yield "CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads for torch"
    for i in range(torch.cuda.device_count()):
        properties: Any = torch.cuda.get_device_properties(i)
        yield f"GPU {i}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if not torch.cuda.is_available():
        yield "GPU", "none that torch can use: everything runs on the CPU"
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        yield str(dtype).removeprefix("torch."), _precision(dtype)


def _precision(dtype: Any) -> str:
    """Tried, not looked up."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        x = torch.ones(4, 4, dtype=dtype, device=device, requires_grad=True)
        (x @ x).sum().backward()
    except RuntimeError as error:
        return f"no: {str(error).splitlines()[0]}"
    native = device == "cpu" or dtype != torch.bfloat16 or torch.cuda.is_bf16_supported(including_emulation=False)
    return f"works on {device}" + ("" if native else ", emulated and slow")


def _features() -> Iterator[tuple[str, str]]:
    for feature, module in FEATURES.items():
        there = importlib.util.find_spec(module) is not None
        yield feature, "ready" if there else f"missing: pip install {module.replace('flash_attn', 'flash-attn')}"


def _untested() -> Iterator[tuple[str, str]]:
    yield "FSDP through the Trainer", "its parts are tested on a CPU mesh, a whole run is not"
    yield "DeepSpeed", "a run is not tested"
    yield "generation.decoding=vllm", "tested with a stand-in for the server and for NCCL, with no vLLM"


def _privacy() -> Iterator[tuple[str, str]]:
    off = any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in TELEMETRY)
    yield "telemetry", "alignzoo has none; that of the Hugging Face hub is " + ("off" if off else "on: set DO_NOT_TRACK=1")
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    yield (
        "network",
        "offline (HF_HUB_OFFLINE)" if offline else "the Hugging Face hub is asked for models and data named by its ids",
    )
    yield "code of models", "not run unless model.trust_remote_code=true"
    yield "cache", str(cache_folder())
