"""Make the prompts and continuations that are shipped with the model.

    python -m benchmarks.stories.prompts DATA OUT

Only texts that may be passed on are passed on: those of the African Storybook and StoryWeaver (CC BY, attributed beside them)
and old tales (FairytaleQA, public domain). Openings in the manner of TinyStories are written here, from templates. Stories that
the model was not trained on give the held-out rows, and templates share neither name, animal nor thing between the two.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

from benchmarks.stories.corpus import Story, read

Row = dict[str, str]
LICENCES = {
    "african": "CC-BY-3.0 or CC-BY-4.0, by story",
    "storyweaver": "CC-BY-4.0",
    "fairytaleqa": "public domain",
    "template": "Apache-2.0",
}
SENTENCE = re.compile(r"\S.*?(?<!\bmr)(?<!\bmrs)(?<!\bdr)[.!?]+[\"']*(?=\s|$)")
OPENING = (20, 110)  # characters of a prompt, shortest and longest
CONTINUATION = (60, 300)  # of a continuation, which ends with a sentence
LONG = 2000  # characters of a story that gives several passages
PASSAGES = 3  # of one story at most
OPENINGS, TEMPLATES, TITLES = (300, 40), (240, 190), (60, 30)  # prompts of each kind: training, held out

WORDS = {
    "name": (["ben", "tom", "anna", "max", "sam", "mia", "jack", "lucy", "tim", "sue"], ["leo", "rose", "nick", "ella"]),
    "animal": (
        ["dog", "cat", "bird", "bear", "frog", "duck", "mouse", "rabbit", "fish", "cow"],
        ["fox", "horse", "lion", "turtle"],
    ),
    "thing": (
        ["ball", "hat", "boat", "cake", "book", "box", "kite", "flower", "car", "drum"],
        ["doll", "shell", "lamp", "ring"],
    ),
}
SHARED = {
    "mood": ["little", "big", "happy", "sad", "brave", "old"],
    "look": ["red", "big", "shiny", "new", "pretty", "small"],
    "place": ["park", "garden", "forest", "lake", "village", "beach"],
    "child": ["happy boy", "kind boy", "little boy", "brave child", "clever child"],
}
SHAPES = (
    "once upon a time there was a {mood} {animal} named {name}.",
    "once upon a time, a {mood} {animal} lived near the {place}.",
    "one day, {name} went to the {place} with a {mood} {animal}.",
    "one day, {name} found a {look} {thing} in the {place}.",
    "once there was a {child} who loved a {look} {thing}.",
    "there was a {mood} {animal} who wanted a {look} {thing}.",
    "{name} lost a {look} {thing} near the {place} and was very sad.",
    "a {mood} {animal} came to the {place}, and {name} said,",
)
TITLE_SHAPES = (
    "the {mood} {animal} and the {look} {thing}\n",
    "{name} and the {mood} {animal}\n",
    "the {thing} in the {place}\n",
)


def sentences(text: str) -> list[tuple[int, int]]:
    """Where the sentences of a story begin and end."""
    return [match.span() for match in SENTENCE.finditer(text)]


def passages(story: Story) -> Iterator[Row]:
    """Sentences with what follows each: the opening, and in long stories the beginnings of paragraphs of the middle."""
    spans = sentences(story.text)
    paragraphs = [place for place, (start, _) in enumerate(spans) if start == 0 or story.text[start - 1] == "\n"]
    wanted = [i * len(paragraphs) // PASSAGES for i in range(PASSAGES)] if len(story.text) > LONG else [0]
    for first in [paragraphs[number] for number in wanted if number < len(paragraphs)]:
        row = _passage(story, spans[first:])
        if row:
            yield row | {"kind": "opening" if first == 0 else "middle"}


def _passage(story: Story, spans: list[tuple[int, int]]) -> Row | None:
    if len(spans) < 2 or not OPENING[0] <= spans[0][1] - spans[0][0] <= OPENING[1]:
        return None
    (start, cut), rest = spans[0], spans[1:]
    ends = [end for _, end in rest if CONTINUATION[0] <= end - cut <= CONTINUATION[1]]
    if not ends:
        return None
    return _row(story.source) | {"prompt": story.text[start:cut], "completion": story.text[cut : ends[-1]]}


def templated(shapes: Iterable[str], heldout: bool, count: int, rng: random.Random) -> list[Row]:
    """`count` different texts of these shapes, as many of each as can be."""
    words = {kind: both[heldout] for kind, both in WORDS.items()} | SHARED
    pools = [_filled(shape, words) for shape in shapes]
    for pool in pools:
        rng.shuffle(pool)
    turns = [text for number in range(max(map(len, pools))) for pool in pools for text in pool[number : number + 1]]
    kind = "title" if turns[0].endswith("\n") else "opening"
    return [_row("template") | {"prompt": text, "kind": kind} for text in turns[:count]]


def _filled(shape: str, words: dict[str, list[str]]) -> list[str]:
    used = [kind for kind in words if f"{{{kind}}}" in shape]
    chosen = product(*(words[kind] for kind in used))
    texts = [shape.format(**dict(zip(used, choice, strict=True))) for choice in chosen]
    return [re.sub(r"\ba (?=[aeiou])", "an ", text) for text in texts]


def titles(data: Path, train: list[Story], heldout: list[Story]) -> tuple[list[Row], list[Row]]:
    """The titles of old tales with how each begins, parted as the tales are."""
    with gzip.open(data / "fairytaleqa_qa.jsonl.gz", "rt", encoding="utf-8") as lines:
        begins = {row["story"]: row["context"] for row in reversed([json.loads(line) for line in lines])}
    parts: tuple[list[Row], list[Row]] = ([], [])
    for rows, stories in zip(parts, (train, heldout), strict=True):
        tales = {_letters(s.text)[:60]: s for s in stories if s.source == "fairytaleqa"}
        for name, context in sorted(begins.items()):
            tale = tales.get(_letters(context)[:60])
            ends = [end for _, end in sentences(tale.text) if CONTINUATION[0] <= end <= CONTINUATION[1]] if tale else []
            if tale and ends:
                title = name.lower().replace("-", " ") + "\n"
                rows.append(_row("fairytaleqa") | {"prompt": title, "completion": tale.text[: ends[-1]], "kind": "title"})
    return parts


def _letters(text: str) -> str:
    return "".join(re.findall("[a-z]", text.lower()))


def _row(source: str) -> Row:
    return {"source": source, "licence": LICENCES[source]}


def unique(rows: Iterable[Row], taken: Iterable[Row] = ()) -> list[Row]:
    """The first row of each prompt, without those of `taken`."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row["prompt"], row)
    return [first[prompt] for prompt in first if prompt not in {row["prompt"] for row in taken}]


