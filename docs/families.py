"""The family tree of the algorithms, drawn from the zoo itself: `python docs/families.py` writes docs/families.svg anew.

A family's algorithms hang below the class that holds what they share, presets below the algorithm that they set;
tests/docs/test_families.py holds the picture to the zoo.
"""

from __future__ import annotations

from collections import defaultdict
from html import escape
from pathlib import Path

from alignzoo.config.needs import by_family
from alignzoo.config.registry import Registry
from alignzoo.contracts import Algorithm, OnlineAlgorithm

PICTURE = Path(__file__).with_name("families.svg")
COLUMNS, WIDTH, LINE, INDENT = 4, 250, 19, 16
FAMILY, SHARED, ALGORITHM, PRESET = ("#1c2733", "bold"), ("#5b6b7f", "italic"), ("#3f7a48", "normal"), ("#1c2733", "normal")
Tree = dict[str, "Tree"]
Row = tuple[int, str, tuple[str, str]]


def families() -> dict[str, list[Row]]:
    """Of each family its rows: how far in, what, and how it is written."""
    registry, trees, looks = Registry(), defaultdict[str, Tree](dict), dict[str, tuple[str, str]]()
    classes = {p.name: registry.load("algorithm", p.name) for p in registry.everything("algorithm")}
    by_class = {classes[p.name]: p.name for p in registry.everything("algorithm") if not p.preset}
    for plugin, card in by_family(registry.everything("algorithm")):
        kind = classes[plugin.name]
        shared = [base for base in kind.__mro__[:0:-1] if issubclass(base, Algorithm)]
        above = [base for base in shared if base not in (Algorithm, OnlineAlgorithm)]
        path = [by_class.get(base, base.__name__) for base in above] + ([by_class[kind]] if plugin.preset else [])
        looks |= {name: ALGORITHM if name in classes else SHARED for name in path if name not in looks}
        looks[plugin.name] = PRESET if plugin.preset else ALGORITHM
        node = trees[card.family]
        for name in [*path, plugin.name]:
            node = node.setdefault(name, {})
    return {family: _rows(tree, looks) for family, tree in sorted(trees.items())}


def _rows(tree: Tree, looks: dict[str, tuple[str, str]], depth: int = 1) -> list[Row]:
    return [row for name, below in tree.items() for row in [(depth, name, looks[name]), *_rows(below, looks, depth + 1)]]


def svg() -> str:
    """The families in columns of about one length."""
    columns: list[list[Row]] = [[] for _ in range(COLUMNS)]
    for family, rows in sorted(families().items(), key=lambda item: -len(item[1])):
        min(columns, key=len).extend([(0, family, FAMILY), *rows, (0, "", FAMILY)])
    lines = []
    for x, column in enumerate(columns):
        for y, (depth, name, (fill, style)) in enumerate(column, 1):
            weight = 'font-weight="bold"' if style == "bold" else f'font-style="{style}"'
            place = f'x="{10 + x * WIDTH + depth * INDENT}" y="{y * LINE}"'
            if depth:
                lines.append(f'  <path d="M{x * WIDTH + depth * INDENT - 2} {y * LINE - 5}h8" stroke="#b8c2cf"/>')
            lines.append(f'  <text {place} fill="{fill}" {weight}>{escape(name)}</text>')
    size = f'viewBox="0 0 {COLUMNS * WIDTH} {LINE * (max(map(len, columns)) + 1)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="system-ui, sans-serif" font-size="14" role="img">'
    title = "  <title>The algorithms by family: in italics what several share, in green algorithms, in black presets</title>"
    ground = '  <rect width="100%" height="100%" fill="#fff"/>'
    return "\n".join([head, title, ground, *(line for line in lines if "></text>" not in line), "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(svg(), "utf-8")
