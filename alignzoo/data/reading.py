"""How a run reads text: all that says which tokens a text becomes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from alignzoo.common import fingerprint
from alignzoo.contracts import Context, Source
from alignzoo.data.json_text import Report
from alignzoo.data.text import TextSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DECODING = ("split_special_tokens", "clean_up_tokenization_spaces", "truncation_side")


def reading(source: Source, context: Context) -> Report:
    """{name: value or hash} of the tokenizer, and of all else that the source's encoder reads texts by."""
    settings = source.encoder(context).settings if isinstance(source, TextSource) else {}
    return {"tokenizer": _tokenizer(context.tokenizer), **settings}


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of the vocabulary, of how text is cut, and of the special tokens; not of how a batch was padded last."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole = (
        json.loads(backend.to_str()) if backend else {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    )
    kept = {name: value for name, value in whole.items() if name not in ("padding", "truncation")}
    return fingerprint.of_json(
        [kept, tokenizer.special_tokens_map, {name: getattr(tokenizer, name, None) for name in DECODING}]
    )
