"""HH's dialogues in one text, where they are to go through a chat template."""

import json

import pytest

from alignzoo.batch import Completions, Pairs, Prompts
from alignzoo.data.mixture import Mixture
from alignzoo.settings import UserError

HH = "\n\nHuman: Name a bird.\n\nAssistant: Big?\n\nHuman: Yes.\n\nAssistant:"
READ = "user: Name a bird.\nassistant: Big?\nuser: Yes.\nassistant: "


@pytest.mark.parametrize(
    ("row", "prompt", "chosen", "rejected"),
    [
        ({"chosen": f"{HH} A stork.", "rejected": f"{HH} No."}, READ, "A stork.", "No."),
        ({"chosen": f"{HH} A big stork.", "rejected": f"{HH} A big hen."}, READ, "A big stork.", "A big hen."),
        ({"prompt": HH, "chosen": " A stork.", "rejected": " No."}, READ, "A stork.", "No."),
    ],
)
def test_dialogues_are_messages_where_they_are_to_be_chat(source, context, row, prompt, chosen, rejected):
    pairs = source([row], chat=True).tables(Pairs, context).train.batch([0])
    assert (pairs.chosen.prompts.text, pairs.chosen.text, pairs.rejected.text) == ([prompt], [chosen], [rejected])


def test_a_dialogue_is_a_demonstration_of_each_answer_or_a_prompt(source, context):
    batch = source([{"text": f"{HH} A stork."}], chat=True).tables(Completions, context).train.batch([0])
    assert batch.prompts.text == ["user: Name a bird.\nassistant: "]
    assert batch.text == ["Big?\nuser: Yes.\nassistant: A stork."]
    assert source([{"prompt": HH}], chat=True).tables(Prompts, context).train.batch([0]).text == [READ]


def test_dialogues_of_a_mixture_are_messages(tmp_path, context):
    (tmp_path / "a.jsonl").write_text(json.dumps({"chosen": f"{HH} A stork.", "rejected": f"{HH} No."}))
    part = {"kind": "jsonl", "path": str(tmp_path / "a.jsonl"), "heldout": 0.0}
    assert Mixture(sources={"a": part}, chat=True).tables(Pairs, context).train.batch([0]).chosen.prompts.text == [READ]


@pytest.mark.parametrize(
    ("row", "settings"),
    [
        ({"prompt": "Talk.\n\nHuman: hi\n\nAssistant:", "completion": " yo"}, {}),
        ({"prompt": "Human: hi\nAssistant:", "completion": " yo"}, {}),
        ({"prompt": "\n\nHuman: hi", "completion": " yo"}, {}),
        ({"prompt": HH, "completion": " A stork."}, {"shots": 1}),
        ({"prompt": HH, "completion": " A stork."}, {"prompt_format": "question"}),
    ],
)
def test_a_dialogue_that_cannot_be_told_apart_is_refused(source, context, row, settings):
    rows = [row, {"prompt": "p", "completion": "c"}]
    with pytest.raises(UserError, match=r"line 1: data.chat=true, and the text has turns of 'Human:' and 'Assistant:'"):
        source(rows, chat=True, **settings).tables(Completions, context)
    assert len(source(rows, **settings).tables(Completions, context).train) == 2


def test_text_without_a_dialogue_stays_as_it_is(source, context):
    row = {"prompt": "Is this Human: yes?", "completion": "a\n\nHuman: b"}
    batch = source([row], chat=True).tables(Completions, context).train.batch([0])
    assert (batch.prompts.text, batch.text) == (["user: Is this Human: yes?\nassistant: "], ["a\n\nHuman: b"])


def test_a_dialogue_without_an_answer_teaches_nothing(source, context):
    with pytest.raises(UserError, match=r"line 1: no answer after 'Assistant:'"):
        source([{"text": "\n\nHuman: Why?\n\nAssistant:"}], chat=True).tables(Completions, context)


@pytest.fixture(autouse=True)
def wide(context):
    context.context_length = 400
