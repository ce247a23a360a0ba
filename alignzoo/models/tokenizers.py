"""Tokenizers that need no download: the embedded byte-level one, and byte-level BPE trained on the texts of an experiment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from alignzoo.batch import Prompts
from alignzoo.contracts import Context
from alignzoo.errors import UserError

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
SPECIAL = [PAD, BOS, EOS]

# "user: Hello", "assistant: Hi", one line each; an answer adds its own text alone, so that what is learnt is what is generated.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}"
    "{{ message['role'] + ': ' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\nassistant: ' }}{% endif %}"
)


def byte_level() -> PreTrainedTokenizerFast:
    """One token a byte: <pad> is 0, <bos> 1, <eos> 2, and byte b is 3 + b. Any text comes back unchanged, that of the special
    tokens included."""
    vocabulary = {token: i for i, token in enumerate(SPECIAL + _byte_symbols())}
    return _fast(Tokenizer(models.BPE(vocab=vocabulary, merges=[])))


def train_bpe(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE (Sennrich et al. 2016) of at most `size` tokens, the special ones and the 256 bytes included."""
    if size < len(SPECIAL) + 256:
        raise UserError(f"a byte-level vocabulary of {size} tokens is too small: give at least {len(SPECIAL) + 256}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=_byte_symbols(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _fast(tokenizer)


def check(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises UserError where nothing could end a completion. Padding needs no token: masks say what is there."""
    name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer {name} has no EOS token, so completions could not end\n"
            "name one in its tokenizer_config.json (eos_token), or choose another with model.tokenizer=PATH"
        )


def padding(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token that no text ends with, for models that find their last token by what pads: the padding token, unless it is EOS
    too, as of many chat models; then another special one, or the first of all."""
    candidates = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, *sorted(tokenizer.all_special_ids), 0)
    return next(int(token) for token in candidates if token not in (None, tokenizer.eos_token_id))


@dataclass(frozen=True)
class RunTokenizer:
    """`contracts.TextTools`. The context's encoder, where the data is text, is there once its tables are read."""

    context: Context
    ends: frozenset[int]

    @property
    def eos(self) -> int:
        return int(self.context.tokenizer.eos_token_id)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(ids) for ids in self.context.tokenizer(list(texts), add_special_tokens=False).input_ids]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        return self.context.tokenizer.batch_decode([list(tokens) for tokens in ids], skip_special_tokens=True)

    def prompts(self, texts: Sequence[Any], row: Tensor) -> Prompts:
        encoder = self.context.encoder
        rows = self.encode(texts) if encoder is None else encoder.prompts([encoder.typed(text) for text in texts])
        flat = [torch.tensor(ids or [self.eos], device=row.device) for ids in rows]
        ids = pad_sequence(flat, batch_first=True, padding_side="left")
        marks = pad_sequence([torch.ones_like(x, dtype=torch.bool) for x in flat], batch_first=True, padding_side="left")
        return Prompts(ids=ids, attended=marks, row=row, decode=self.decode, made_of=list(texts))


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # "<eos>" in somebody's text is text, not the end
    )


def _byte_symbols() -> list[str]:
    """The 256 symbols of byte-level BPE in the order of their bytes: itself where printable, else the next one from 256 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    further = iter(range(256, 512))
    return [chr(byte if byte in printable else next(further)) for byte in range(256)]
