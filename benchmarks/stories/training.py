"""Training from nothing: Muon on the matrices of the layers, AdamW on the rest, and a checkpoint to go on from."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.stories.corpus import IGNORED, pack


@dataclass(frozen=True)
class Recipe:
    """The learning rate rises, stays, and falls to zero over the last `decay` steps: a longer run shares all but the fall."""

    vocabulary: int = 2048
    context: int = 256
    width: int = 256
    layers: int = 4
    heads: int = 4
    inner: int = 704
    dropout: float = 0.0
    rows: int = 16
    steps: int = 1500
    decay: int = 700
    warmup: int = 50
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    seed: int = 0

    def rate(self, step: int) -> float:
        """The share of the learning rate at a step, the first being 0."""
        return min(1.0, (step + 1) / self.warmup, (self.steps - step) / self.decay)


def fresh(recipe: Recipe, tokenizer: Any) -> LlamaForCausalLM:
    """The model before training, with dropout on what every layer adds."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(config)
    for layer in model.model.layers if recipe.dropout else []:
        for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
            part.register_forward_hook(lambda module, _, added: F.dropout(added, recipe.dropout, module.training))
    return model


def optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024), its updates scaled to the size of AdamW's, and AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    vectors = [p for name, p in model.named_parameters() if p.ndim != 2 or "layers" not in name]
    muon = torch.optim.Muon(matrices, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(vectors, lr=recipe.learning_rate, weight_decay=0.0, betas=(0.9, 0.95), fused=True)
    return [muon, adamw]


def batches(stories: list[list[int]], recipe: Recipe, tokenizer: Any, first: int) -> Iterator[Tensor]:
    """The batches from step `first` on, a function of seed and step alone."""
    per_epoch = len(stories) // recipe.rows
    epoch, start = divmod(first, per_epoch)
    while True:
        rng = random.Random(f"{recipe.seed} {epoch}")
        rows = pack(stories, recipe.context, tokenizer.bos_token_id, tokenizer.pad_token_id, rng)
        for number in range(start, per_epoch):
            yield rows[number * recipe.rows : (number + 1) * recipe.rows]
        epoch, start = epoch + 1, 0


def train(
    model: LlamaForCausalLM,
    stories: list[list[int]],
    recipe: Recipe,
    tokenizer: Any,
    checkpoint: Path,
    save_every: int,
    compiled: bool,
    report: Callable[[int, dict[str, float]], None],
) -> None:
    """Trains in place up to `recipe.steps`, from the checkpoint if there is one."""
    optimizers_of_model = optimizers(model, recipe)
    forward: Any = torch.compile(model) if compiled else model
    model.train()
    first = _restore(checkpoint, model, optimizers_of_model, recipe)
    losses, began = [], time.monotonic()
    for step, rows in zip(range(first, recipe.steps), batches(stories, recipe, tokenizer, first), strict=False):
        torch.manual_seed(recipe.seed * 1_000_000 + step)  # for dropout: the same, resumed or not
        loss = _loss(forward, rows, tokenizer.pad_token_id)
        loss.backward()
        losses.append(loss.item())
        _update(model, optimizers_of_model, recipe.learning_rate * recipe.rate(step))
        if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
            speed = len(losses) * rows.numel() / (time.monotonic() - began)
            report(step + 1, {"loss": sum(losses) / len(losses), "tokens_per_second": round(speed)})
            _save(checkpoint, model, optimizers_of_model, recipe, step + 1)
            model.train()
            losses, began = [], time.monotonic()


def _loss(forward: Any, rows: Tensor, pad: int) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss: Tensor = forward(input_ids=rows, labels=rows.masked_fill(rows == pad, IGNORED), use_cache=False).loss
    return loss


def _update(model: nn.Module, optimizers: list[torch.optim.Optimizer], rate: float) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()


def _save(path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], recipe: Recipe, step: int) -> None:
    state = {
        "step": step,
        "recipe": asdict(recipe),
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    aside = path.with_suffix(".partial")
    torch.save(state, aside)
    aside.replace(path)


def _restore(path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], recipe: Recipe) -> int:
    """The steps done. A checkpoint may be continued for longer than it was meant to, but not past the beginning of its fall."""
    if not path.exists():
        return 0
    state = torch.load(path)
    fixed = asdict(recipe) | {name: state["recipe"][name] for name in ("steps", "decay")}
    begun = Recipe(**state["recipe"])
    if fixed != state["recipe"]:
        raise SystemExit(f"{path} was trained by another recipe: {begun}")
    if recipe != begun and state["step"] > min(begun.steps - begun.decay, recipe.steps - recipe.decay) + 1:
        done = f"{path} is at step {state['step']}"
        raise SystemExit(f"{done}, where the learning rate falls already: --steps and --decay must stay as they were")
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])
