"""Train, measure and pack the embedded story model.

    python -m benchmarks.stories DATA OUT [--steps N] [--decay N]

DATA has train.jsonl.gz and valid.jsonl.gz, rows of source and text. OUT gets tokenizer/, checkpoint.pt, progress.jsonl and, at
the end, model/ (float16 weights), results.json and samples.md. The same command goes on from the checkpoint, if it was stopped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignzoo.models.tokenizers import train_bpe
from benchmarks.stories.corpus import Story, encode, read
from benchmarks.stories.measure import perplexity, samples
from benchmarks.stories.training import Recipe, fresh, train

OPENINGS = (
    "once upon a time there was a little",
    "one day, a boy named tom went to the park",
    "the old woman lived alone in a small house near the forest.",
    "lily was sad because",
    "a long time ago, a lion and a mouse",
    "the king had three sons",
)
FEW = 24  # stories of each source that are watched during training


def main() -> None:
    options = arguments()
    recipe = Recipe(**{field.name: getattr(options, field.name) for field in fields(Recipe)})
    options.out.mkdir(parents=True, exist_ok=True)
    stories, heldout = read(options.data / "train.jsonl.gz"), read(options.data / "valid.jsonl.gz")
    tokenizer = vocabulary(options.out / "tokenizer", stories, recipe.vocabulary)
    model = fresh(recipe, tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(stories):,} stories", flush=True)
    sources = sorted({story.source for story in heldout})
    few = [story for source in sources for story in [s for s in heldout if s.source == source][:FEW]]
    watched = [Story(story.source, story.text[:1000]) for story in few]

    def report(step: int, row: dict[str, float]) -> None:
        now = perplexity(model, tokenizer, watched, recipe.context)
        row = {"step": step, **row} | {f"perplexity/{source}": round(of["perplexity"], 2) for source, of in now.items()}
        with (options.out / "progress.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)

    checkpoint = options.out / "checkpoint.pt"
    train(model, encode(stories, tokenizer), recipe, tokenizer, checkpoint, options.save_every, options.compile, report)
    finish(model, tokenizer, heldout, recipe, options.out)


def vocabulary(folder: Path, stories: list[Story], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the training stories, kept beside the checkpoint."""
    if not folder.exists():
        train_bpe((story.text for story in stories), size).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def finish(model: Any, tokenizer: Any, heldout: list[Story], recipe: Recipe, out: Path) -> None:
    """Writes the model as it is shipped, then measures what was written."""
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = out / "model"
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    description = json.loads((folder / "config.json").read_text())
    description["dtype"] = "float32"  # what it is computed in; the file is float16 to be small
    (folder / "config.json").write_text(json.dumps(description, indent=2) + "\n")
    shipped = LlamaForCausalLM.from_pretrained(folder)
    results = {
        "recipe": asdict(recipe),
        "parameters": shipped.num_parameters(),
        "heldout": perplexity(shipped, tokenizer, heldout, recipe.context),
    }
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    written = {heat: samples(shipped, tokenizer, OPENINGS, heat, recipe.seed, recipe.context) for heat in (0.7, 1.0)}
    pages = [f"## Temperature {heat}\n\n" + "\n\n".join(map(_quoted, texts)) for heat, texts in written.items()]
    (out / "samples.md").write_text("\n\n".join(pages) + "\n")
    print(json.dumps(results["heldout"], indent=2))


def _quoted(text: str) -> str:
    return "\n>\n".join(f"> {paragraph}" for paragraph in text.splitlines())


def arguments() -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stories", description="Train the embedded story model.")
    parser.add_argument("data", type=Path, help="the folder of train.jsonl.gz and valid.jsonl.gz")
    parser.add_argument("out", type=Path, help="where everything goes")
    parser.add_argument("--save-every", type=int, default=100, metavar="STEPS")
    parser.add_argument("--compile", action="store_true", help="torch.compile: faster, needs a C++ compiler")
    for field in fields(Recipe):
        name, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        parser.add_argument(name, type=kind, default=field.default, help=f"default: {field.default}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
