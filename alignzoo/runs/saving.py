"""What a run leaves of its networks, compared with those that were trained before it is called the result."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignzoo.common import disk
from alignzoo.common import folder as folders
from alignzoo.common.folder import ADAPTER, CHECKPOINTS, MODEL, WEIGHTS
from alignzoo.engine import checkpoint, memory
from alignzoo.errors import UserError
from alignzoo.models import rotary
from alignzoo.models.forward import attention, flat, padded
from alignzoo.models.loading import Location, merged

CARD = "README.md"
logger = logging.getLogger("alignzoo")
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-6}  # of the largest output; other dtypes and merged adapters: below
ROUNDED, MERGED = 5e-2, 1e-4


def ended(trainer: Any) -> bool:
    return bool(trainer.ended or trainer.state.global_step >= trainer.state.max_steps)


def save(trainer: Any, folder: Path, card: str) -> None:
    """The run's `model/`, and where it trained an adapter of a model that is somewhere, `adapter/` too; `card` in each."""
    main = trainer.trained.main
    adapters = getattr(main, "peft_config", {})

    def fill(partial: Path) -> None:
        checkpoint.save_main(main, partial, trainer.tokenizer, trainer.encoder)
        (partial / CARD).write_text(card, "utf-8")

    if any(config.base_model_name_or_path for config in adapters.values()):
        checkpoint.write(folder / ADAPTER, fill)
    save_model(trainer, folder / MODEL, card)


def save_model(trainer: Any, folder: Path, card: str = "") -> None:
    """The policy, or scorer, as `from_pretrained` loads it, adapters merged; the other trained roles beside it, and `card`.
    Raises UserError where what is loaded differs from what was trained; it is kept as `weights-STEP` then."""
    main = trainer.trained.main
    whole = merged(copy.deepcopy(main)) if hasattr(main, "merge_and_unload") else main

    whole.config.use_cache = True  # off in training; whoever loads it samples

    def fill(partial: Path) -> None:
        checkpoint.save_main(whole, partial, trainer.tokenizer, trainer.encoder)
        (partial / CARD).write_text(card, "utf-8")
        for name, module in trainer.trained.roles.items():
            if module is not main:
                checkpoint.save_module(module, partial / name)
        if lessons := getattr(trainer, "lessons", None):
            lessons.save(partial)

    checkpoint.write(folder, fill)
    if problem := difference(main, whole, folder):
        kept = folder.with_name(f"{WEIGHTS}{trainer.state.global_step}")
        checkpoint.place(folder, kept)
        raise UserError(f"the trained model can't be saved as it is: {problem}. What was saved is in {kept}")


def difference(main: Any, whole: Any, folder: Path) -> str:
    """How the outputs of what was saved differ from the trained network's; "" for the same."""
    weight = next(main.parameters())
    if sum(p.numel() * p.element_size() for p in whole.parameters()) > memory.free(weight.device):
        logger.warning("%s was not compared with the network that was trained: memory has no room for a second one", folder)
        return ""
    location = Location("run", str(folder), trust_remote_code=type(whole).__module__.startswith("transformers_modules"))
    kernel = whole.config._attn_implementation
    options = {"dtype": weight.dtype, "attn_implementation": "sdpa" if kernel == attention.NAME else kernel}
    saved = location.network(type(whole), **options).to(weight.device)
    if rotary.is_long(whole):
        rotary.lengthen(saved)
    with torch.no_grad(), flat.trying(main), flat.trying(saved):
        trained, loaded = _outputs(main), _outputs(saved)
    off = ((trained - loaded).abs().max() / trained.abs().max().clamp(min=1)).item()
    allowed = TOLERANCE.get(weight.dtype, ROUNDED)
    allowed = max(allowed, MERGED) if whole is not main else allowed
    return "" if off <= allowed else f"loaded again, its outputs differ by {off:.1e} of the largest, more than {allowed:.0e}"


def _outputs(module: Any) -> Tensor:
    """Of two rows of made-up tokens."""
    device, size = next(module.parameters()).device, int(module.config.get_text_config().vocab_size)
    ids = (torch.arange(16, device=device).view(2, 8) * 7919 + 1) % size
    more = {"decoder_input_ids": ids} if padded.is_encoder_decoder(module) else {}
    outputs: Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids), **more).logits
    return outputs.float()


def salvage(trainer: Any, folder: Path) -> str:
    """Keeps what a full disk has room for, first of all by giving up what is half written, and says what that is."""
    folders.sweep(folder)
    step, kept = trainer.state.global_step, []
    weights, last = folder / f"{WEIGHTS}{step}", checkpoint.latest(folder / CHECKPOINTS)
    saved = checkpoint.step_of(last) if last else 0
    try:
        if ended(trainer) and checkpoint.complete(folder / MODEL):  # only the summary had no room
            checkpoint.place(folder / MODEL, weights)
        elif step > saved and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
            if hasattr(trainer, "take_weights"):  # of a hosted trainer
                trainer.take_weights()
            checkpoint.write(
                weights,
                lambda partial: checkpoint.save_main(trainer.trained.main, partial, trainer.tokenizer, trainer.encoder),
            )
        kept += [f"the weights of step {step} in {weights}"] if weights.exists() else []
    except disk.DiskFull:
        pass
    kept += [last.name] if last else []
    lost = f"Steps {saved + 1} to {step} are lost" if step > saved else "No step is lost"
    what = f"Kept: {' and '.join(kept)}. " if kept else ""
    goes = f"goes on from {last.name}" if last else "begins again"
    return f"{what}{'' if weights.exists() else lost + '. '}Free some space: the same command {goes}"
