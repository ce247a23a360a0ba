"""What a run leaves of its networks, compared with those that were trained before it is called the result."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.common import disk
from alignzoo.common import folder as folders
from alignzoo.common.folder import ADAPTER, CHECKPOINTS, MODEL, WEIGHTS
from alignzoo.engine import checkpoint, memory
from alignzoo.engine.run_trainer import RunTrainer
from alignzoo.engine.trainer import AlignTrainer
from alignzoo.errors import UserError
from alignzoo.models import rotary
from alignzoo.models.forward import attention, padded
from alignzoo.models.forward.trial import trying
from alignzoo.models.loading import Location, merged

CARD = "README.md"
logger = logging.getLogger("alignzoo")
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-6}  # of the largest output; other dtypes and merged adapters: below
ROUNDED, MERGED = 5e-2, 1e-4


def save(trainer: RunTrainer, folder: Path, card: str = "") -> None:
    """The run's `model/`: the policy, or scorer, as `from_pretrained` loads it, adapters merged; the other trained roles beside
    it; and where it trained an adapter of a model that is somewhere, `adapter/` too; `card` in each. Raises UserError where
    what is loaded differs from what was trained; it is kept as `weights-STEP` then."""
    main = trainer.trained.main
    whole = merged(copy.deepcopy(main)) if hasattr(main, "merge_and_unload") else main

    def fill(partial: Path, module: nn.Module = main) -> None:
        checkpoint.save_main(module, partial, trainer.tokenizer, trainer.encoder)
        (partial / CARD).write_text(card, "utf-8")

    def fill_whole(partial: Path) -> None:
        fill(partial, whole)
        for name, module in trainer.trained.roles.items():
            if module is not main:
                checkpoint.save_module(module, partial / name)
        if isinstance(trainer, AlignTrainer) and trainer.lessons:
            trainer.lessons.save(partial)

    if any(config.base_model_name_or_path for config in getattr(main, "peft_config", {}).values()):
        checkpoint.write(folder / ADAPTER, fill)
    whole.config.use_cache = True  # off in training; whoever loads it samples
    checkpoint.write(folder / MODEL, fill_whole)
    if problem := difference(main, whole, folder / MODEL):
        kept = folder / f"{WEIGHTS}{trainer.inner.state.global_step}"
        checkpoint.place(folder / MODEL, kept)
        raise UserError(f"the trained model can't be saved as it is: {problem}. What was saved is in {kept}")


def difference(main: PreTrainedModel, whole: PreTrainedModel, folder: Path) -> str:
    """How the outputs of what was saved differ from the trained network's; "" for the same."""
    weight = next(main.parameters())
    if sum(p.numel() * p.element_size() for p in whole.parameters()) > memory.free(weight.device):
        logger.warning("%s was not compared with the network that was trained: memory has no room for a second one", folder)
        return ""
    location = Location("run", str(folder), trust_remote_code=type(whole).__module__.startswith("transformers_modules"))
    kernel = whole.config._attn_implementation
    kernel = "sdpa" if kernel == attention.NAME else kernel
    loaded_again: nn.Module = location.network(type(whole), dtype=weight.dtype, attn_implementation=kernel)
    saved = loaded_again.to(weight.device)
    assert isinstance(saved, PreTrainedModel)
    if rotary.is_long(whole):
        rotary.lengthen(saved)
    with torch.no_grad(), trying(main), trying(saved):
        trained, loaded = _outputs(main), _outputs(saved)
    off = ((trained - loaded).abs().max() / trained.abs().max().clamp(min=1)).item()
    allowed = TOLERANCE.get(weight.dtype, ROUNDED)
    allowed = max(allowed, MERGED) if whole is not main else allowed
    return "" if off <= allowed else f"loaded again, its outputs differ by {off:.1e} of the largest, more than {allowed:.0e}"


def _outputs(module: PreTrainedModel) -> Tensor:
    """Of two rows of made-up tokens."""
    device, size = next(module.parameters()).device, int(module.config.get_text_config().vocab_size)
    ids = (torch.arange(16, device=device).view(2, 8) * 7919 + 1) % size
    more = {"decoder_input_ids": ids} if padded.is_encoder_decoder(module) else {}
    outputs: Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids), **more).logits
    return outputs.float()


def salvage(trainer: RunTrainer, folder: Path) -> str:
    """Keeps what a full disk has room for, first of all by giving up what is half written, and says what that is."""
    folders.sweep(folder)
    inner, kept = trainer.inner, list[str]()
    step = inner.state.global_step
    weights, last = folder / f"{WEIGHTS}{step}", checkpoint.latest(folder / CHECKPOINTS)
    saved = checkpoint.step_of(last) if last else 0
    try:
        if trainer.ended and checkpoint.complete(folder / MODEL):  # only the summary had no room
            checkpoint.place(folder / MODEL, weights)
        elif step > saved and not (inner.is_fsdp_enabled or inner.is_deepspeed_enabled):
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
