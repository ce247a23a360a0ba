"""`alignzoo plugin new`: a small, complete, working plugin from the templates."""

from __future__ import annotations

import importlib.util
import keyword
from pathlib import Path
from string import Template
from typing import Any

import yaml

from alignzoo.config.registry import ENTRY_POINTS, Registry
from alignzoo.errors import UserError, nearest

TEMPLATES = Path(__file__).parent / "templates"


def kinds() -> dict[str, dict[str, Any]]:
    """What can be made, and what its card says."""
    return yaml.safe_load((TEMPLATES / "kinds.yaml").read_text("utf-8"))


def make(name: str, kind: str, into: Path, package: bool = False) -> list[Path]:
    """The files made: `into`/NAME/ with code, card and test; with `package`, `into`/alignzoo-NAME/, which can be installed.

    Raises UserError for a name that is taken or is no identifier, an unknown kind, and a folder that is not empty.
    """
    cards = kinds()
    if kind not in cards:
        raise UserError(f"no kind {kind!r}.{nearest(kind, cards)} Kinds: {', '.join(cards)}")
    about = cards[kind]
    _check_name(name, about["group"], into, package)
    root = into / f"alignzoo-{name.replace('_', '-')}" if package else into / name
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root} exists and is not an empty folder: choose another name, or --into=FOLDER")
    values = {
        "name": name, "Class": "".join(part.capitalize() for part in name.split("_")),
        "Title": name.replace("_", " ").capitalize(),
        "module": f"{name}.{name}" if package else name, "distribution": root.name, "group": about["group"],
        "family": about["family"], "needs": f"[{', '.join(about['needs'])}]", "data": about["data"],
    }  # fmt: skip
    inner = root / name if package else root
    files = {inner / f"{name}.py": f"code/{kind}.py", inner / "README.md": "README.md"}
    tests = root / "tests" if package else root
    files |= {tests / f"test_{name}.py": f"test/{kind}.py"}
    if package:
        files |= {root / "pyproject.toml": "package/pyproject.toml", inner / "__init__.py": ""}
    for path, template in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (TEMPLATES / f"{template}.txt").read_text("utf-8") if template else ""
        path.write_text(Template(text).substitute(values), "utf-8")
    return list(files)


def _check_name(name: str, group: str, into: Path, package: bool) -> None:
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        suggestion = "".join(c if c.isalnum() else "_" for c in name).strip("_").lower()
        hint = f" such as {suggestion}" if suggestion.isidentifier() and not keyword.iskeyword(suggestion) else ""
        raise UserError(f"{name!r} is no name for a plugin: letters, digits and underscores, not first a digit{hint}")
    option = next(config_group for config_group, kinds in ENTRY_POINTS.items() if group in kinds)
    registry = Registry(into if into.is_dir() and not package else None)
    if name in registry.names(option):
        origin = next(plugin.origin for plugin in registry.everything(option) if plugin.name == name)
        raise UserError(f"{option} {name!r} exists: in {origin}. Choose another name")
    if package and importlib.util.find_spec(name) is not None:
        raise UserError(f"{name!r} is the name of an installed Python module, which the package would hide: choose another")
