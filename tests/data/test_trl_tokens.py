"""Rows of TRL's dataset types become the tokens that TRL 1.16's own trainers make of them, for tokenizers of five families.

Where the two differ, and must: what a template writes after the end of a turn (ChatML's and Gemma's newline) is part of a
completion in TRL, and trained; here a completion ends where a policy that samples stops.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RewardTrainer, SFTTrainer

from alignzoo.batch import Completions, Pairs, Prompts, Rated
from alignzoo.common.noise import Noise
from alignzoo.contracts import Context
from alignzoo.data.encode import Encoder
from alignzoo.data.prepare import Preparation
from alignzoo.data.rows import canonical
from alignzoo.settings import Sampling
from tests.data.test_templates import FAMILIES, assistant, tokenizer, user
from tests.data.test_trl_types import TYPES

AFTER_THE_END = {"smollm2": "\n", "qwen3": "\n", "llama3": "", "gemma": "\n", "metaspace": "\n"}
QUESTION, PARIS, ROME = [user("What is the capital of France?")], [assistant("Paris.")], [assistant("Rome is, I think.")]
MULTI = [*QUESTION, *PARIS, user("And of Italy?")]
# TRL's types but those that its trainers refuse, prompts of several turns, and spaces where they may stand
ROWS = {
    **{name: row for name, row in TYPES.items() if "from and value" not in name and "also as text" not in name},
    "preference, of several turns": {"prompt": MULTI, "chosen": ROME, "rejected": PARIS},
    "unpaired preference, of several turns": {"prompt": MULTI, "completion": ROME, "label": True},
    "prompt-completion, of several turns": {"prompt": MULTI, "completion": ROME},
    "prompt-only, of several turns": {"prompt": MULTI},
    "preference, several spaces": {"prompt": "What  is ", "chosen": "the capital?", "rejected": "of  Italy?"},
}
REWRITTEN = "qwen3"  # earlier answers lose their thoughts, of which these have none
ARGS = SimpleNamespace(
    dataset_num_proc=None,
    max_length=None,
    truncation_mode="keep_start",
    dataset_text_field="text",
    assistant_only_loss=False,
    shuffle_dataset=False,
)


def words_of(family: str) -> Any:
    words = tokenizer("smollm2", metaspace=True) if family == "metaspace" else tokenizer(family)
    if family != "metaspace":
        words.eos_token = FAMILIES[family][2]
    return words


def theirs(trainer: Any, words: Any, row: dict[str, Any]) -> dict[str, Any]:
    """The row as TRL's trainer tokenises it."""
    stand_in = SimpleNamespace(
        _tokenizer=words, calculate_KL=False, chat_template=None, completion_only_loss="prompt" in row, padding_free=False
    )
    data = Dataset.from_list([copy.deepcopy(row)])
    more = {"packing": False, "formatting_func": None} if trainer is SFTTrainer else {}
    prepared: dict[str, Any] = next(
        iter(trainer._prepare_dataset(stand_in, data, words, args=ARGS, dataset_name="train", **more))
    )
    return prepared


def ours(view: type, words: Any, row: dict[str, Any]) -> Any:
    context = Context(
        tokenizer=words,
        seed=0,
        sampling=Sampling(max_new_tokens=8),
        context_length=512,
        cache=None,
        shared=Noise(0),  # type: ignore[arg-type]
    )
    rows = [canonical(copy.deepcopy(row), "a row", {})]
    encoder = Encoder(tokenizer=words, messages=isinstance(rows[0].values.get("prompt"), list))
    table = Preparation(view=view, encoder=encoder, context=context).table(rows)
    assert table is not None and len(table) == 1
    return table.batch([0])


def flat(ids: Any, mask: Any) -> list[int]:
    return [int(token) for token, attended in zip(ids, mask, strict=True) if attended]


def sequences(c: Completions) -> list[tuple[list[int], list[int]]]:
    """(prompt, completion) of each record."""
    prompts = [flat(*row) for row in zip(c.prompts.ids, c.prompts.attended, strict=True)]
    return [(prompts[of], flat(*row)) for of, *row in zip(c.prompt_of.tolist(), c.ids, c.attended, strict=True)]


def ended(family: str, words: Any, row: dict[str, Any]) -> list[int]:
    """What TRL trains after the end of a turn, and we don't."""
    chat = any(isinstance(value, list) for value in row.values())
    text = AFTER_THE_END[family] if chat else ""
    return (
        words.encode(text, add_special_tokens=False)
        if text and family != "metaspace"
        else words.encode("\n")[-1:]
        if text
        else []
    )


FIVE = [*FAMILIES, "metaspace"]


@pytest.mark.parametrize("family", FIVE)
@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("preference")])
def test_pairs(name: str, family: str) -> None:
    words, row = words_of(family), ROWS[name]
    their, extra = theirs(DPOTrainer, words, row), ended(family, words, row)
    (prompt, chosen), (_, rejected) = sequences(ours(Pairs, words, row).both)
    assert (prompt, chosen + extra, rejected + extra) == (their["prompt_ids"], their["chosen_ids"], their["rejected_ids"])
    reward = theirs(RewardTrainer, words, row)
    assert (prompt + chosen + extra, prompt + rejected + extra) == (reward["chosen_ids"], reward["rejected_ids"])


@pytest.mark.parametrize("family", FIVE)
@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("unpaired")])
def test_ratings(name: str, family: str) -> None:
    words, row = words_of(family), ROWS[name]
    their, extra = theirs(KTOTrainer, words, row), ended(family, words, row)
    ((prompt, completion),) = sequences(ours(Rated, words, row))
    assert (prompt, completion + extra) == (their["prompt_ids"], their["completion_ids"])


@pytest.mark.parametrize("family", FIVE)
@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith(("prompt-completion", "language"))])
def test_demonstrations(name: str, family: str) -> None:
    """The tokens of the whole; of prompt and completion, those that are trained too."""
    words, row = words_of(family), ROWS[name]
    their, extra = theirs(SFTTrainer, words, row), ended(family, words, row)
    ((prompt, completion),) = sequences(ours(Completions, words, row))
    if name == "language modeling":  # of a text alone the first token has no prompt here, and isn't predicted there
        assert (prompt + completion)[-len(their["input_ids"]) :] == their["input_ids"]
        return
    assert prompt + completion + extra == their["input_ids"]
    if "prompt" in row:
        assert [label for label in their["labels"] if label != -100] == completion + extra


@pytest.mark.parametrize("family", FIVE)
@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("prompt-only")])
def test_prompts(name: str, family: str) -> None:
    words, row = words_of(family), ROWS[name]
    stand_in = SimpleNamespace(
        _is_vlm=False,
        environment_factories=None,
        tools=None,
        chat_template=None,
        chat_template_kwargs={},
        processing_class=words,
    )
    (their,), *_ = GRPOTrainer._tokenize_prompts(stand_in, [row["prompt"]])
    batch = ours(Prompts, words, row)
    assert flat(batch.ids[0], batch.attended[0]) == their