def make(data: Path, seed: int) -> dict[str, list[Row]]:
    """The rows of each file."""
    rng = random.Random(seed)
    stories = [[s for s in read(data / f"{name}.jsonl.gz") if s.source in LICENCES] for name in ("train", "valid")]
    named = titles(data, *stories)
    files: dict[str, list[Row]] = {}
    for heldout, name in ((True, "heldout"), (False, "train")):
        continuations = [row for story in stories[heldout] for row in passages(story)] + named[heldout]
        files[f"continuations_{name}"] = unique(continuations, files.get("continuations_heldout", []))
        openings = [{k: v for k, v in row.items() if k != "completion"} for row in continuations if row["kind"] == "opening"]
        tales = [{k: v for k, v in row.items() if k != "completion"} for row in named[heldout]]
        rng.shuffle(openings)
        rng.shuffle(tales)
        half = TITLES[heldout] // 2
        rows = [
            *openings[: OPENINGS[heldout]],
            *templated(SHAPES, heldout, TEMPLATES[heldout], rng),
            *tales[:half],
            *templated(TITLE_SHAPES, heldout, TITLES[heldout] - half, rng),
        ]
        files[f"prompts_{name}"] = unique(rows, files.get("prompts_heldout", []))
    return files


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stories.prompts", description="Make the prompts that are shipped."
    )
    parser.add_argument("data", type=Path, help="the folder of train.jsonl.gz, valid.jsonl.gz and fairytaleqa_qa.jsonl.gz")
    parser.add_argument("out", type=Path, help="the folder of the files made")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, rows in make(options.data, options.seed).items():
        text = "".join(json.dumps(dict(sorted(row.items())), ensure_ascii=False) + "\n" for row in rows)
        (options.out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}: {len(rows)} rows, {len(text) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
