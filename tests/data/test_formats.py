"""The formats of others as the columns of TRL's dataset types: nothing is lost, or the row is named."""

import json

import pytest

from alignzoo.batch import Completions, Prompts
from alignzoo.data.files import JsonLines, Parquet
from alignzoo.data.rows import Messages, UnusableRow, canonical
from alignzoo.data.shots import formatted, with_shots
from alignzoo.data.source import Unusable
from alignzoo.settings import UserError


def says(role, content, **beside):
    return {"role": role, "content": content, **beside}


Q, A, B = says("user", "What is blue?"), says("assistant", "The sky."), says("assistant", "Grass.")
SYSTEM = says("system", "Be brief.")
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
CALL = {"type": "function", "id": "c1", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
RAW_CALL = {"type": "function", "id": "c1", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}


def turn(speaker, words, **beside):
    return {"from": speaker, "value": words, **beside}


def row(raw, **mapping):
    return canonical(raw, "f, line 7", mapping)


ULTRA = {"prompt": "What is blue?", "prompt_id": "x1", "chosen": [Q, A], "rejected": [Q, B]}
HUMAN, GPT = turn("human", "What is blue?"), turn("gpt", "The sky.")
ALPACA = {"instruction": "Name it.", "input": "A river", "output": "Nile"}
NAMED = says("user", "Name it.\nA river")


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        # UltraFeedback binarized: a string beside whole conversations, which may hold the chosen one a third time
        (ULTRA, {"prompt": [Q], "chosen": [A], "rejected": [B]}),
        ({**ULTRA, "messages": [Q, A]}, {"prompt": [Q], "chosen": [A], "rejected": [B]}),
        (
            {**ULTRA, "chosen": [SYSTEM, Q, A], "rejected": [SYSTEM, Q, B]},
            {"prompt": [SYSTEM, Q], "chosen": [A], "rejected": [B]},
        ),
        ({**ULTRA, "chosen": [A], "rejected": [B]}, {"prompt": [Q], "chosen": [A], "rejected": [B]}),
        ({"prompt": "", "chosen": [A], "rejected": [B]}, {"prompt": [], "chosen": [A], "rejected": [B]}),
        ({"prompt": "What is blue?", "completion": [Q, A]}, {"prompt": [Q], "completion": [A]}),
        ({"prompt": "What is blue?", "messages": [Q, A, Q, B]}, {"prompt": [Q], "completion": [A, Q, B]}),
        ({"prompt": [Q, A, Q], "messages": [Q, A, Q, B]}, {"prompt": [Q, A, Q], "completion": [B]}),
        # the prompt is said again, or the sides are text
        ({"prompt": [Q], "chosen": [Q, A], "rejected": [Q, B]}, {"prompt": [Q], "chosen": [A], "rejected": [B]}),
        ({"prompt": [Q], "chosen": [Q, A], "rejected": [B]}, {"prompt": [Q], "chosen": [A], "rejected": [B]}),
        ({"prompt": [Q], "chosen": "The sky.", "rejected": "Grass."}, {"prompt": [Q], "chosen": [A], "rejected": [B]}),
        (
            {"prompt": [Q], "completions": [[Q, A], [Q, B]], "ranks": [1, 2]},
            {"prompt": [Q], "completions": [[A], [B]], "ranks": [1, 2]},
        ),
        (
            {"prompt": "What is blue?", "completions": [[A], [B]], "ranks": [1, 2]},
            {"prompt": [Q], "completions": [[A], [B]], "ranks": [1, 2]},
        ),
        # ShareGPT, and what axolotl and LLaMA-Factory make of it
        ({"conversations": [HUMAN, GPT]}, {"prompt": [Q], "completion": [A]}),
        ({"conversations": [turn("system", "Be brief."), HUMAN, GPT]}, {"prompt": [SYSTEM, Q], "completion": [A]}),
        ({"conversations": [HUMAN, GPT], "system": "Be brief."}, {"prompt": [SYSTEM, Q], "completion": [A]}),
        ({"conversation": [says("human", "What is blue?"), says("bot", "The sky.")]}, {"prompt": [Q], "completion": [A]}),
        ({"chosen": [HUMAN, GPT], "rejected": [HUMAN, turn("gpt", "Grass.")]}, {"prompt": [Q], "chosen": [A], "rejected": [B]}),
        (
            {"conversations": [HUMAN], "chosen": GPT, "rejected": turn("gpt", "Grass.")},
            {"prompt": [Q], "chosen": [A], "rejected": [B]},
        ),
        ({"messages": [Q, A, Q], "chosen": A, "rejected": B}, {"prompt": [Q, A, Q], "chosen": [A], "rejected": [B]}),
        (
            {"conversations": [HUMAN, GPT, HUMAN, GPT], "kto_tag": False},
            {"prompt": [Q, A, Q], "completion": [A], "label": False},
        ),
        # Alpaca
        (ALPACA, {"prompt": [NAMED], "completion": [says("assistant", "Nile")]}),
        (
            {**ALPACA, "system": "Be brief.", "history": []},
            {"prompt": [SYSTEM, NAMED], "completion": [says("assistant", "Nile")]},
        ),
        (
            {**ALPACA, "input": "", "history": [["What is blue?", "The sky."]]},
            {"prompt": [Q], "completion": [A, says("user", "Name it."), says("assistant", "Nile")]},
        ),
        (
            {**ALPACA, "history": [["What is blue?", "The sky."]], "kto_tag": True},
            {"prompt": [Q, A, NAMED], "completion": [says("assistant", "Nile")], "label": True},
        ),
        (
            {"instruction": "What is blue?", "chosen": "The sky.", "rejected": "Grass."},
            {"prompt": [Q], "chosen": [A], "rejected": [B]},
        ),
        ({"instruction": "What is blue?"}, {"prompt": [Q]}),
        # OpenAI's fine-tuning files
        (
            {"input": {"messages": [Q]}, "preferred_output": [A], "non_preferred_output": [B]},
            {"prompt": [Q], "chosen": [A], "rejected": [B]},
        ),
        ({"messages": [Q, {**A, "weight": 0}, Q, B]}, {"prompt": [Q], "completion": [{**A, "weight": 0}, Q, B]}),
        (
            {"messages": [says("user", [{"type": "text", "text": "What is "}, {"type": "text", "text": "blue?"}]), A]},
            {"prompt": [Q], "completion": [A]},
        ),
        # what else conversations may be
        ({"messages": [A, Q, B]}, {"prompt": [], "completion": [A, Q, B]}),
        ({"messages": [Q, Q, A, A]}, {"prompt": [Q, Q], "completion": [A, A]}),
        ({"messages": [says("developer", "Be brief."), Q, {**A, "name": None, "tool_calls": None}]},
         {"prompt": [says("developer", "Be brief."), Q], "completion": [A]}),
    ],
)  # fmt: skip
def test_a_row_is_read_as_what_its_columns_and_shapes_say(raw, values):
    assert row(raw).values == values


