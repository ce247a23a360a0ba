"""The embedded tokenizer, the trained one, and what is asked of anybody's."""

import random

import pytest
from transformers import AutoTokenizer

from alignzoo.models.tokenizers import byte_level, check, padding, train_bpe
from alignzoo.settings import UserError

TEXTS = ["", "  two  spaces \n\t", "<eos> is text, <pad> too", "don't.,!'s", "é€𝄞", "".join(map(chr, range(2000)))]


def random_texts(count: int) -> list[str]:
    draw = random.Random(0)
    ranges = [(0, 127), (128, 0xD7FF), (0x10000, 0x10FFFF)]
    return ["".join(chr(draw.randint(*draw.choice(ranges))) for _ in range(12)) for _ in range(count)]


def test_byte_level_ids_are_the_bytes_after_three_special_tokens():
    tokenizer = byte_level()
    assert (len(tokenizer), tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (259, 0, 1, 2)
    assert tokenizer("aé<eos>").input_ids == [3 + byte for byte in "aé<eos>".encode()]


@pytest.mark.parametrize("tokenizer", [byte_level(), train_bpe(["the cat sat on the mat"] * 3, 280)], ids=["bytes", "bpe"])
def test_any_text_comes_back_unchanged(tokenizer):
    for text in TEXTS + random_texts(100):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_saving_and_loading_changes_nothing(tmp_path):
    byte_level().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert [loaded(text).input_ids for text in TEXTS] == [byte_level()(text).input_ids for text in TEXTS]
    assert loaded.chat_template == byte_level().chat_template


def test_bpe_learns_the_frequent_words_and_no_more_than_its_size():
    tokenizer = train_bpe(["the cat sat on the mat"] * 3, 270)
    assert len(tokenizer) == 270
    assert "the" in tokenizer("the cat").tokens()


def test_bpe_smaller_than_the_bytes_is_refused():
    with pytest.raises(UserError, match="100 tokens is too small: give at least 259"):
        train_bpe(["text"], 100)


@pytest.mark.parametrize("pad", ["<pad>", "<eos>", None])
def test_a_tokenizer_must_have_an_end_and_may_pad_with_it(pad):
    tokenizer = byte_level()
    tokenizer.pad_token = pad
    check(tokenizer)
    assert padding(tokenizer) == (0 if pad == "<pad>" else tokenizer.bos_token_id)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no EOS token, so completions could not end"):
        check(tokenizer)
