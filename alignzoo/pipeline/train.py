"""What `alignzoo train` does with a config: one run, or the stages of a pipeline."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from alignzoo.pipeline import carry_out
from alignzoo.pipeline import check as checks
from alignzoo.pipeline.plan import stages
from alignzoo.runs import single


def train(cfg: DictConfig) -> dict[str, Any]:
    """Run what `cfg` (of `alignzoo.compose`) says and return the summary, which is also in the run's folder; of a pipeline, the
    last stage's, as far as it came.

    Goes on with a run that is there from its newest complete checkpoint; `resume` names it by its folder alone. Raises
    UserError for a user's mistake, before anything is written; Ctrl-C, SIGTERM and SIGHUP end with status "interrupted" after a
    checkpoint.
    """
    return carry_out.run(cfg)[-1] if cfg.pipeline.stages and not cfg.resume else single.train(cfg)


def check(cfg: DictConfig) -> None:
    """Raises UserError for what can be known to be wrong with runs of one process before data and models are loaded."""
    if cfg.pipeline.stages:
        checks.check(stages(cfg))
    else:
        single.check(cfg)