def test_hh_texts_are_plain_and_part_before_the_answers_differ():
    talk = "\n\nHuman: What is blue?\n\nAssistant:"
    values = row({"chosen": f"{talk} The sky.", "rejected": f"{talk} Grass."}).values
    assert values == {"prompt": talk, "chosen": " The sky.", "rejected": " Grass."}


def test_columns_that_made_the_messages_are_no_longer_there_for_themselves_and_all_others_are():
    assert row({**ULTRA, "score_chosen": 8}).remaining == {"prompt_id": "x1", "score_chosen": 8}
    assert row({"conversations": [HUMAN, GPT], "system": "Be brief.", "id": 1}).remaining == {"id": 1}
    assert row({**ALPACA, "history": None, "category": "geo"}).remaining == {"category": "geo"}
    assert row({"prompt": "p", "input": "i", "conversation": "about rivers"}).remaining == {
        "input": "i",
        "conversation": "about rivers",
    }
    plain = row(ALPACA, prompt="{instruction}\n", completion="output")
    assert (plain.values, plain.remaining) == (
        {"prompt": "Name it.\n", "completion": "Nile"},
        {"instruction": "Name it.", "input": "A river"},
    )


# --- tools


@pytest.mark.parametrize(
    "raw",
    [
        {"messages": [Q, says("assistant", None, tool_calls=[RAW_CALL]), says("tool", "18C", tool_call_id="c1"), A],
         "tools": [WEATHER]},
        {"messages": [Q, {"role": "assistant", "tool_calls": [CALL]}, says("tool", "18C", tool_call_id="c1"), A],
         "tools": json.dumps([WEATHER])},
        {"messages": [Q, says("assistant", "", tool_calls=json.dumps([CALL])), says("function", "18C", tool_call_id="c1"), A],
         "tools": [json.dumps(WEATHER)]},
    ],
)  # fmt: skip
def test_tool_calls_have_arguments_and_the_prompt_the_tools(raw):
    read = row(raw)
    called = says("assistant", "", tool_calls=[CALL])
    assert read.values == {
        "prompt": Messages([Q], [WEATHER]),
        "completion": [called, says("tool", "18C", tool_call_id="c1"), A],
    }
    assert read.remaining["tools"] is not None


