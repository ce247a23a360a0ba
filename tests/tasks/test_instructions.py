"""data=instructions: its rows, and the verifier's verdicts on answers written by hand."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import alignzoo
from alignzoo.common.words import sentences, words
from alignzoo.data.rows import Row, canonical
from alignzoo.errors import UserError
from alignzoo.rewards.text_reward import Written
from alignzoo.tasks.instructions import Instructions, Verifier, verdicts
from alignzoo.tasks.kinds import HELD_OUT, KINDS, TRAINED


def text(row: Row) -> str:
    return row.values["prompt"][0]["content"]


def test_rows_are_these_in_every_process_whatever_their_number() -> None:
    train, heldout, report = Instructions(size=3, heldout_size=2).rows()
    assert [text(row) for row in train] == [
        "give me one fact about roses. use lower case letters only. answer in one short sentence.",
        'What comes to mind when you think of islands? Begin with the word "The". The last character must be a full stop.',
        "how would you describe islands to a child? use lower case letters only.",
    ]
    assert train[1].remaining == {"constraints": {"start": "The", "end": "."}, "kinds": ["start", "full_stop"], "new": False}
    assert text(heldout[1]) == "Say what people like about elephants. The last character must be an exclamation mark."
    assert heldout[1].remaining == {"constraints": {"end": "!"}, "kinds": ["exclamation"], "new": True}
    assert report == {"rows": 5}
    assert [row.key for row in Instructions(size=40).rows()[0][:3]] == [row.key for row in train]
    assert not {row.key for row in Instructions(task_seed=1, size=40).rows()[0]} & {row.key for row in train}


def test_held_out_subjects_and_kinds_are_never_trained() -> None:
    train, heldout, _ = Instructions(size=600, heldout_size=100).rows()
    assert len({text(row) for row in train}) == 600 and len({text(row) for row in heldout}) == 100
    assert {kind for row in train for kind in row.remaining["kinds"]} == {*TRAINED}
    assert {kind for row in heldout[1::2] for kind in row.remaining["kinds"]} == {*HELD_OUT}
    assert {kind for row in heldout[::2] for kind in row.remaining["kinds"]} == {*TRAINED}
    assert [row.remaining["new"] for row in heldout] == [False, True] * 50
    assert {*TRAINED} | {*HELD_OUT} == {*KINDS} and not {*TRAINED} & {*HELD_OUT}

    def questions(rows: list[Row]) -> set[str]:
        return {part.lower() for row in rows for part in [text(row)[: text(row).find(sentences(text(row))[1])].strip()]}

    assert not questions(train) & questions(heldout)
    counts = Counter(len(row.remaining["kinds"]) for row in train)
    assert counts.keys() == {1, 2, 3} and 0.4 < counts[1] / 600 < 0.6


def test_prompts_read_as_people_write() -> None:
    """Sentences of words, one space apart, what is asked in them as the verifier has it, and nothing asked that can't be."""
    rows = [row for side in Instructions(size=400, heldout_size=100).rows()[:2] for row in side]
    for row in rows:
        written, asked = text(row), row.remaining["constraints"]
        assert written[-1] == "." and not {"{", "}", "\n"} & {*written} and "  " not in written
        assert len(sentences(written)) == 1 + len(row.remaining["kinds"])
        assert written.islower() or written.isupper() or all(part[0].isupper() for part in sentences(written))
        for value in asked.values():
            word = value[0] if isinstance(value, list) else value
            if isinstance(word, str) and word.isalpha() and "case" not in asked:
                assert f'"{word}"' in written
            if isinstance(value, int) and value > 5:
                assert str(value) in words(written)
        about = [name for kind in row.remaining["kinds"] for name in KINDS[kind].about]
        assert len(about) == len({*about})


@pytest.mark.parametrize(
    ("kind", "asked", "follows", "fails"),
    [
        ("lower", {"case": "lower"}, "rivers flow, 2 of them.", "Rivers flow."),
        ("lower", {"case": "lower"}, "éa", "12"),
        ("upper", {"case": "upper"}, "RIVERS FLOW!", "RIVERS flow!"),
        ("most_words", {"most_words": 3}, "Rivers flow down.", "Rivers flow down hills."),
        ("least_words", {"least_words": 3}, "Rivers flow down.", "Rivers flow."),
        ("between_words", {"least_words": 2, "most_words": 3}, "Rivers flow.", "Rivers."),
        ("include", {"include": ["day"]}, "Every Day, water.", "Daylight on the water."),
        ("forbid", {"forbid": ["the"]}, "Then they flow.", "The river."),
        ("no_commas", {"forbid": [","]}, "Rivers flow; they do.", "Rivers, flow"),
        ("start", {"start": "The"}, " The river.", "A river. The sea."),
        ("full_stop", {"end": "."}, "They flow. \n", "They flow!"),
        ("exclamation", {"end": "!"}, "They flow!", "They! flow."),
        ("one_sentence", {"least_sentences": 1, "most_sentences": 1}, "They flow 3.5 miles.", "They flow. And end."),
        ("two_sentences", {"least_sentences": 2, "most_sentences": 2}, "Do they? They do.", "They do"),
    ],
)
def test_verdicts(kind: str, asked: dict[str, object], follows: str, fails: str) -> None:
    def verdict(answer: str, cut: bool = False) -> dict[str, bool]:
        return verdicts(Written(answer, "", {"kinds": [kind], "constraints": asked}, 0), cut)

    assert tuple(asked) == KINDS[kind].names
    assert (verdict(follows), verdict(fails), verdict(" ...")) == ({kind: True}, {kind: False}, {kind: False})
    ended = {"most_words", "between_words", "full_stop", "exclamation", "one_sentence", "two_sentences"}
    assert verdict(follows, cut=True) == {kind: kind not in ended}


