"""Conversations as the templates of known families write them: whose tokens are whose, and which are trained."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignzoo.data.encode import Encoder, Rewrites
from alignzoo.data.rows import Messages
from alignzoo.errors import UserError
from alignzoo.models.tokenizers import train_bpe

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (  # only the last answer keeps its thoughts
    "{% if tools %}tools: {{ tools | tojson }}\n{% endif %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('</think>')[-1] }}{% else %}{{ m['content'] }}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{{ opening or '' }}{% endif %}"
)
HEADERS = (
    "{% for m in messages %}<|start|>{{ m['role'] }}<|end_header|>\n\n{{ m['content'] | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|end_header|>\n\n{% endif %}"
)
TURNS = (  # of a family that knows no system role
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] }}<end_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
FAMILIES = {  # template, end of a turn, EOS, padding
    "smollm2": (CHATML, "<|im_end|>", "<|im_end|>", "<|im_end|>"),
    "qwen3": (THINKING, "<|im_end|>", "<|im_end|>", "<|endoftext|>"),
    "llama3": (HEADERS, "<|eot|>", "<|endoftext|>", None),
    "gemma": (TURNS, "<end_turn>", "<|endoftext|>", None),
}
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|start|>", "<|end_header|>", "<|eot|>", "<turn>", "<end_turn>"]


def tokenizer(family: str, metaspace: bool = False) -> Any:
    template, _, eos, pad = FAMILIES[family]
    texts = ["What is the capital of France? Paris.", "And of Italy? Rome is, I think.", "user assistant system model"] * 3
    if metaspace:
        letters = sorted({c for text in [*texts, template, "abcdefghijklmnopqrstuvwxyz0123456789+=.,:'\n"] for c in text})
        pieces = [("<unk>", 0.0), *((c, -9.0) for c in ["▁", *letters]), *((w, -1.0) for w in ("▁The", "The", "▁Rome", "Rome"))]
        inner = Tokenizer(models.Unigram(pieces, unk_id=0))
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        inner.decoder = decoders.Metaspace(prepend_scheme="first")
        made = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    else:
        made = train_bpe(texts, 300)
        made.split_special_tokens = False
    made.add_special_tokens({"additional_special_tokens": SPECIAL})
    made.eos_token, made.pad_token, made.chat_template = eos, pad, template
    return made


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


QUESTION, ANSWER = [user("What is the capital of France?")], [assistant("Paris.")]


def one(encoder: Encoder, prompt: Any, completion: Any) -> tuple[list[int], list[int], list[bool]]:
    """The ids of the prompt, and the completion's with which are scored."""
    ((ids, (tokens,)),) = encoder.encode([prompt], [[completion]])
    return ids, tokens.ids, tokens.scored


def trained(encoder: Encoder, prompt: Any, completion: Any) -> list[str]:
    """The stretches of text that are scored."""
    _, ids, scored = one(encoder, prompt, completion)
    stretches: list[list[int]] = [[]]
    for token, mark in zip(ids, scored, strict=True):
        stretches[-1].append(token) if mark else stretches.append([])
    return [encoder.tokenizer.decode(stretch) for stretch in stretches if stretch]


