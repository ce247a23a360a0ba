"""What `import alignzoo` offers, for those who read types: at run time the names are imported when they are first used."""

from alignzoo.batch import Batch, Completions, Pairs, Prompts, Rankings, Rated, Triples
from alignzoo.config.composition import compose
from alignzoo.config.run import instantiate
from alignzoo.contracts import (
    EMA,
    Algorithm,
    Context,
    Couples,
    Every,
    Hosting,
    Kind,
    LearningReward,
    Models,
    Next,
    OnlineAlgorithm,
    Policy,
    Reference,
    Reward,
    Role,
    Scores,
    Source,
    Table,
    Tables,
    TrainerPlugin,
    Value,
)
from alignzoo.errors import UserError, require
from alignzoo.pipeline.train import train
from alignzoo.settings import Sampling, Search

__all__ = [
    "API_VERSION", "EMA", "Algorithm", "Batch", "Completions", "Context", "Couples", "Every", "Hosting", "Kind",
    "LearningReward", "Models", "Next", "OnlineAlgorithm", "Pairs", "Policy", "Prompts", "Rankings", "Rated",
    "Reference", "Reward", "Role", "Sampling", "Scores", "Search", "Source", "Table", "Tables", "TrainerPlugin",
    "Triples", "UserError", "Value", "__version__", "compose", "instantiate", "require", "train",
]  # fmt: skip

__version__: str
API_VERSION: str
