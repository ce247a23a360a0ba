"""Formats around prompts, and examples before them."""

import json

import pytest

from alignzoo.batch import Completions, Pairs
from alignzoo.rewards.answers import ExactMatch, Numeric, Regex
from alignzoo.rewards.text_reward import Written
from alignzoo.settings import UserError

ROWS = [{"prompt": f"{i}+1=", "completion": f" {i + 1}"} for i in range(6)]


def prompts(tables):
    batch = tables.train.batch(range(len(tables.train)))
    return batch.prompts.text if isinstance(batch, Completions) else batch.text


@pytest.fixture
def wide(context):
    context.context_length = 400
    return context


def test_examples_are_other_training_rows_and_the_same_whatever_rows_there_are(source, wide):
    found = prompts(source(ROWS, shots=2).tables(Completions, wide))
    solved = {f"{i}+1= {i + 1}" for i in range(6)}
    for i, prompt in enumerate(found):
        *shown, own = prompt.split("\n\n")
        assert own == f"{i}+1=" and len(set(shown)) == 2 and set(shown) <= solved - {f"{i}+1= {i + 1}"}
    assert len({tuple(prompt.split("\n\n")[:-1]) for prompt in found}) > 1, "not the same for all"
    assert prompts(source(ROWS, shots=2).tables(Completions, wide)) == found
    assert prompts(source(list(reversed(ROWS)), shots=2).tables(Completions, wide)) == list(reversed(found))
    assert prompts(source(ROWS, shots=2, shot_seed=1).tables(Completions, wide)) != found


def test_held_out_prompts_get_examples_of_the_training_rows_alone(tmp_path, source, wide):
    other = tmp_path / "heldout.jsonl"
    other.write_text("\n".join(json.dumps({"prompt": f"h{i}=", "completion": "never"}) for i in range(3)))
    tables = source(ROWS, heldout_path=str(other), shots=5).tables(Completions, wide)
    for text in [*prompts(tables), *tables.prompts.batch(range(3)).text]:
        assert "never" not in text and text.count("\n\n") == 5
    assert tables.report["shots"] == 5


def test_a_row_of_the_same_prompt_is_never_its_example(source, wide):
    rows = [*ROWS, {"prompt": "0+1=", "completion": " one"}]
    found = prompts(source(rows, shots=5).tables(Completions, wide))
    assert all("0+1= " not in prompt for prompt in found if prompt.endswith("\n\n0+1="))


def test_examples_are_what_is_preferred_rated_or_ranked_best(source, wide):
    pairs = [{"prompt": f"p{i} ", "chosen": f"good{i}", "rejected": "bad"} for i in range(3)]
    batch = source(pairs, shots=2).tables(Pairs, wide).train.batch([0])
    assert sorted(batch.chosen.prompts.text[0].split("\n\n")) == ["p0 ", "p1 good1", "p2 good2"]
    ranked = [{"prompt": f"p{i} ", "completions": ["bad", f"best{i}"], "ranks": [2, 1]} for i in range(2)]
    assert source(ranked, shots=1).tables(Pairs, wide).train.batch([0]).chosen.prompts.text == ["p1 best1\n\np0 "]
    rated = [{"prompt": f"p{i} ", "completion": "x", "label": i != 1} for i in range(3)]
    assert "p1" not in "".join(prompts(source(rated, shots=1).tables(Completions, wide)))
    with pytest.raises(UserError, match=r"data.shots=3: there are 2 other prompts with an answer"):
        source(rated, shots=3).tables(Completions, wide)


def test_in_a_conversation_examples_are_turns_after_the_system_message(source, wide):
    def row(i):
        said = zip(("system", "user", "assistant"), ("sys", f"q{i}", f"a{i}"), strict=True)
        return {"messages": [{"role": role, "content": text} for role, text in said]}

    found = source([row(0), row(1)], shots=1, prompt_format="Q: {prompt}?").tables(Completions, wide)
    assert prompts(found)[0] == "system: sys\nuser: Q: q1?\nassistant: a1\nuser: Q: q0?\nassistant: "
    assert found.train.batch([0]).text == ["a0"]
    plain = source(ROWS[:2], shots=1, chat=True).tables(Completions, wide)
    assert prompts(plain)[0] == "user: 1+1=\nassistant:  2\nuser: 0+1=\nassistant: "


def test_a_format_stands_around_prompts_and_the_split_does_not_depend_on_it(source, wide):
    asked = source(ROWS, prompt_format="question").tables(Completions, wide)
    assert prompts(asked)[0] == "Question: 0+1=\nAnswer:"
    both = source(ROWS, prompt_format="question", shots=1, shot_format="{prompt}{completion}; ").tables(Completions, wide)
    assert prompts(both)[0].startswith("Question: ") and prompts(both)[0].endswith("; Question: 0+1=\nAnswer:")
    bare, dressed = (source(ROWS, heldout=0.4, **own).rows() for own in ({}, {"prompt_format": "reasoning", "shots": 1}))
    assert [row["completion"] for row in bare[1]] == [row["completion"] for row in dressed[1]] != []
    assert "Let's think step by step" in dressed[1][0]["prompt"]
    columns = asked.train.batch([0]).prompts.columns
    assert columns["prompt"] == ["0+1="], "rewards still find the question"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"prompt_format": "reasonin"},
            "must hold {prompt} and nothing else in braces, or a name: .* Did you mean 'reasoning'",
        ),
        ({"prompt_format": "{prompt.__class__}"}, "must hold {prompt}"),
        ({"prompt_format": "{prompt"}, "data.prompt_format='{prompt': "),
        ({"shot_format": "{prompt}"}, "must hold {prompt} and {completion}"),
        ({"shots": -1}, "data.shots=-1 is out of range"),
    ],
)
def test_formats_that_are_none(source, settings, said):
    with pytest.raises(UserError, match=said):
        source(ROWS, **settings)


def test_rewards_find_the_answer_that_the_reasoning_format_asks_for():
    def one(text):
        return Written(text, "", {"reference": "Paris", "answer": "6 x 7 = 42\n#### 42"}, 1)

    reasoned = "France has 1 capital.\n#### Paris"
    assert ExactMatch(marker="####").rate(one(reasoned)) == 1
    assert ExactMatch().rate(one(reasoned)) == ExactMatch(marker="####").rate(one("Paris")) == 0
    assert Regex(pattern=r"#### *Paris").rate(one(reasoned)) == 1
    assert Numeric().rate(one("7 x 6 is 42, not 41\n#### 42")) == 1 and Numeric().rate(one("it is 42\n#### 41")) == 0
