"""Who judges what is sampled, and what can be known to be wrong with making data before anything is loaded."""

from __future__ import annotations

from alignzoo.batch import Batch
from alignzoo.contracts import Reward, learning
from alignzoo.errors import UserError
from alignzoo.making.label_rows import KIND_OF, gives
from alignzoo.setup import RunConfig


def check(setup: RunConfig, view: type[Batch]) -> None:
    """Raises UserError where nobody judges, or where what is made has not the view that is asked for."""
    kind = setup.making.kind
    labeller(setup)
    if not gives(kind, view):
        needs = f"which {setup.choices['algorithm']} learns from: choose making={KIND_OF[view].value}"
        raise UserError(f"making={kind.value} makes no {view.__name__}, {needs}")


def labeller(setup: RunConfig) -> tuple[Reward, str]:
    """`gold`, or else the reward, and how the command line calls it. Raises UserError where there is neither."""
    if setup.gold is not None:
        return setup.gold, f"gold={setup.choices['gold']}"
    reward, name = setup.reward.resolve(setup.data), f"reward={setup.choices['reward']}"
    if reward is None:
        raise UserError(f"making={setup.making.kind.value} needs a judge of what is sampled: give gold=NAME, as gold=sentiment")
    if learning(reward).roles() or learning(reward).teaches():
        raise UserError(f"{name} learns while it judges, so it can't label data: give another judge with gold=NAME")
    return reward, name
