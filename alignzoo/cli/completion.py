"""Shell completion, from names and source text: no plugin is imported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

import yaml

from alignzoo.cli.main import COMMANDS
from alignzoo.config.catalogue import SCHEMAS, conf_folder, yaml_groups
from alignzoo.config.registry import GROUPS, Registry, field_names
from alignzoo.errors import UserError

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


def main(argv: Sequence[str]) -> int:
    """`install=bash` prints the function for the shell to evaluate; it asks back with `query=LINE`."""
    request, _, line = argv[0].partition("=") if argv else ("", "", "")
    if (request, line) == ("install", "bash"):
        print(BASH.strip())
    elif request == "query":
        print("\n".join(candidates(line)))
    else:
        raise UserError('completion is for bash: eval "$(alignzoo --shell-completion install=bash)"')
    return 0


def candidates(line: str) -> list[str]:
    """What the last word of a command line up to the cursor may become."""
    _, *words, word = line.split(" ") if " " in line else ["", ""]
    words = [w for w in words if w]
    names: Iterable[str] = []
    if not words:
        names = (*COMMANDS, "--help", "--version", "--shell-completion")
    elif words[0] in ("train", "bench"):
        names = _overrides(words[1:], word)
    elif words[0] == "list":
        names = {*GROUPS, *yaml_groups()}
    elif words[0] == "card":
        registry = Registry()
        names = {name for group in GROUPS for name in registry.names(group)}
    elif words[0] == "plugin":
        names = ("new", "check", "list")
    return sorted(text for text in names if text.startswith(word))


def _overrides(words: Sequence[str], word: str) -> Iterable[str]:
    chosen = dict(w.split("=", 1) for w in words if "=" in w)
    registry = Registry(chosen.get("plugins_dir"))
    table = yaml.safe_load((conf_folder() / "train.yaml").read_text("utf-8"))
    options = {group: list(names) for group, names in yaml_groups().items()}
    options |= {group: [*registry.names(group), *options.get(group, [])] for group in GROUPS}
    key, equals, value = word.partition("=")
    group, dot, _ = key.partition(".")
    if equals:
        before = value.rpartition(",")[0]  # of a sweep: algorithm=dpo,p
        return [f"{key}={before}{',' if before else ''}{name}" for name in options.get(key, [])]
    if dot and group in SCHEMAS:
        return [f"{group}.{f.name}=" for f in fields(SCHEMAS[group])]
    if dot:  # of the option chosen on the line, or else by default
        defaults = {name: option for entry in table["defaults"] if isinstance(entry, dict) for name, option in entry.items()}
        name = str(chosen.get(group, defaults.get(group)))
        known_plugin = group in GROUPS and name in registry.names(group)
        return [f"{group}.{field}=" for field in field_names(registry.get(group, name))] if known_plugin else []
    plain = [f"{key}=" for key, value in table.items() if key not in ("defaults", "hydra") and not isinstance(value, dict)]
    return [f"{group}=" for group in options] + [f"{group}." for group in (*GROUPS, *SCHEMAS)] + plain
