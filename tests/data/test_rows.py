"""Any data set's rows with canonical columns, and the split that keeps prompts together."""

import copy
import pickle
import random

import pytest

from alignzoo.data.rows import Messages, Row, UnusableRow, canonical, rebuilt, split, whole
from alignzoo.settings import UserError

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
QUESTION, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def values(raw, **mapping):
    return canonical(raw, "f, line 1", mapping).values


def test_columns_are_renamed_and_put_together():
    row = canonical({"question": "1+1", "n": 2, "answer": "two"}, "f", {"prompt": "{question}=", "completion": "answer"})
    assert row.values == {"prompt": "1+1=", "completion": "two"}
    assert row.columns == {"question": "1+1", "n": 2, "answer": "two", "prompt": "1+1=", "completion": "two"}
    assert row.remaining == {"question": "1+1", "n": 2}


def test_messages_are_parted_at_the_first_answer():
    rest = [ANSWER, QUESTION, ANSWER]
    assert values({"messages": [QUESTION, *rest]}) == {"prompt": [QUESTION], "completion": rest}
    assert values({"messages": [QUESTION]}) == {"prompt": [QUESTION]}


def test_text_has_an_empty_prompt():
    assert values({"text": "once"}) == {"prompt": "", "completion": "once"}


def test_a_pair_without_a_prompt_has_the_whole_words_both_begin_with():
    assert values({"chosen": "the cat sat", "rejected": "the car sat"}) == {
        "prompt": "the",
        "chosen": " cat sat",
        "rejected": " car sat",
    }
    assert values({"chosen": "x", "rejected": "y"})["prompt"] == ""
    assert values({"chosen": "yes", "rejected": "yes sir"}) == {"prompt": "", "chosen": "yes", "rejected": "yes sir"}


def test_a_pair_of_conversations_has_the_messages_both_begin_with():
    other = {"role": "assistant", "content": "b"}
    made = values({"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, other]})
    assert made == {"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [other]}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({**PAIR, "chosen": " "}, "f, line 1: an empty 'chosen' teaches nothing"),
        ({**PAIR, "rejected": "a"}, "f, line 1: 'chosen' equals 'rejected'"),
        ({"chosen": "a", "rejected": "a"}, "f, line 1: 'chosen' equals 'rejected'"),
        ({**PAIR, "chosen": 7}, "'chosen' is 7: must be a string, or a list of messages"),
        ({**PAIR, "chosen": [ANSWER]}, "'chosen' and 'rejected' must both be strings, or both be lists"),
        ({"chosen": "a", "rejected": [ANSWER]}, "'chosen' and 'rejected' must both be strings"),
        ({"prompt": "p", "completion": ""}, "an empty 'completion' teaches nothing"),
        ({"prompt": "p", "completion": "c", "label": "yes"}, "'label' is 'yes': must be true, false or a number"),
        ({"prompt": "p", "completions": ["a", "b"], "ranks": [1]}, "'ranks' must hold one number for each of the 2"),
        ({"prompt": "p", "completions": "ab", "ranks": [1, 2]}, "'completions' is 'ab': must be a list"),
        ({"prompt": "p", "completions": ["a", ""], "ranks": [1, 2]}, "an empty 'completions' teaches nothing"),
        ({"messages": ["hi"]}, r"'messages' is \['hi'\]: must be a string, or a list of messages"),
        ({"prompt": [QUESTION], "completion": [{"role": "assistant", "content": ""}]}, "an empty 'completion'"),
    ],
)
def test_a_row_that_teaches_nothing_is_named(raw, message):
    with pytest.raises(UnusableRow, match=message):
        values(raw)


def test_a_column_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"f, line 1: data.columns.prompt='quesion' .* Did you mean 'question'\?"):
        values({"question": "q"}, prompt="quesion")
    with pytest.raises(UserError, match=r"data.columns.prompt=.\{nothing\}:. fits none of the columns question"):
        values({"question": "q"}, prompt="{nothing}:")


def rows_of(prompts):
    return [canonical({"prompt": prompt, "completion": f"c{i}"}, f"row {i}", {}) for i, prompt in enumerate(prompts)]


def test_no_prompt_is_on_both_sides_and_the_share_is_about_right():
    draw = random.Random(1)
    rows = rows_of([f"prompt {draw.randrange(900)}" for _ in range(2000)])
    train, heldout = split(rows, 0.2)
    assert {row.key for row in train}.isdisjoint(row.key for row in heldout)
    assert len(train) + len(heldout) == 2000
    assert 0.15 < len({row.key for row in heldout}) / len({row.key for row in rows}) < 0.25


def test_a_row_falls_on_its_side_whatever_other_rows_there_are():
    rows = rows_of([f"prompt {i}" for i in range(300)])
    _, heldout = split(rows, 0.3)
    _, of_half = split(reversed(rows[:150]), 0.3)
    assert {row.where for row in of_half} == {row.where for row in heldout} & {row.where for row in rows[:150]}


def test_small_data_holds_out_one_prompt_and_a_share_of_0_none():
    rows = rows_of(["a", "b", "a", "b"])
    train, heldout = split(rows, 1e-9)
    assert (len(train), len(heldout)) == (2, 2)
    assert split(rows, 0.0) == (rows, [])


def test_rows_without_a_prompt_are_told_apart_by_their_content():
    rows = [canonical({"text": text}, "f", {}) for text in ("one", "two", "one")]
    assert rows[0].key == rows[2].key != rows[1].key


TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]


def test_what_travels_with_a_conversation_is_copied_compared_and_told_apart():
    prompt = Messages([QUESTION], TOOLS, {"enable_thinking": False})
    for same in (copy.deepcopy(prompt), pickle.loads(pickle.dumps(prompt)), rebuilt(prompt, prompt[:])):
        assert (same == prompt, same != prompt, same.tools, same.options) == (True, False, TOOLS, {"enable_thinking": False})
    plain, bare = [QUESTION], Messages([QUESTION], [])
    assert (bare.tools, bare.options, bare == plain, plain == bare, bare != plain) == (None, {}, True, True, False)
    assert prompt != plain and plain != prompt and prompt != Messages([QUESTION], TOOLS) != bare
    assert type(rebuilt([QUESTION], (ANSWER,))) is list
    assert rebuilt(prompt, [ANSWER]) == Messages([ANSWER], TOOLS, {"enable_thinking": False})
    assert (whole(prompt), whole("q"), whole(bare)) == ([[QUESTION], TOOLS, {"enable_thinking": False}], "q", [QUESTION])


def test_prompts_that_differ_in_their_tools_alone_are_two():
    prompts = [[QUESTION], Messages([QUESTION], TOOLS), Messages([QUESTION], TOOLS, {"a": 1}), Messages([QUESTION], TOOLS)]
    keys = [Row("f", {"prompt": prompt}, {}, {}).key for prompt in prompts]
    assert len(set(keys[:3])) == 3 and keys[3] == keys[1]
    assert len({Row("f", {"prompt": Messages([], tools), "completion": "c"}, {}, {}).key for tools in (None, TOOLS)}) == 2