BARE_CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}


@pytest.mark.parametrize(
    "raw",
    [
        # OpenAI before tools
        {
            "messages": [Q, says("assistant", None, function_call=RAW_CALL["function"]), says("function", "18C"), A],
            "functions": [WEATHER["function"]],
        },
        # LLaMA-Factory
        {
            "conversations": [HUMAN, turn("function_call", json.dumps(BARE_CALL["function"])), turn("observation", "18C"), GPT],
            "tools": json.dumps([WEATHER["function"]]),
        },
    ],
)
def test_functions_and_their_calls_are_tools(raw):
    assert row(raw).values == {
        "prompt": Messages([Q], [WEATHER]),
        "completion": [says("assistant", "", tool_calls=[BARE_CALL]), says("tool", "18C"), A],
    }


def test_tools_and_template_options_go_with_every_kind_of_prompt():
    options = {"enable_thinking": False}
    beside = {"tools": [WEATHER], "chat_template_kwargs": options}
    for raw in (
        {"prompt": [Q]},
        {"prompt": [Q], "chosen": [A], "rejected": [B]},
        {"chosen": [Q, A], "rejected": [Q, B]},
        ULTRA,
        {"input": {"messages": [Q], "tools": [WEATHER]}, "preferred_output": [A], "non_preferred_output": [B], "tools": None},
        {"instruction": "What is blue?", "output": "The sky."},
    ):
        read = row({**beside, **raw})
        assert (type(read.values["prompt"]), read.values["prompt"]) == (Messages, Messages([Q], [WEATHER], options))
        assert {name: read.remaining[name] for name in beside} == beside
    renamed = row(
        {"q": [Q], "api": json.dumps([WEATHER]), "how": json.dumps(options)},
        prompt="q",
        tools="api",
        chat_template_kwargs="how",
    )
    assert (renamed.values["prompt"], renamed.remaining) == (Messages([Q], [WEATHER], options), beside)
    assert type(row({"prompt": [Q], "tools": [], "chat_template_kwargs": {}}).values["prompt"]) is list
    assert row({"prompt": "p", "tools": "[]", "chat_template_kwargs": {}}).values == {"prompt": "p"}


def test_prompts_made_anew_keep_their_tools():
    rows = [row({"messages": [says("user", f"q{i}"), A], "tools": [WEATHER]}) for i in range(2)]
    assert formatted(rows, "<{prompt}>")[0].values["prompt"] == Messages([says("user", "<q0>")], [WEATHER])
    shown = with_shots(rows, rows, 1, "{prompt}{completion}", 0, chat=False)[0].values["prompt"]
    assert shown == Messages([says("user", "q1"), A, says("user", "q0")], [WEATHER])


def test_a_table_of_messages_has_no_more_keys_than_each_message_had(tmp_path):
    from datasets import Dataset

    rows = [
        {"messages": [Q, says("assistant", "", tool_calls=[CALL]), A], "tools": [WEATHER], "answer": {"a": 1, "b": None}},
        {
            "messages": [Q, A],
            "tools": [{"type": "function", "function": {"name": "now", "description": "the time"}}],
            "answer": {"b": 2},
        },
    ]
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    read, _, _ = Parquet(path=str(tmp_path / "rows.parquet"), heldout=0.0).rows()
    assert [r.values for r in read] == [row(raw).values for raw in rows]
    assert [r.remaining["answer"] for r in read] == [{"a": 1, "b": None}, {"a": None, "b": 2}]  # a reward's business


# --- what fits nothing


