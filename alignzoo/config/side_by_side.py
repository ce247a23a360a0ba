"""Algorithms beside each other: those that need some things and not others; equations and settings in columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.markdown import Markdown

from alignzoo.common.console import show
from alignzoo.config import needs
from alignzoo.config.catalogue import options_table, settings_of
from alignzoo.config.registry import Plugin, Registry, card_of, unknown
from alignzoo.errors import UserError, nearest


def show_algorithms(registry: Registry, family: str | None, required: Sequence[str], without: Sequence[str]) -> None:
    """A table of the algorithms and presets of this family that need all of `required` and none of `without`."""
    plugins = needs.by_family(registry.everything("algorithm"))
    families = {card.family for _, card in plugins}
    if family is not None and family not in families:
        raise UserError(unknown("family", family, families))
    needed = {plugin.name: needs.exact(registry, plugin) for plugin, _ in plugins}
    names = {name for has in needed.values() for name in needs.named(has)}
    for name in (*required, *without):
        if name not in names:
            raise UserError(f"no algorithm needs {name!r}.{nearest(name, names)} There are: {', '.join(sorted(names))}")
    rows = options_table("family", "name", "needs", "what it is")
    for plugin, card in plugins:
        has = needs.named(needed[plugin.name])
        if family in (None, card.family) and set(required) <= has and not set(without) & has:
            rows.add_row(card.family, plugin.name, ", ".join(needed[plugin.name]), card_of(plugin).summary)
    show(rows)


def show_equations(registry: Registry, names: Sequence[str]) -> None:
    """The equations, needs and settings of algorithms, a column each; raises UserError for a name that there isn't."""
    for name in names:
        if name not in registry.names("algorithm"):
            raise UserError(unknown("algorithm", name, registry.names("algorithm")))
    plugins = [registry.get("algorithm", name) for name in names]
    cards = [needs.base_card(plugin) for plugin in plugins]
    for plugin, card in zip(plugins, cards, strict=True):
        show(Markdown(f"**{plugin.name}**: {card_of(plugin).summary}"), f"{_equation(card.text)}\n")
    facts = {
        "family": [card.family for card in cards],
        "needs": [", ".join(needs.exact(registry, plugin)) for plugin in plugins],
    }
    settings = [_defaults(registry, plugin) for plugin in plugins]
    facts |= {key: [of.get(key, "") for of in settings] for key in dict.fromkeys(key for of in settings for key in of)}
    rows = options_table("", *names)
    for key, values in facts.items():
        rows.add_row(key, *values)
    show(rows)


def _equation(text: str) -> str:
    """The first block of code of a card."""
    block = re.search(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    return block[0].strip("\n") if block else ""


def _defaults(registry: Registry, plugin: Plugin) -> dict[str, str]:
    """The settings' values, as a preset has them."""
    settings = settings_of(registry.load(plugin.group, plugin.name), "", needs.preset_values(plugin))
    return {key: default for key, _, default, _, _ in settings}
