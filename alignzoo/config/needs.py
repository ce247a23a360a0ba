"""What an algorithm or preset needs: its networks and its records, by the names that cards use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import yaml

from alignzoo.config.declared import Card
from alignzoo.config.registry import Plugin, Registry, card_of
from alignzoo.errors import UserError


def base_card(plugin: Plugin) -> Card:
    """The card of the plugin that a preset is of, or of the plugin itself."""
    return card_of(replace(plugin, preset=None))


def by_family(plugins: Sequence[Plugin]) -> list[tuple[Plugin, Card]]:
    """With the cards of what they are, in the order of families; presets come after what they are of."""
    cards = [(plugin, base_card(plugin)) for plugin in plugins]
    return sorted(cards, key=lambda pair: (pair[1].family, pair[0].preset is not None, pair[0].name))


def preset_values(plugin: Plugin) -> dict[str, Any]:
    """The settings that a preset gives."""
    values = yaml.safe_load(plugin.preset.read_text("utf-8")) if plugin.preset else {}
    return {key: value for key, value in values.items() if key != "defaults"}  # which name the plugin it is of


def by_card(card: Card) -> list[str]:
    """Records first, without the policy, which is understood. A preset's settings may need less than this."""
    return [name for name in (card.data.lower(), *card.needs) if name and name != "policy"]


def exact(registry: Registry, plugin: Plugin) -> list[str]:
    """With the settings of a preset; imports the plugin. As the card has it where that can't be, or another program trains. Of
    a copy of the policy that is not trained, whatever its name, it says that it is a reference."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from alignzoo.contracts import Algorithm, Kind

    try:
        kind = registry.load(plugin.group, plugin.name)
        algorithm = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), preset_values(plugin)))
    except (UserError, OmegaConfBaseException):
        return by_card(base_card(plugin))
    if not isinstance(algorithm, Algorithm):
        return by_card(base_card(plugin))
    roles = {name: role for name, role in algorithm.roles().items() if name != "policy"}
    copies = {name for name, role in roles.items() if role.kind is Kind.POLICY and not role.trained and role.start == "policy"}
    return [algorithm.data.__name__.lower(), *(f"{name} (reference)" if name in copies else name for name in roles)]


def named(needed: Sequence[str]) -> set[str]:
    """The names that these needs answer to."""
    return set(re.findall(r"\w+", " ".join(needed)))
