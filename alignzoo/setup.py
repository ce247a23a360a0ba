"""A run as typed objects: what its config becomes, and what everything below the command line is handed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from alignzoo.common.fingerprint import PARTS
from alignzoo.errors import UserError, nearest, require
from alignzoo.settings import FILES, Budget, EarlyStop, Generation, Made, Making, Model, Peft, Rollout, Scoring, Training

if TYPE_CHECKING:
    from alignzoo.contracts import Algorithm, Reference, Reward, Sampler, Source, TrainerPlugin

    Learner = Algorithm | TrainerPlugin
else:  # what plugins are is theirs: a schema lets it be anything
    Learner = Source = Reward = Reference = Any


@dataclass(kw_only=True)
class Pipeline:
    """Runs made one after the other: the overrides of each, by name; the last is the run itself. None: one run by itself."""

    name: str = ""  # filled in by `compose`
    description: str = ""
    stages: dict[str, list[str]] = field(default_factory=dict)


@dataclass(kw_only=True)
class RunConfig:
    """Everything a run is made from: the schema of `conf/train.yaml`, and, instantiated, the objects themselves."""

    algorithm: Learner = MISSING
    model: Model = field(default_factory=Model)
    data: Source = MISSING
    reward: Reward = MISSING
    reference: Reference = MISSING
    gold: Reward | None = None
    peft: Peft = field(default_factory=Peft)
    trainer: Training = field(default_factory=Training)
    budget: Budget = field(default_factory=Budget)
    generation: Generation = field(default_factory=Generation)
    rollout: Rollout = field(default_factory=Rollout)
    scoring: Scoring = field(default_factory=Scoring)
    making: Making = field(default_factory=Making)
    early_stop: EarlyStop = field(default_factory=EarlyStop)
    seed: int = 0
    label: str | None = field(default=None, metadata=FILES)  # what comparisons call it; none: by its algorithm
    run_dir: str | None = None
    resume: str | None = None
    accept: list[str] = field(default_factory=list)  # parts of fingerprint.json that may differ where a run goes on
    trust: bool = False  # of a run that is resumed and wasn't begun here: its code may be run
    plugins_dir: str | None = None
    metrics: list[str] = field(default_factory=list, metadata=FILES)  # more measures of evaluation: names of metric plugins
    pipeline: Pipeline = field(default_factory=Pipeline)
    stages_dir: str | None = None
    stages: dict[str, str] = field(default_factory=dict)  # the folders of the runs it was made from, by stage
    stage: dict[str, Any] = field(default_factory=dict)  # {stage: {key: value}} that were asked of single stages
    roles: dict[str, str | None] = field(default_factory=dict)
    override_keys: list[str] = field(default_factory=list)  # what the command line set; filled in by `compose`
    choices: dict[str, str | None] = field(default_factory=dict)  # the option taken of each group; filled in by `compose`

    def __post_init__(self) -> None:
        self.measures: dict[str, Callable[..., object]] = {}  # the functions that `metrics` names; filled in by `instantiate`
        self.samplers: dict[str, Sampler] = {}  # that of generation.decoding, where it is no loop of ours; as `measures`
        if self.trust and not self.resume:
            raise UserError("trust=true is about the run that resume=RUN names: leave it out")
        # numpy's generators, which TRL and others seed, take no other
        require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 4294967295")
        if self.making.kind is Made.none and self.making.seed not in (0, self.seed):
            raise UserError(f"making.seed={self.making.seed} is set, and nothing is made: choose making=pairs, ratings, ...")
        for part in self.accept:
            if part not in PARTS:
                raise UserError(f"accept={part}: no such part of a run.{nearest(part, PARTS)} There are {', '.join(PARTS)}")

    @property
    def name(self) -> str:
        """What the algorithm was chosen by."""
        return str(self.choices["algorithm"])

    @property
    def training(self) -> Training:
        return self.trainer
