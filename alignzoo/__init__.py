"""alignzoo: one loop, every alignment algorithm. Names are imported when they are first used, so that this import is light."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
API_VERSION = "1.1"  # of what plugins are written against: see CONTRIBUTING.md

_PLACES = {
    "alignzoo.config": ("compose", "instantiate"),
    "alignzoo.pipeline.train": ("train",),
    "alignzoo.batch": ("Batch", "Completions", "Pairs", "Prompts", "Rankings", "Rated", "Triples"),
    "alignzoo.contracts": (
        "Algorithm", "Context", "Couples", "EMA", "Every", "Hosting", "Kind", "LearningReward", "Models", "Next",
        "OnlineAlgorithm", "Policy", "Reference", "Reward", "Role", "Scores", "Source", "Table", "Tables", "TrainerPlugin",
        "Value",
    ),
    "alignzoo.settings": ("Sampling", "Search", "UserError", "require"),
}  # fmt: skip
_HOME = {name: module for module, names in _PLACES.items() for name in names}

__all__ = ["API_VERSION", "__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'alignzoo' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
