"""data=reasoning_gym: its rows, its scorers, and what is told of a mistake."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

import alignzoo
from alignzoo.errors import UserError
from alignzoo.tasks.reasoning import AnswerIn, ReasoningGym

SMALL = {"chain_sum": {"weight": 3, "max_terms": 2, "max_digits": 1}, "spell_backward": {"max_word_len": 4}}


def source(**settings: object) -> ReasoningGym:
    pytest.importorskip("reasoning_gym")
    return ReasoningGym(**({"size": 8, "heldout_size": 4, "generators": SMALL} | settings))


def test_rows_are_these_in_every_process() -> None:
    train, heldout, report = source(generators={}, size=4, heldout_size=2, ask="").rows()
    assert [(row.values["prompt"][0]["content"], row.remaining["answer"]) for row in train] == [
        ('How many times does the letter "e" appear in the text: "network of tubes"?', "2"),
        ("State the final answer to the following arithmetic problem: 3 + 7 =", "10"),
        ("Spell this word backward (example: sun -> nus): lie", "eil"),
        ("State the final answer to the following arithmetic problem: 8 + 7 =", "15"),
    ]
    assert heldout[1].remaining == {"generator": "chain_sum", "number": 0, "heldout": True, "answer": "12"}
    assert report == {"rows": 6}
    assert source(ask="Only this.").rows()[0][0].values["prompt"][0]["content"].endswith("\nOnly this.")


def test_generators_come_in_proportion_and_no_held_out_question_is_trained() -> None:
    train, heldout, report = source(size=400, heldout_size=60).rows()
    assert Counter(row.remaining["generator"] for row in heldout) == {"chain_sum": 45, "spell_backward": 15}
    dropped = report["training_rows_of_heldout_prompts_dropped"]
    assert dropped > 0 and len(train) == 400 - dropped  # of sums of two digits there are few
    assert not {row.key for row in train} & {row.key for row in heldout}
    other = source(size=8, task_seed=1).rows()[0]
    assert {row.key for row in other} != {row.key for row in train[:8]}


def test_the_reward_is_the_generators_scorer(answered) -> None:
    """By reasoning-gym's rules: a whole answer is 1; one that is in a longer text its share of that."""
    data = source()
    rows, _, _ = data.rows()
    sums = [row for row in rows if row.remaining["generator"] == "chain_sum"][:3]
    words = [row for row in rows if row.remaining["generator"] == "spell_backward"][:1]
    right = [str(row.remaining["answer"]) for row in sums + words]
    scores = data.reward()(answered(sums + words, [right[0] + "\n", "no", right[2] + " " * 5 + "x", right[3].upper()]))
    share = len(right[2]) / (len(right[2]) + 6)
    torch.testing.assert_close(scores.total, torch.tensor([1.0, 0.0, share, 1.0]), rtol=0, atol=1e-6)
    assert [value if value == value else None for value in scores.parts["spell_backward"].tolist()] == [None, None, None, 1.0]
    torch.testing.assert_close(scores.parts["chain_sum"][:3], scores.total[:3])
    tagged = source(answer=AnswerIn.tag)
    texts = [f"It is <answer> {right[0]} </answer>.", right[1], "", f"<answer>{right[3]}</answer>"]
    assert tagged.reward()(answered(sums + words, texts)).total.tolist() == [1.0, 0.0, 0.0, 1.0]


def test_a_scorer_that_raises_is_a_failure_of_its_row(answered, monkeypatch: pytest.MonkeyPatch) -> None:
    data = source()
    rows, _, _ = data.rows()
    monkeypatch.setattr(data.task(rows[0].remaining["generator"], False), "score_answer", lambda *_: 1 / 0)
    failed = data.reward()(answered(rows[:1], ["1"])).failed
    assert failed == {0: f"the scorer of {rows[0].remaining['generator']} raised ZeroDivisionError: division by zero"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"generators": {"spell_backwards": 1}}, "data.generators.spell_backwards: .*Did you mean 'spell_backward'"),
        ({"generators": {"word_ladder": 1}}, "data.generators.word_ladder: its questions differ from process to process"),
        ({"generators": {"chain_sum": {"max_term": 2}}}, "chain_sum.max_term: no such setting. Did you mean 'max_terms'"),
        ({"generators": {"chain_sum": {"max_terms": 0}}}, "data.generators.chain_sum={'max_terms': 0}: max_terms must be"),
        (
            {"generators": {"chain_sum": {"seed": 3}}},
            "data.generators.chain_sum.seed=3 is the source's to say: give data.task_seed",
        ),
        ({"generators": {"chain_sum": -1}}, "data.generators.chain_sum.weight=-1 is out of range"),
        (
            {"generators": {"chain_sum": {"max_digits": 1, "max_terms": 2}}, "heldout_size": 3000},
            "training questions are held out",
        ),
    ],
)
def test_mistakes_are_told(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        source(**settings).rows()


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    remedy = r"which isn't installed: pip install 'alignzoo\[reasoning\]'$"
    with pytest.raises(UserError, match=rf"^data=reasoning_gym needs reasoning_gym\S*, {remedy}"):
        ReasoningGym().rows()


def test_it_trains(tmp_path: Path, template: str) -> None:
    pytest.importorskip("reasoning_gym")
    run = [
        "data=reasoning_gym", "algorithm=rloo", "data.size=16", "data.heldout_size=8", "trainer.max_steps=1", "trainer.batch=4",
        "rollout.prompts=2", "rollout.samples=2", "generation.max_new_tokens=4", "trainer.eval_prompts=8",
        "model.config.hidden_size=16", "model.config.intermediate_size=16", "model.config.num_hidden_layers=1",
        "data.generators={chain_sum: {weight: 2, max_terms: 2}, letter_counting: 1}", template, f"run_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    metrics = alignzoo.train(alignzoo.compose(run))["metrics"]
    assert {"reward", "reward/chain_sum", "reward/letter_counting"} <= metrics.keys()
    assert 0 <= metrics["reward"] <= 1
