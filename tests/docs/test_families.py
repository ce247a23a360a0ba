"""The family tree is that of the zoo as it is."""

from __future__ import annotations

from alignzoo.config.registry import Registry
from docs.families import ALGORITHM, PICTURE, PRESET, families, svg


def test_the_picture_is_drawn_from_the_zoo_as_it_is() -> None:
    assert PICTURE.read_text("utf-8") == svg(), "python docs/families.py draws it anew"


def test_every_algorithm_and_preset_has_one_place() -> None:
    names = [name for rows in families().values() for _, name, look in rows if look in (ALGORITHM, PRESET)]
    assert sorted(names) == sorted(Registry().names("algorithm"))


def test_a_preset_hangs_below_its_algorithm() -> None:
    rows = [(depth, name) for depth, name, _ in families()["policy gradient"]]
    at = rows.index((2, "rloo")) if (2, "rloo") in rows else -1
    assert at > 0 and next(row for row in rows[at::-1] if row[0] == 1) == (1, "reinforce")