def test_the_reward_is_the_share_that_is_followed(answered) -> None:
    """By hand: 1 of 2, 2 of 2 but cut where one has to end, and a held-out kind; parts are of the rows that have them."""
    raw = [
        {"kinds": ["lower", "full_stop"], "constraints": {"case": "lower", "end": "."}, "new": False},
        {"kinds": ["include", "most_words"], "constraints": {"include": ["sea"], "most_words": 9}, "new": False},
        {"kinds": ["no_commas"], "constraints": {"forbid": [","]}, "new": True},
    ]
    rows = [canonical({"prompt": "p", **columns}, "row", {}) for columns in raw]
    c = answered(rows, ["It flows.", "the sea", "yes"], cut=[1])
    scores = Verifier()(c)
    assert scores.total.tolist() == [0.5, 0.5, 1.0]
    parts = {name: [None if value != value else value for value in part.tolist()] for name, part in scores.parts.items()}
    assert {name: part for name, part in parts.items() if part != [None] * 3} == {
        "lower": [0.0, None, None], "full_stop": [1.0, None, None], "include": [None, 1.0, None],
        "most_words": [None, 0.0, None],
        "no_commas": [None, None, 1.0], "trained_kinds": [0.5, 0.5, None], "new_kinds": [None, None, 1.0],
    }  # fmt: skip
    assert Verifier(strict=True)(c).total.tolist() == [0.0, 0.0, 1.0]


def test_it_trains_and_evaluates_by_kind(tmp_path: Path, template: str) -> None:
    run = [
        "data=instructions", "algorithm=grpo", "data.size=16", "data.heldout_size=8", "trainer.max_steps=1", "trainer.batch=4",
        "rollout.prompts=2", "rollout.samples=2", "generation.max_new_tokens=6", "trainer.eval_prompts=8",
        "model.config.hidden_size=16", "model.config.intermediate_size=16", "model.config.num_hidden_layers=1",
        "trainer.logging_steps=1", template, f"run_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    summary = alignzoo.train(alignzoo.compose(run))
    metrics = summary["metrics"]
    mean = (metrics["reward/trained_kinds"] + metrics["reward/new_kinds"]) / 2  # four rows each
    assert metrics["reward"] == pytest.approx(mean, abs=1e-6)
    seen = {kind for row in Instructions(size=1, heldout_size=8).rows()[1] for kind in row.remaining["kinds"]}
    assert {name.removeprefix("reward/") for name in metrics if name.startswith("reward/")} == seen | {
        "trained_kinds",
        "new_kinds",
    }
    assert all(torch.isfinite(torch.tensor(value)) for name, value in metrics.items() if name.startswith("reward"))
    assert "NaN" not in (tmp_path / "run" / "completions.jsonl").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ["lowr"]}, "data.kinds: no kind 'lowr'. Did you mean 'lower'"),
        ({"heldout_kinds": ["include"]}, "data.heldout_kinds: include is in data.kinds too"),
        ({"kinds": []}, "data.kinds has none"),
        ({"size": 0}, "data.size=0 is out of range"),
        ({"several": 1.5}, r"data.several=1.5 is out of range: must be in \[0, 1\]"),
        ({"kinds": ["full_stop"], "size": 5000}, "data.size=5000: there are not so many prompts of these kinds"),
    ],
)
def test_mistakes_are_told(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Instructions(**settings).rows()


def test_sentences() -> None:
    assert sentences("One. Two? Three") == ["One", "Two", "Three"]
    assert len(sentences('He said "Go!" and went. (Really.)')) == 3
    assert len(sentences("3.5 miles... or so!!")) == 2
    assert sentences("...") == [] and len(sentences("你好。再见。")) == 2
    assert all(a != b for a, b in pairwise(sentences("a. b. c.")))
