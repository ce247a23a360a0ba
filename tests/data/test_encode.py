"""Prompts and completions as token ids: joints, ends, chat templates."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from alignzoo.batch import Completions
from alignzoo.data.encode import Encoder
from alignzoo.models.tokenizers import byte_level, train_bpe
from alignzoo.settings import UserError

EOS = 2


def ids(text: str) -> list[int]:
    return [3 + byte for byte in text.encode()]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def encode(encoder: Encoder, prompt, completion):
    """The prompt's ids, and the completion's tokens."""
    [prompt_ids] = encoder.prompts([prompt])
    [tokens] = encoder.completions([prompt], [prompt_ids], [completion])
    return prompt_ids, tokens


def words(ends: bool = False) -> PreTrainedTokenizerFast:
    """In the manner of SentencePiece: text begins with a mark, which what follows other text lacks; T5 ends it, too."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("▁hi", -1.0), ("▁there", -1.0), ("▁", -5.0), ("there", -2.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=4))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def templated(template: str) -> PreTrainedTokenizerFast:
    tokenizer = byte_level()
    tokenizer.split_special_tokens = False
    tokenizer.chat_template = template
    return tokenizer


def test_a_plain_completion_follows_its_prompt_and_ends():
    prompt, completion = encode(Encoder(tokenizer=byte_level()), "ab", "c")
    assert prompt == [100, 101]
    assert completion.ids == [102, EOS]
    assert completion.scored == [True, True]
    assert not completion.truncated


def test_an_empty_prompt_is_the_beginning_token_or_else_the_end_token():
    assert Encoder(tokenizer=byte_level()).prompts([""]) == [[1]]
    assert Encoder(tokenizer=words()).prompts([""]) == [[1]]


def test_text_that_looks_like_an_end_is_text():
    _, completion = encode(Encoder(tokenizer=byte_level()), "a", "b<eos>")
    assert completion.ids == [*ids("b<eos>"), EOS]


def test_a_completion_is_tokenised_with_its_prompt_where_the_prompt_keeps_its_tokens():
    prompt, completion = encode(Encoder(tokenizer=words()), "hi", "there")
    assert (prompt, completion.ids) == ([2], [5, 1])  # "there", not "▁there" as it would be alone


def test_a_prompt_keeps_its_tokens_where_the_joint_would_merge_them():
    tokenizer = train_bpe(["ab"] * 9, 260)
    merged = tokenizer("ab").input_ids
    prompt, completion = encode(Encoder(tokenizer=tokenizer), "a", "b")
    assert len(merged) == 1
    assert prompt + completion.ids == tokenizer("a").input_ids + tokenizer("b").input_ids + [EOS]


def test_an_encoder_decoder_tokenizer_ends_prompt_and_completion_once_each():
    prompt, completion = encode(Encoder(tokenizer=words(ends=True), encoder_decoder=True), "hi", "there")
    assert (prompt, completion.ids) == ([2, 1], [3, 1])


def test_messages_go_through_the_chat_template():
    prompt, completion = encode(Encoder(tokenizer=byte_level()), [user("hi")], [assistant("yo")])
    assert prompt == ids("user: hi\nassistant: ")
    assert completion.ids == [*ids("yo"), EOS]
    assert all(completion.scored)


def test_plain_text_as_chat_is_the_same_as_its_messages():
    encoder = Encoder(tokenizer=byte_level(), chat=True, system="be brief")
    prompt, completion = encode(encoder, "hi", "yo")
    assert prompt == ids("system: be brief\nuser: hi\nassistant: ")
    assert completion.ids == [*ids("yo"), EOS]


def test_of_a_longer_conversation_only_what_the_assistant_wrote_is_scored():
    _, completion = encode(Encoder(tokenizer=byte_level()), [user("q")], [assistant("a"), user("b"), assistant("cd")])
    between = ids("\nuser: b\nassistant: ")
    assert completion.ids == [*ids("a"), *between, *ids("cd"), EOS]
    assert completion.scored == [True] + [False] * len(between) + [True] * 3


def test_what_a_template_writes_after_the_end_is_left_out():
    tokenizer = templated(
        "{% for m in messages %}[{{ m.content }}<eos>\n{% endfor %}{% if add_generation_prompt %}[{% endif %}"
    )
    prompt, completion = encode(Encoder(tokenizer=tokenizer), [user("q")], [assistant("a")])
    assert prompt == [*ids("[q"), EOS, *ids("\n[")]
    assert completion.ids == [*ids("a"), EOS]


def test_a_plain_completion_keeps_what_follows_an_end_and_gets_no_second_one():
    encoder = Encoder(tokenizer=templated(""))
    assert encode(encoder, "p", "a<eos>b")[1].ids == [*ids("a"), EOS, *ids("b"), EOS]
    assert encode(encoder, "p", "a<eos>")[1].ids == [*ids("a"), EOS]


def test_template_and_options_of_the_data_replace_the_tokenizers():
    encoder = Encoder(tokenizer=byte_level(), template="{{ mark }}{{ messages[0].content }}", options={"mark": "#"})
    assert encoder.prompts([[user("q")]]) == [ids("#q")]


def test_settings_about_messages_are_refused_where_all_is_plain_text(source, context):
    rows = [{"prompt": "1 and 1 are", "completion": " 2."}]
    with pytest.raises(UserError, match=r"data.system=Count. is about messages, and these rows are plain text: give data.chat"):
        source(rows, system="Count.").tables(Completions, context)
    with pytest.raises(UserError, match=r"data.template_options=.* is about messages"):
        source(rows, template_options={"enable_thinking": False}).tables(Completions, context)


def test_messages_without_a_template_say_what_to_do():
    with pytest.raises(UserError, match=r"no chat template\ngive one with data.chat_template=FILE"):
        Encoder(tokenizer=words()).prompts([[user("q")]])


def test_a_template_that_rewrites_the_past_is_refused():
    template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(UserError, match="rewrites earlier text"):
        encode(Encoder(tokenizer=templated(template)), [user("q")], [assistant("a")])


def test_a_template_that_refuses_a_conversation_is_the_users_mistake():
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(UserError, match="refuses the messages user: roles must alternate"):
        Encoder(tokenizer=templated(template)).prompts([[user("q")]])


def test_cutting_keeps_the_beginning_and_says_so():
    _, completion = encode(Encoder(tokenizer=byte_level()), "a", "bcd")
    cut = completion.cut(2)
    assert (cut.ids, cut.scored, cut.truncated) == (ids("bc"), [True, True], True)
    assert completion.cut(4) is completion
