"""Algorithms that train a scorer and no policy: a sound one has every property, one with a planted fault lacks its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch.nn.functional import logsigmoid

from alignzoo.batch import Pairs, Rated
from alignzoo.contracts import Algorithm, Kind, Role
from alignzoo.errors import UserError
from alignzoo.testing import conformance
from alignzoo.testing.conformance import Broken, Subject

BY_NAME = {prop.name: prop for prop in conformance.PROPERTIES}


@dataclass(kw_only=True)
class Sound(Algorithm):
    """Bradley-Terry, of a role of any name."""

    data = Pairs
    scale: float = field(default=1.0, metadata={"help": "of the scores"})

    def roles(self) -> Mapping[str, Role]:
        return {"judge": Role(kind=Kind.SCORER, trained=True, needs=frozenset({"scores"}))}

    def difference(self, models, batch):
        return torch.sub(*models.judge.scores(batch.both).chunk(2))

    def loss(self, models, batch):
        return -logsigmoid(self.scale * self.difference(models, batch)), {}


class Reversed(Sound):
    def difference(self, models, batch):
        return -super().difference(models, batch)


class RatedReversed(Sound):
    data = Rated

    def loss(self, models, batch):
        return (self.scale * models.judge.scores(batch) + batch.rating) ** 2, {}


class Detached(Sound):
    def difference(self, models, batch):
        return super().difference(models, batch).detach()


class Centred(Sound):
    def difference(self, models, batch):
        found = super().difference(models, batch)
        return found - found.mean()


class Stacked(Sound):
    """Chosen and rejected told apart by turns, where `both` has one half after the other."""

    def difference(self, models, batch):
        return torch.sub(*models.judge.scores(batch.both).unflatten(0, (-1, 2)).unbind(1))


class Meant(Sound):
    def loss(self, models, batch):
        return super().loss(models, batch)[0].mean(), {}


class Frozen(Sound):
    def roles(self) -> Mapping[str, Role]:
        return {"judge": Role(kind=Kind.SCORER, needs=frozenset({"scores"}))}


class Critic(Sound):
    def roles(self) -> Mapping[str, Role]:
        return {"judge": Role(kind=Kind.VALUE, trained=True, needs=frozenset({"values"}))}


FAULTS = [
    (Reversed, "direction", "a step towards what is better"),
    (RatedReversed, "direction", "a step towards what is better"),
    (Detached, "gradients", "a gradient in judge"),
    (Centred, "rows_alone", "the same 'loss' alone"),
    (Stacked, "order", "when records are reordered"),
    (Meant, "shapes", r"one number, a mean or sum: return one a record, \(B,\)"),
    (Frozen, "roles", r"without one, a SCORER before any other role; its roles: judge \(SCORER\)"),
    (Critic, "roles", r"without one, a SCORER before any other role; its roles: judge \(VALUE, trained\)"),
]


def test_a_sound_scorer_has_every_property(tmp_path):
    failures = {r.property.name: str(r.failure) for r in conformance.run(Subject("odd", Sound(), tmp_path)) if r.failure}
    assert failures == {}


@pytest.mark.parametrize(("fault", "name", "told"), FAULTS, ids=[f"{f.__name__}-{n}" for f, n, _ in FAULTS])
def test_a_fault_is_caught_by_the_property_meant_for_it(fault, name, told, tmp_path):
    with pytest.raises((Broken, UserError), match=told):
        BY_NAME[name].check(Subject("odd", fault(), tmp_path))