@pytest.mark.parametrize("metaspace", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_record_is_the_whole_text_up_to_the_end_of_the_answer(family, metaspace):
    """The tokens of the template's text, whoever tokenises it, but the newline that some write after the end."""
    words, end = tokenizer(family, metaspace), FAMILIES[family][1]
    encoder = Encoder(tokenizer=words)
    prompt, completion, scored = one(encoder, QUESTION, ANSWER)
    text = words.apply_chat_template([*QUESTION, *ANSWER], tokenize=False)
    whole = words(text[: text.rindex(end) + len(end)], add_special_tokens=False).input_ids
    assert prompt + completion == whole and all(scored)
    assert encoder.prompts([QUESTION]) == [prompt]
    assert trained(encoder, QUESTION, ANSWER) == [f"Paris.{end}"]
    assert words.convert_ids_to_tokens(encoder.turn_end) == end


@pytest.mark.parametrize("family", ["smollm2", "llama3", "gemma"])
def test_of_several_turns_the_answers_with_their_ends_are_trained(family):
    end, encoder = FAMILIES[family][1], Encoder(tokenizer=tokenizer(family))
    turns = [*ANSWER, user("And of Italy?"), assistant("Rome."), user("Thanks")]
    assert trained(encoder, QUESTION, turns) == [f"Paris.{end}", f"Rome.{end}"]
    assert trained(encoder, QUESTION, [assistant("Paris.", weight=0), *turns[1:]]) == [f"Rome.{end}"]
    assert encoder.records(QUESTION, turns) == [(QUESTION, turns)]


def test_where_earlier_turns_are_rewritten_each_answer_is_trained_as_it_was_generated():
    encoder = Encoder(tokenizer=tokenizer("qwen3"))
    first, second = assistant("<think>a</think>Paris."), assistant("<think>b</think>Rome.")
    turns = [first, user("And of Italy?"), second]
    with pytest.raises(Rewrites, match=r"rewrites earlier text(.|\n)*data\.turns=last"):
        one(encoder, QUESTION, turns)
    records = encoder.records(QUESTION, turns)
    assert records == [(QUESTION, [first]), ([*QUESTION, first, turns[1]], [second])]
    assert [trained(encoder, *record) for record in records] == [
        ["<think>a</think>Paris.<|im_end|>"], ["<think>b</think>Rome.<|im_end|>"],
    ]  # fmt: skip
    shown = encoder.tokenizer.decode(encoder.prompts([records[1][0]])[0])
    assert "<think>" not in shown and "assistant\nParis.<|im_end|>" in shown


def test_metaspace_tokens_are_those_of_the_whole_text():
    """By itself "The" would be "▁The"; after a space at the prompt's end it is."""
    words = tokenizer("llama3", metaspace=True)
    name = words.convert_ids_to_tokens
    _, completion, _ = one(Encoder(tokenizer=words), QUESTION, [assistant("The"), user("a"), assistant("Rome")])
    assert "The" in name(completion) and "Rome" in name(completion) and "▁Rome" not in name(completion)
    prompt, completion, scored = one(Encoder(tokenizer=words), "is ", "The")
    assert [*prompt, *completion] == [*words("is The", add_special_tokens=False).input_ids, words.eos_token_id]
    assert name(completion) == ["▁The", "<|endoftext|>"] and scored == [True, True]


def test_completions_share_the_prompt_up_to_where_all_have_its_tokens():
    words = tokenizer("llama3", metaspace=True)
    ((prompt, (the, x)),) = Encoder(tokenizer=words).encode(["is "], [["The", "+"]])
    name = words.convert_ids_to_tokens
    assert name(prompt)[-1] == "s"
    assert name(the.ids) == ["▁The", "<|endoftext|>"] and the.scored == [True, True]
    assert name(x.ids) == ["▁", "+", "<|endoftext|>"] and x.scored == [False, True, True]


def test_an_end_within_an_answer_ends_nothing():
    encoder = Encoder(tokenizer=tokenizer("llama3"))
    assert trained(encoder, QUESTION, [assistant("Old <|endoftext|>price is five.")]) == [
        "Old <|endoftext|>price is five.<|eot|>"
    ]


def test_tools_and_options_of_a_row_reach_the_template():
    words = tokenizer("qwen3")
    prompt = Messages(QUESTION, tools=[{"name": "add"}], options={"opening": "So: "})
    text = words.decode(Encoder(tokenizer=words).prompts([prompt])[0])
    assert text.startswith('tools: [{"name": "add"}]\n<|im_start|>user') and text.endswith("assistant\nSo: ")


def test_white_space_belongs_to_whom_it_stands_with():
    """Byte-level tokenizers leave it out of the places of their tokens."""
    encoder = Encoder(tokenizer=tokenizer("smollm2"))
    assert trained(encoder, QUESTION, [assistant("\n\n Paris \n")]) == ["\n\n Paris \n<|im_end|>"]
    assert trained(encoder, "is ", "\n\n") == ["\n\n<|im_end|>"]


def test_a_system_message_that_a_template_refuses_is_told():
    with pytest.raises(UserError, match=r"the chat template refuses the messages system, user: no system role"):
        Encoder(tokenizer=tokenizer("gemma"), system="Be brief.").prompts([QUESTION])


def test_a_conversation_is_shortened_at_its_beginning_within_its_frame():
    encoder = Encoder(tokenizer=tokenizer("smollm2"))
    system = {"role": "system", "content": "Be brief."}
    long = [system, user("What is what? " * 9), assistant("Paris."), user("And of Italy?")]
    whole, latest = (len(ids) for ids in encoder.prompts([long, [system, long[-1]]]))
    assert encoder.shortened(long, whole) == long
    assert encoder.shortened(long, whole - 1) == [system, *long[2:]]
    assert encoder.shortened(long, latest) == [system, long[-1]]
    cut = encoder.shortened(long, latest - 2)
    assert (
        cut[0] == system and cut[1]["role"] == "user" and long[-1]["content"].endswith(cut[1]["content"]) and cut[1]["content"]
    )
    assert len(encoder.prompts([cut])[0]) <= latest - 2
