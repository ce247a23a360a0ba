"""How well a model writes: perplexity on held-out stories by source, and stories it writes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from benchmarks.stories.corpus import IGNORED, Story, encode, windows

ROWS = 32  # windows of one forward


@torch.no_grad()
def perplexity(model: Any, tokenizer: Any, stories: Sequence[Story], length: int) -> dict[str, dict[str, float]]:
    """By source, and of all: perplexity per token and per character, bits per byte, tokens. Each story follows BOS and ends
    with EOS, which counts; longer ones are read through windows that overlap by half: a token has half a context or more."""
    model.eval()
    loss: dict[str, float] = defaultdict(float)
    tokens: dict[str, int] = defaultdict(int)
    characters: dict[str, int] = defaultdict(int)
    cut = []
    for story, tokenised in zip(stories, encode(stories, tokenizer), strict=True):
        cut += [(story.source, *window) for window in windows([tokenizer.bos_token_id, *tokenised], length, length // 2)]
        characters[story.source] += len(story.text)
    for start in range(0, len(cut), ROWS):
        chunk = cut[start : start + ROWS]
        ids = pad_sequence([torch.tensor(window) for _, window, _ in chunk], batch_first=True)
        labels = torch.full_like(ids, IGNORED)
        for row, (_, window, scored) in enumerate(chunk):
            labels[row, scored : len(window)] = ids[row, scored : len(window)]
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        nll = F.cross_entropy(logits.transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none").sum(-1)
        for (source, _, _), row, targets in zip(chunk, nll.tolist(), labels, strict=True):
            loss[source] += row
            tokens[source] += int((targets != IGNORED).sum())
    loss["all"], tokens["all"], characters["all"] = sum(loss.values()), sum(tokens.values()), sum(characters.values())
    return {
        source: {
            "perplexity": math.exp(loss[source] / tokens[source]),
            "perplexity_per_character": math.exp(loss[source] / characters[source]),
            "bits_per_byte": loss[source] / characters[source] / math.log(2),  # the corpus is ASCII
            "tokens": tokens[source],
        }
        for source in sorted(loss)
    }


@torch.no_grad()
def samples(model: Any, tokenizer: Any, prompts: Sequence[str], temperature: float, seed: int, length: int) -> list[str]:
    """One story for each opening, sampled from the whole distribution at this temperature."""
    model.eval()
    torch.manual_seed(seed)
    texts = []
    for prompt in prompts:
        ids = tokenizer([prompt], return_tensors="pt")["input_ids"]
        ids_of_story = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_length=length,
        )
        texts.append(tokenizer.decode(ids_of_story[0], skip_special_tokens=True))
    return texts
