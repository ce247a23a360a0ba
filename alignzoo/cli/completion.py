"""Shell completion, from names and source text: no plugin is imported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import yaml

from alignzoo.config.catalogue import SCHEMAS, conf_folder, yaml_groups
from alignzoo.config.registry import GROUPS, Registry, field_names
from alignzoo.errors import UserError

COMMANDS = (
    "train", "make", "bench", "report", "sample", "label", "list", "card", "plugin", "doctor",
    "--help", "--version", "--shell-completion",
)  # fmt: skip
BASH = r"""
_alignzoo() {
    local line="${COMP_LINE:0:$COMP_POINT}" IFS=$'\n'
    local word="${line##* }"
    COMPREPLY=($(alignzoo --shell-completion "query=$line"))
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
    fi
}
complete -o nospace -o default -F _alignzoo alignzoo
"""


def main(arguments: Sequence[str]) -> None:
    """`install=bash` prints the function for the shell to evaluate; it asks back with `query=LINE`."""
    asked = arguments[0] if arguments else ""
    if asked == "install=bash":
        print(BASH.strip())
    elif asked.startswith("query="):
        print("\n".join(candidates(asked.removeprefix("query="))))
    else:
        raise UserError('completion is for bash: eval "$(alignzoo --shell-completion install=bash)"')


def candidates(line: str) -> list[str]:
    """What the last word of a command line up to the cursor may become."""
    _, *words, word = line.split(" ") if " " in line else ["", ""]
    words = [w for w in words if w]
    if not words:
        found: Iterable[str] = COMMANDS
    elif words[0] in ("train", "bench"):
        found = _override(words[1:], word)
    else:
        found = _names(words[0])
    return sorted(text for text in found if text.startswith(word))


def _names(command: str) -> Iterable[str]:
    if command == "list":
        return {*GROUPS, *yaml_groups()}
    if command == "card":
        registry = Registry()
        return {name for group in GROUPS for name in registry.names(group)}
    return ["list"] if command == "plugin" else []


def _override(words: Sequence[str], word: str) -> Iterable[str]:
    given = dict(w.split("=", 1) for w in words if "=" in w)
    registry = Registry(given.get("plugins_dir"))
    options = {group: list(names) for group, names in yaml_groups().items()}
    for group in GROUPS:
        options[group] = [*registry.names(group), *options.get(group, [])]
    key, equals, value = word.partition("=")
    if equals:
        before = value.rpartition(",")[0]  # of a sweep: algorithm=dpo,p
        return [f"{key}={before}{',' if before else ''}{name}" for name in options.get(key, [])]
    if "." in word:
        return _keys(registry, word.split(".")[0], given)
    table: dict[str, Any] = yaml.safe_load((conf_folder() / "train.yaml").read_text("utf-8"))
    plain = [f"{key}=" for key, value in table.items() if key not in ("defaults", "hydra") and not isinstance(value, dict)]
    return [f"{group}=" for group in options] + [f"{group}." for group in (*GROUPS, *SCHEMAS)] + plain


def _keys(registry: Registry, group: str, given: dict[str, str]) -> list[str]:
    """The keys of a group, for the option chosen on the line or else by default."""
    if group in SCHEMAS:
        return [f"{group}.{f.name}=" for f in fields(SCHEMAS[group])]
    if group not in GROUPS:
        return []
    name = given.get(group) or _default(group)
    return [f"{group}.{field}=" for field in field_names(registry.get(group, name))] if name in registry.names(group) else []


def _default(group: str) -> str:
    entries = yaml.safe_load((conf_folder() / "train.yaml").read_text("utf-8"))["defaults"]
    return next(str(entry[group]) for entry in entries if isinstance(entry, dict) and group in entry)