@pytest.mark.parametrize(
    ("raw", "kind", "message"),
    [
        ({"messages": [Q, says("assistant", None)]}, "no_content", "message 2 of 'messages' has no content and no tool calls"),
        (
            {"messages": [Q, says("assitant", "x")]},
            "role",
            r"message 2 of 'messages' is of 'assitant'. Did you mean 'assistant'",
        ),
        (
            {"conversations": [turn("narrator", "x"), GPT]},
            "role",
            "message 1 of 'messages' is of 'narrator'.* Roles are system, ",
        ),
        ({"messages": [says("user", 7), A]}, "content", "message 1 of 'messages': its content is 7: must be text"),
        (
            {"messages": [says("user", [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "?"}]), A]},
            "media",
            "message 1 of 'messages' has a part of type 'image_url'",
        ),
        ({"messages": [Q, {**A, "weight": 0}]}, "empty_text", "an empty 'completion' teaches nothing"),
        ({"messages": [Q, {**A, "weight": 0.5}]}, "weight", "message 2 of 'messages': 'weight' is 0.5: must be 0"),
        ({"prompt": [Q], "completion": [says("user", "Why?"), A]}, "two_prompts", "'completion' begins with a message of user"),
        ({"prompt": [Q], "completion": [says("tool", "18C")]}, "empty_text", "an empty 'completion' teaches nothing"),
        (
            {"messages": [Q, says("assistant", None, tool_calls=[{"function": {"name": "f", "arguments": "{city"}}]), A]},
            "tool_calls",
            "message 2 of 'messages': 'arguments' of 'f' is '{city': not JSON",
        ),
        (
            {"messages": [Q, says("assistant", None, tool_calls=[{"function": {"name": "f", "arguments": "[1]"}}]), A]},
            "tool_calls",
            r"'arguments' of 'f' are \[1\]: must be an object",
        ),
        (
            {"messages": [Q, says("assistant", None, tool_calls=[{"id": "x"}]), A]},
            "tool_calls",
            "the tool call {'id': 'x'} must be",
        ),
        ({"prompt": [Q], "tools": "weather"}, "tools", "'tools' is 'weather': not JSON"),
        ({"prompt": [Q], "tools": {"name": "f"}}, "tools", "'tools' is {'name': 'f'}: must be a list of JSON schemas"),
        (
            {"prompt": [Q], "chat_template_kwargs": [1]},
            "template_options",
            r"'chat_template_kwargs' is \[1\]: must be an object",
        ),
        (
            {"prompt": "p", "completion": "c", "tools": [WEATHER]},
            "not_shown",
            r"nothing can show 'tools' to the model beside a prompt of plain text\n.*data.leave_out=\[tools\]",
        ),
        ({"text": "t", "chat_template_kwargs": {"a": 1}}, "not_shown", "nothing can show 'chat_template_kwargs'"),
        ({"prompt": "p", "system": "s"}, "not_shown", "nothing can show 'system' to the model beside a prompt of plain text"),
        ({"prompt": "p", "history": [["q", "a"]]}, "not_shown", "nothing can show 'history'"),
        ({"messages": [Q, A], "history": [["q", "a"]]}, "not_shown", "'history' to the model beside a prompt of messages"),
        (
            {**ALPACA, "images": ["x.png"]},
            "media",
            r"'images' is filled, and only text can be read; .*data.leave_out=\[images\]",
        ),
        ({"prompt": "p", "audio": {"path": "x"}}, "media", "'audio' is filled"),
        (
            {"messages": [SYSTEM, Q, A], "system": "Be long."},
            "two_prompts",
            "'system' is not what the conversation's system message",
        ),
        ({**ULTRA, "prompt": "Name a river."}, "two_prompts", "'prompt' is not what 'chosen' begins with"),
        ({"prompt": "Name a river.", "messages": [Q, A]}, "two_prompts", "'prompt' is not what 'messages' begins with"),
        ({"prompt": [SYSTEM], "messages": [Q, A]}, "two_prompts", "'messages' don't begin with 'prompt'"),
        (
            {"prompt": [Q], "chosen": [SYSTEM, Q, A], "rejected": [SYSTEM, Q, B]},
            "two_prompts",
            "'chosen' begins with a message of system that isn't the prompt's",
        ),
        (
            {"prompt": [Q], "messages": [SYSTEM, Q], "chosen": [A], "rejected": [B]},
            "two_prompts",
            "both 'prompt' and 'messages' precede 'chosen'",
        ),
        ({**ULTRA, "rejected": [Q, A]}, "equal_pair", "'chosen' equals 'rejected'"),
        ({**ULTRA, "rejected": [Q]}, "empty_text", "an empty 'rejected' teaches nothing"),
        ({**ALPACA, "output": ["a", "b"]}, "alpaca", r"'output' is \['a', 'b'\]: must be text"),
        (
            {**ALPACA, "history": [["only"]]},
            "alpaca",
            r"'history' is \[\['only'\]\]: must be a list of \[instruction, output\]",
        ),
        (
            {"prompt": "p", "completion": "c", "label": 10**400},
            "label",
            "'label' is 1000.*: must be true, false or a number up to",
        ),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": 1e39}, "label", "'margin' is 1e.39"),
    ],
)
def test_a_row_that_fits_nothing_is_named_with_what_is_there_and_what_is_needed(raw, kind, message):
    with pytest.raises(UnusableRow, match=message) as refused:
        row(raw)
    assert str(refused.value).startswith("f, line 7: ") and refused.value.kind == kind


