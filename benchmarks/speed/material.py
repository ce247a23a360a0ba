"""What both programs read: models with their tokenizer on disk, and rows in the order in which alignzoo will take them."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from alignzoo.common.noise import generator
from benchmarks.speed.kinds import KINDS

# hidden size, layers, heads, feed-forward size, vocabulary
SIZES = {
    "tiny": (16, 1, 2, 32, 300), "1M": (128, 4, 4, 344, 1024), "15M": (384, 6, 6, 1024, 8192),
    "60M": (640, 8, 10, 1712, 32768),
}  # fmt: skip
TEACHERS = {"tiny": (24, 1, 2, 32), "1M": (256, 6, 4, 688), "15M": (640, 8, 10, 1712)}  # over the student's vocabulary
LIMIT = 1000  # tokens of prompt and completion
SEED = 0
FORTY = {"min_new_tokens": 40, "max_new_tokens": 40}
CONSTANT = 0.1  # several times the deviation of an embedding's other coordinates


def prepare(folder: Path, size: str, data: Path, rows: int) -> None:
    """Write into `folder`: model, scorer and teacher; pairs, demonstrations and judged as NAME.jsonl for alignzoo, which
    shuffles, and as NAME-ordered.jsonl, in the order it takes them, for TRL, which is told not to."""
    if (folder / "ready").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    pairs = list({pair["prompt"]: pair for pair in _pairs(data)}.values())  # who samples asks each prompt once
    tokenizer = byte_pairs([text for pair in pairs for text in pair.values()], SIZES[size][4])
    fits = lambda pair: max(len(tokenizer(pair["prompt"] + pair[s])["input_ids"]) for s in ("chosen", "rejected")) <= LIMIT  # noqa: E731
    kept = [pair for pair in pairs if fits(pair)][:rows]
    rows_of(kept, folder)
    models(folder, size, tokenizer, kept)
    (folder / "ready").touch()


def rows_of(pairs: list[dict[str, str]], folder: Path) -> None:
    """Write every view of the pairs, in both orders."""
    order = generator(SEED, "order", 0).permutation(len(pairs)).tolist()  # alignzoo reads row `order[place]` at `place`
    for name, rows in views(pairs).items():
        stored: list[Any] = [None] * len(rows)
        for place, row in enumerate(order):
            stored[row] = rows[place]
        _write(folder / f"{name}.jsonl", stored)
        batch = KINDS["kto"].batch
        ordered = list(zip(order, rows, strict=True))
        if name == "judged":  # whose completion is whose mismatched one goes by the rows' numbers, within a step
            ordered = [
                pair for i in range(0, len(ordered), batch) for pair in sorted(ordered[i : i + batch], key=lambda p: p[0])
            ]
            rows = [row | {"label": bool(row["label"])} for _, row in ordered]
        _write(folder / f"{name}-ordered.jsonl", rows)


def views(pairs: list[dict[str, str]]) -> dict[str, list[dict[str, Any]]]:
    """Pairs; their chosen sides as demonstrations; one side of each, in turn the chosen and the rejected, judged."""
    sides = [("chosen", "rejected")[i % 2] for i in range(len(pairs))]
    return {
        "pairs": pairs,
        "demonstrations": [{"prompt": p["prompt"], "completion": p["chosen"]} for p in pairs],
        "judged": [
            {"prompt": p["prompt"], "completion": p[side], "label": int(side == "chosen")}
            for p, side in zip(pairs, sides, strict=True)
        ],
    }


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _pairs(data: Path) -> Iterator[dict[str, str]]:
    """Preference pairs as they are; of plain texts, the first sentence is the prompt and what follows the answer (the
    rejected one is another text's): short prompts, long answers."""
    with (gzip.open if data.suffix == ".gz" else open)(data, "rt", encoding="utf-8") as lines:
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


def byte_pairs(texts: list[str], vocabulary: int) -> Any:
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def models(folder: Path, size: str, tokenizer: Any, pairs: list[dict[str, str]]) -> None:
    """The policy, a scorer on the same trunk, a larger teacher where there is one for the size, and the policy as one that
    ends its completions when they are as long as the data's, on average."""
    import torch
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(SEED)
    policy = LlamaForCausalLM(config(*SIZES[size], tokenizer))
    scorer = LlamaForSequenceClassification(config(*SIZES[size], tokenizer, num_labels=1))
    scorer.model.load_state_dict(policy.model.state_dict())
    modules: dict[str, Any] = {"model": policy, "scorer": scorer}
    if size in TEACHERS:
        modules["teacher"] = LlamaForCausalLM(config(*TEACHERS[size], SIZES[size][4], tokenizer))
    sampler = copy.deepcopy(policy)
    lengths = [len(tokenizer(pair["chosen"])["input_ids"]) + 1 for pair in pairs]
    prompts = [tokenizer(pair["prompt"])["input_ids"] for pair in pairs[:8]]
    end_after(sampler, tokenizer.eos_token_id, sum(lengths) / len(lengths), prompts)
    modules["sampler"] = sampler
    for name, module in modules.items():
        module.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def end_after(module: Any, end: int, length: float, prompts: list[list[int]]) -> None:
    """Let each token be the end with probability 1 / length, on average over what is written after these prompts: the first
    coordinate of all embeddings is the same, hence nearly so in the last states, and the end's is larger by what that takes."""
    import torch

    weight = module.get_input_embeddings().weight.data
    weight[:, 0] = CONSTANT
    torch.manual_seed(SEED)
    states = []
    with torch.no_grad():
        for prompt in prompts:
            ids = torch.tensor([prompt])
            written = module.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, **FORTY)
            states.append(module.model(written).last_hidden_state[0, len(prompt) :])
        rows = torch.cat(states)
        rest = (rows @ weight.T).index_fill(1, torch.tensor([end]), -torch.inf).logsumexp(1)
        low, high = -20.0, 20.0
        for _ in range(40):
            middle = (low + high) / 2
            logit = rows @ weight[end] + middle * rows[:, 0]
            low, high = (low, middle) if (logit - rest).sigmoid().mean() > 1 / length else (middle, high)
    weight[end, 0] += low


def config(hidden: int, layers: int, heads: int, inner: int, vocabulary: int, tokenizer: Any, **more: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads, max_position_embeddings=2048, tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None, **more,
    )  # fmt: skip
