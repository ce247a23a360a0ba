"""What `alignzoo train` does with a config: one run, or the stages of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from alignzoo.common.folder import Row
from alignzoo.config.composition import compose
from alignzoo.errors import UserError
from alignzoo.pipeline import carry_out, stages
from alignzoo.runs import single


def train(cfg: DictConfig | Sequence[str] = (), algorithm: object = None) -> Row:
    """Run what `cfg` (of `alignzoo.compose`) says and return the summary, which is also in the run's folder; of a pipeline, the
    last stage's, as far as it came. Instead of a config there may be overrides, with an `algorithm`, as `compose` takes them.

    Goes on with a run that is there from its newest complete checkpoint; `resume` names it by its folder alone. Raises
    UserError for a user's mistake, before anything is written; Ctrl-C, SIGTERM and SIGHUP end with status "interrupted" after a
    checkpoint.
    """
    if not isinstance(cfg, DictConfig):
        cfg = compose(cfg, algorithm)
    elif algorithm is not None:
        raise UserError("an algorithm is handed over with overrides, train([...], algorithm=...), not with a config")
    return carry_out.run(cfg)[-1] if cfg.pipeline.stages and not cfg.resume else single.train(cfg)


def check(cfg: DictConfig) -> None:
    """Raises UserError for what can be known to be wrong with runs of one process before data and models are loaded."""
    if cfg.pipeline.stages:
        stages.check(stages.stages(cfg))
    else:
        single.check(cfg)
