"""Nothing that a row says is lost in its chat template."""

from importlib.metadata import version

import pytest

from alignzoo.batch import Completions, Pairs
from alignzoo.data.encode import Encoder
from alignzoo.data.render import template
from alignzoo.data.shown import PROBES, TemplateCheck
from alignzoo.data.source import Unusable
from alignzoo.models.tokenizers import byte_level
from alignzoo.settings import UserError
from tests.data.test_templates import CHATML, FAMILIES, TURNS, assistant, user

Q, A = user("Rome?"), assistant("18 degrees.")
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "w", "arguments": {}}}]}
PLAIN = {"messages": [Q, A]}
SHOWING = (
    "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.reasoning_content }}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{{ call.function }}{% endfor %}<eos>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
ONLY_TWO = "{% for m in messages %}{% if m.role in ['user', 'assistant'] %}{{ m.role }}{{ m.content }}{% endif %}{% endfor %}"


@pytest.fixture(autouse=True)
def wide(context):
    context.context_length = 400


def lost(text, **settings):
    return TemplateCheck(Encoder(tokenizer=byte_level(), template=text, **settings)).lost


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (CHATML, {"tools", "tool_calls", "reasoning_content", "thinking"}),
        (FAMILIES["qwen3"][0], {"tool_calls", "reasoning_content", "thinking"}),
        (TURNS, {"tools", "tool_calls", "reasoning_content", "thinking"}),  # which refuses a system message aloud
        (SHOWING, set()),  # transformers hands `thinking` on as reasoning_content
        (ONLY_TWO, set(PROBES)),
        ("{% if messages[0].role == 'system' %}{{ tools }}{% endif %}{{ messages }}", set()),
        (template("trl:qwen3_training", None), {"developer"}),
    ],
)
def test_what_a_template_leaves_out(text, names):
    handed_on = {"thinking"} if release("transformers") < (5, 24) and text not in (ONLY_TWO, CHATML) else set()
    assert lost(text) - handed_on == names - handed_on


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {**PLAIN, "tools": TOOLS},
            r"line 2: the chat template shows no tools: 'tools'\ngive another template with data.chat_template=FILE or trl, "
            r"or leave the column out with data.leave_out=\[tools\]; drop such rows with data.unusable=drop",
        ),
        ({**PLAIN, "functions": [TOOLS[0]["function"]]}, r"no tools: 'functions'\n.*data.leave_out=\[functions\]"),
        ({"messages": [Q, CALL, A]}, "line 2: .* shows no 'tool_calls' of messages, and 'completion' has some"),
        ({"prompt": [Q], "chosen": [A], "rejected": [CALL]}, "no 'tool_calls' of messages, and 'rejected' has some"),
        ({"messages": [Q, {**A, "thinking": "Warm."}]}, "shows no 'thinking' of messages"),
        (
            {**PLAIN, "chat_template_kwargs": {"add_generation_promt": False}},
            r"has no option 'add_generation_promt'. Did you mean 'add_generation_prompt'\?\n.*leave_out=\[chat_templ",
        ),
    ],
)
def test_a_row_that_would_lose_something_is_named_or_dropped(source, context, row, message):
    view = Pairs if "chosen" in row else Completions
    good = {"prompt": [Q], "chosen": [A], "rejected": [assistant("No.")]} if view is Pairs else PLAIN
    with pytest.raises(UserError, match=message):
        source([good, row]).tables(view, context)
    tables = source([good, row], unusable=Unusable.drop).tables(view, context)
    assert (len(tables.train), tables.report["unusable_rows_dropped_for_not_shown"]) == (1, 1)
    with pytest.raises(UserError, match="no row is left to train on: unusable_rows_dropped=1"):
        source([row], unusable=Unusable.drop).tables(view, context)


def test_what_a_template_shows_is_trained(source, context, tmp_path):
    (tmp_path / "t.jinja").write_text(SHOWING)
    row = {"messages": [Q, CALL, {"role": "tool", "content": "18C"}, A], "tools": TOOLS}
    tables = source([row], chat_template=str(tmp_path / "t.jinja")).tables(Completions, context)
    assert "'weather'" in tables.train.batch([0]).prompts.text[0]
    assert "{'name': 'w', 'arguments': {}}" in tables.train.batch([0]).text[0]
    assert len(source([{**PLAIN, "tools": TOOLS}], leave_out=["tools"]).tables(Completions, context).train) == 1


def test_settings_that_a_template_knows_nothing_of_are_refused(source, context, tmp_path):
    with pytest.raises(UserError, match=r"data.template_options=\{'enable': True\}: the chat template has no option 'enable'"):
        source([PLAIN], template_options={"enable": True}).tables(Completions, context)
    (tmp_path / "t.jinja").write_text(ONLY_TWO)
    with pytest.raises(UserError, match=r"data.system=Be brief.: the chat template shows no system message"):
        source([PLAIN], system="Be brief.", chat_template=str(tmp_path / "t.jinja")).tables(Completions, context)


def test_rows_with_a_system_message_of_their_own_are_counted(source, context, caplog):
    own = {"messages": [{"role": "system", "content": "Be long."}, Q, A]}
    assert source([own, PLAIN], system="S").tables(Completions, context).report["rows_with_their_own_system"] == 1
    assert not caplog.messages
    assert source([own] * 2, system="S").tables(Completions, context).report["rows_with_their_own_system"] == 2
    assert caplog.messages == ["data: none of 2 rows uses data.system: each has a system message of its own"]
    assert "rows_with_their_own_system" not in source([own]).tables(Completions, context).report


def release(package):
    return tuple(map(int, version(package).split(".")[:2]))
