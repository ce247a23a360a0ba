"""TRL's dataset types are read as TRL's own utilities read them."""

import copy

import pytest
from datasets import Dataset
from trl import data_utils

from alignzoo.batch import Rated
from alignzoo.data.rows import canonical
from alignzoo.data.views import examples, recipe

Q = {"role": "user", "content": "What color is the sky?"}
BLUE, GREEN = ({"role": "assistant", "content": text} for text in ("It is blue.", "It is green."))
TYPES = {  # of TRL's page on dataset formats
    "language modeling": {"text": "The sky is blue."},
    "language modeling, conversational": {"messages": [Q, BLUE]},
    "language modeling, from and value": {
        "conversations": [{"from": "user", "value": "Why?"}, {"from": "assistant", "value": "So."}]
    },
    "prompt-only": {"prompt": "The sky is"},
    "prompt-only, conversational": {"prompt": [Q]},
    "prompt-completion": {"prompt": "The sky is", "completion": " blue."},
    "prompt-completion, conversational": {"prompt": [Q], "completion": [BLUE]},
    "preference": {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
    "preference, conversational": {"prompt": [Q], "chosen": [BLUE], "rejected": [GREEN]},
    "preference, implicit prompt": {"chosen": "The sky is blue.", "rejected": "The sky is green."},
    "preference, implicit prompt, conversational": {"chosen": [Q, BLUE], "rejected": [Q, GREEN]},
    "preference, the prompt also as text": {"prompt": Q["content"], "chosen": [Q, BLUE], "rejected": [Q, GREEN]},
    "unpaired preference": {"prompt": "The sky is", "completion": " blue.", "label": True},
    "unpaired preference, conversational": {"prompt": [Q], "completion": [GREEN], "label": False},
}


@pytest.mark.parametrize("name", TYPES)
def test_every_type_has_the_columns_that_trl_makes_of_it(name):
    expected = data_utils.maybe_extract_prompt(data_utils.maybe_convert_to_chatml(copy.deepcopy(TYPES[name])))
    values = canonical(TYPES[name], name, {}).values
    if "messages" in expected:
        assert values["prompt"] + values["completion"] == expected["messages"]
    elif "text" in expected:
        assert values == {"prompt": "", "completion": expected["text"]}
    else:
        assert values == expected
    if "text" not in expected:
        assert data_utils.is_conversational(expected) == isinstance(values["prompt"], list)


@pytest.mark.parametrize("name", [name for name in TYPES if name.startswith("preference")])
def test_pairs_become_the_ratings_that_trl_unpairs_them_to(name):
    unpaired = data_utils.unpair_preference_dataset(Dataset.from_list([data_utils.maybe_extract_prompt(TYPES[name])]))
    rows = [canonical(TYPES[name], name, {})]
    rated = [(e.prompt, e.completions[0], bool(e.marks[0])) for e in examples(rows, recipe(Rated, rows))]
    assert rated == [(row["prompt"], row["completion"], row["label"]) for row in unpaired]


def test_words_stay_whole_where_trl_cuts_them():
    pair = {"chosen": "the cat sat", "rejected": "the car sat"}
    assert data_utils.extract_prompt(pair)["prompt"] == "the ca"
    assert canonical(pair, "f", {}).values["prompt"] == "the"


def test_a_conversation_said_twice_is_there_once_where_trl_keeps_both():
    pair = {"prompt": [Q], "chosen": [Q, BLUE], "rejected": [Q, GREEN]}
    assert data_utils.maybe_extract_prompt(pair) == pair
    assert canonical(pair, "f", {}).values == {"prompt": [Q], "chosen": [BLUE], "rejected": [GREEN]}