def test_what_a_template_of_columns_names_is_the_users_to_use():
    raw = {"system": "Be brief.", "question": "What is blue?", "answer": "The sky."}
    with pytest.raises(UnusableRow, match="nothing can show 'system'"):
        row(raw, prompt="question", completion="answer")
    assert row(raw, prompt="{system} {question}", completion="answer").values["prompt"] == "Be brief. What is blue?"


def test_columns_are_left_out_by_name_and_counted(source):
    rows = [{**ALPACA, "images": ["x.png"], "tools": "hammer"}, {**ALPACA, "input": "A lake"}]
    read, _, report = source(rows, leave_out=["images", "tools"]).rows()
    assert [r.values["prompt"] for r in read] == [[NAMED], [says("user", "Name it.\nA lake")]]
    assert (report["left_out_images"], report["left_out_tools"], "images" in read[0].columns) == (1, 1, False)
    with pytest.raises(UserError, match=r"data.leave_out=\[image\]: no row has such a column. Did you mean 'images'\?"):
        source([{"prompt": "p", "images": []}], leave_out=["image"]).rows()


def test_rows_that_fit_nothing_are_dropped_and_counted_by_kind(source):
    rows = [ULTRA, {**ULTRA, "rejected": [Q, A]}, {**ULTRA, "images": ["x.png"]}, {"messages": [Q, says("bott", "x")]}, ULTRA]
    read, _, report = source(rows, unusable=Unusable.drop).rows()
    dropped = {"equal_pair": 1, "media": 1, "role": 1}
    assert len(read) == 2 and report == {
        "rows": 5,
        "unusable_rows_dropped": 3,
        "duplicate_pairs": 1,
        **{f"unusable_rows_dropped_for_{kind}": count for kind, count in dropped.items()},
    }


@pytest.mark.parametrize("row", [{"messages": [A, Q, B]}, {"chosen": [A, Q, A], "rejected": [B, Q, B]}])
def test_a_conversation_needs_a_message_before_the_first_answer(source, row):
    with pytest.raises(
        UserError, match=r"line 1: the conversation begins with the assistant: .*data.system=TEXT.*data.unusable=drop"
    ):
        source([row]).rows()
    read, _, report = source([row, ULTRA], unusable=Unusable.drop).rows()
    assert len(read) == report["unusable_rows_dropped_for_begins_with_assistant"] == 1
    assert len(source([row], system="Be brief.").rows()[0]) == 1


@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_a_conversation_without_an_answer_is_named(source, context, column):
    silent = {column: [Q]}
    with pytest.raises(UserError, match=f"line 1: no answer of an assistant in '{column}'") as refused:
        source([silent]).tables(Completions, context)
    assert "data.columns" not in str(refused.value)
    with pytest.raises(UserError, match=f"line 2: no answer of an assistant in '{column}'"):
        source([{"messages": [Q, A]}, silent]).tables(Completions, context)
    assert len(source([silent]).tables(Prompts, context).train) == 1


def test_a_file_may_hold_rows_of_several_formats(source):
    rows = [
        ULTRA,
        {"chosen": [HUMAN, GPT], "rejected": [HUMAN, turn("gpt", "Grass.")]},
        {"prompt": [Q], "chosen": [A], "rejected": [B]},
    ]
    read, _, _ = source(rows).rows()
    assert [r.values for r in read] == [{"prompt": [Q], "chosen": [A], "rejected": [B]}] * 3


def test_a_made_row_is_written_with_its_tools(tmp_path):
    from alignzoo.making.draws import Draw, ScoredCompletion
    from alignzoo.making.label_rows import line
    from alignzoo.making.labels import Label

    prompt = row({"messages": [Q], "api": [WEATHER]}, tools="api")
    sample = ScoredCompletion("The sky.", [1], False, 0.5)
    written = line(Label(draw=Draw(0, 0, [sample]), samples=[sample], marks=[], rater=0), prompt, 1)
    (tmp_path / "made.jsonl").write_text(json.dumps(written))
    read, _, _ = JsonLines(path=str(tmp_path / "made.jsonl"), heldout=0.0).rows()
    assert read[0].values == {"prompt": Messages([Q], [WEATHER]), "completion": [A]}
