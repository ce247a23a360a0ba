"""The floors of the house, from the top down: a room imports from lower floors only. `python docs/floors.py` draws them anew.

A room is a folder of alignzoo/, without the folders in it, or a file beside them. tests/package/test_layers.py holds the code
to this table, and docs/architecture.md and docs/architecture.svg to what is drawn from it.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS: tuple[dict[str, str], ...] = (
    {"__main__": "python -m alignzoo"},
    {"cli": "the commands, a file each"},
    {"bench": "many runs, one comparison"},
    {
        "testing": "the conformance suite and its toy task",
        "report": "the comparison as a page",
        "pipeline": "runs after each other, sweeps, and what train does with a config",
    },
    {"runs": "one run: its folder, display and results; samples of it, and beside another's"},
    {"engine": "one transformers.Trainer subclass: rollouts, checkpoints, evaluation, costs, hosted trainers"},
    {"making": "data made by sampling and labelling", "tasks": "data that is made up, with a verifier as its reward"},
    {"rewards": "functions, models, text, people, servers, sums, and what every score passes"},
    {"label": "people: journal, items, requests, the page", "data/exact": "the task whose optimum is known"},
    {"data": "sources, views, the encoder"},
    {"models": "networks by role, references, tokenizers"},
    {
        "models/sampling": "the loops behind generate",
        "config": "Hydra, the registry of plugins, stages",
    },
    {"setup": "a run as typed objects"},
    {
        "models/forward": "layouts and kernels behind states",
        "kl": "the tie to the reference",
        "contracts": "what an algorithm, a reward, a reference, a data source and a hosted trainer are",
        "statistics": "intervals, comparison, agreement, calibration, frontier",
    },
    {"settings": "the schemas of the config groups", "common": "names of files, disk, randomness, words, fingerprints"},
    {"functional": "the formulas", "batch": "the records", "errors": "a user's mistake"},
)
PUBLIC = ("contracts", "kl", "batch", "functional", "settings")  # all that a plugin of this repository imports of alignzoo
MARKS = "<!-- floors: drawn by docs/floors.py -->", "<!-- /floors -->"
WIDTH, HEIGHT, GAP = 900, 34, 6


def text() -> str:
    """The table for a page: floor, room, what is in it."""
    lines = [
        f"{number if first else '':>2}  {room:16} {meaning}"
        for number, rooms in zip(range(len(FLOORS), 0, -1), FLOORS, strict=True)
        for first, (room, meaning) in zip([True] + [False] * len(rooms), rooms.items(), strict=False)
    ]
    return "\n".join([MARKS[0], "```text", *lines, "```", MARKS[1]])


def svg() -> str:
    """A row a floor, its rooms side by side; green is what plugins see."""
    boxes = []
    for row, rooms in enumerate(FLOORS):
        width = (WIDTH - GAP) / len(rooms)
        for column, room in enumerate(rooms):
            x, y = GAP + column * width, GAP + row * (HEIGHT + GAP)
            fill, stroke = ("#dcebdd", "#3f7a48") if room in PUBLIC else ("#eef2f7", "#5b6b7f")
            place = f'x="{x:.0f}" y="{y}" width="{width - GAP:.0f}" height="{HEIGHT}" rx="5"'
            middle = f'x="{x + (width - GAP) / 2:.0f}" y="{y + 22}" text-anchor="middle"'
            boxes.append(f'  <rect {place} fill="{fill}" stroke="{stroke}"/>')
            boxes.append(f'  <text {middle} fill="#1c2733">{room}</text>')
    height = GAP + len(FLOORS) * (HEIGHT + GAP)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif"'
    title = "  <title>The floors of alignzoo: a room imports from lower floors only; plugins see the green ones</title>"
    return "\n".join([f'{head} font-size="15" role="img">', title, *boxes, "</svg>", ""])


def drawn(page: str) -> str:
    """A page with the table between its marks."""
    return re.sub(f"{MARKS[0]}.*?{MARKS[1]}", lambda _: text(), page, flags=re.DOTALL)


if __name__ == "__main__":
    (ROOT / "docs/architecture.svg").write_text(svg(), "utf-8")
    page = ROOT / "docs/architecture.md"
    page.write_text(drawn(page.read_text("utf-8")), "utf-8")
