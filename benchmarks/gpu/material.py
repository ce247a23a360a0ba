"""What both programs read, made on the spot from a seed: rows, a tokenizer of a real size, a model of fresh weights.

Prompts have 120 tokens and answers 250, about, log-normally spread, as in data of instructions; words are made of syllables.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.plan import LARGE, SMALL, Size
from benchmarks.speed.material import byte_pairs, rows_of

SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
LEARNT = 8000  # tokens that the text has; the rest of the vocabulary is there, and no text has it
PROMPT, ANSWER, SPREAD, LONGEST = 120, 250, 0.6, 600


def prepare(folder: Path, size: Size, small: bool) -> None:
    """Write the rows of every view, and the model with its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = pairs(size.pairs, 0.06 if small else 1.0)
    tokenizer = vocabulary([text for row in rows[:400] for text in row.values()], size.vocabulary)
    rows_of(rows, folder)
    module = model(size, tokenizer)
    module.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def pairs(count: int, scale: float) -> list[dict[str, str]]:
    """Preference pairs, no prompt twice."""
    rng = np.random.default_rng(0)
    words = sorted({"".join(rng.choice(SYLLABLES, size=rng.integers(1, 4))) for _ in range(6000)})
    common = rng.zipf(1.3, size=200_000) % len(words)

    def text(tokens: float) -> str:
        length = int(np.clip(tokens * scale * rng.lognormal(0, SPREAD), 3, LONGEST))
        return " " + " ".join(words[i] for i in rng.choice(common, size=length))

    return [
        {"prompt": f"Human {i}:{text(PROMPT)}", "chosen": text(ANSWER), "rejected": text(ANSWER)} for i in range(count)
    ]  # fmt: skip


def vocabulary(texts: list[str], size: int) -> Any:
    """Byte pairs learnt from the texts, then tokens that none of them makes, up to `size`."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = json.loads(byte_pairs(texts, min(LEARNT, size)).backend_tokenizer.to_str())
    entries = state["model"]["vocab"]
    entries |= {f"<unused {i}>": i for i in range(len(entries), size)}
    backend = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")


def model(size: Size, tokenizer: Any) -> Any:
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        vocab_size=size.vocabulary, hidden_size=size.hidden, intermediate_size=size.inner, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, num_key_value_heads=size.key_heads, max_position_embeddings=2048,
        tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def product_rate(small: bool) -> float:
    """FLOPs a second of a matrix product in bfloat16 (on a CPU float32) of random numbers, the median of several."""
    cuda = torch.cuda.is_available()
    size, device = 256 if small else 8192, "cuda" if cuda else "cpu"
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16 if cuda else torch.float32) for _ in range(2))
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        left @ right
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / float(np.median(seconds[4:]))


if __name__ == "__main__":
    small = "small" in sys.argv
    prepare(Path(sys.argv[1]), SMALL if small else LARGE, small)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    print(json.dumps({"device": name, "product_flops": product_rate(small)}))
