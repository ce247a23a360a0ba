"""What both programs read: a model with its tokenizer on disk, and rows in the order in which alignzoo will take them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from alignzoo.models.noise import generator

# hidden size, layers, heads, feed-forward size, vocabulary
SIZES = {"1M": (128, 4, 4, 344, 1024), "15M": (384, 6, 6, 1024, 8192), "60M": (640, 8, 10, 1712, 32768)}
LIMIT = 1000  # tokens of prompt and completion
SEED = 0


def prepare(folder: Path, size: str, data: Path, rows: int) -> None:
    """Write `folder`/model and `folder`/rows.jsonl (prompt, chosen, rejected), the latter in reading order."""
    if (folder / "ready").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    pairs = list(_pairs(data))
    tokenizer = _tokenizer([text for pair in pairs for text in pair.values()], SIZES[size][4])
    _model(size, tokenizer).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    fits = lambda pair: max(len(tokenizer(pair["prompt"] + pair[s])["input_ids"]) for s in ("chosen", "rejected")) <= LIMIT  # noqa: E731
    kept = [pair for pair in pairs if fits(pair)][:rows]
    order = generator(SEED, "order", 0).permutation(len(kept)).tolist()
    stored: list[Any] = [None] * len(kept)
    for place, row in enumerate(order):  # alignzoo reads row `order[place]` at `place`
        stored[row] = kept[place]
    _write(folder / "rows.jsonl", stored)  # for alignzoo, which shuffles
    _write(folder / "ordered.jsonl", kept)  # for TRL, which is told not to
    for name in ("rows", "ordered"):
        demonstrations = [{"prompt": p["prompt"], "completion": p["chosen"]} for p in (stored if name == "rows" else kept)]
        _write(folder / f"{name}-sft.jsonl", demonstrations)
    (folder / "ready").touch()


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _pairs(data: Path) -> Iterator[dict[str, str]]:
    """Preference pairs as they are; of plain texts, the first sentence is the prompt and what follows the answer (the
    rejected one is another text's): short prompts, long answers."""
    with (gzip.open if data.suffix == ".gz" else open)(data, "rt", encoding="utf-8") as lines:  # type: ignore[operator]
        read = [json.loads(line) for line in lines]
    if "chosen" in read[0]:
        for row in read:
            pair = {key: row[key] for key in ("prompt", "chosen", "rejected")}
            if all(pair.values()) and pair["chosen"] != pair["rejected"]:
                yield pair
        return
    texts = [row["text"].strip()[:1200] for row in read]
    cut = [text.partition(". ") for text in texts if ". " in text]
    for (prompt, dot, chosen), (_, _, rejected) in pairwise(cut):
        if len(chosen) > 400 and len(rejected) > 400:
            yield {"prompt": prompt + dot.strip(), "chosen": " " + chosen, "rejected": " " + rejected}


def _tokenizer(texts: list[str], vocabulary: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")


def _model(size: str, tokenizer: Any) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, layers, heads, inner, vocabulary = SIZES[size]
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads, max_position_embeddings=2048, tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config)
