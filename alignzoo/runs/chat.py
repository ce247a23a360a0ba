"""A conversation with a finished run's policy, and after each question what its reference would have answered."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from alignzoo.common import console
from alignzoo.data.messages import Message
from alignzoo.errors import UserError, printable
from alignzoo.runs.sample import SIDES, PairSampler

NEW = "/new"  # typed, begins another conversation


def chat(
    run: Path, questions: Iterable[str], system: str | None = None, temperature: float | None = None, seed: int = 0,
    trust: bool = False,
) -> list[Message]:  # fmt: skip
    """Print both answers to each question, and go on from the policy's. Returns the last conversation. Raises UserError for a
    run that wasn't trained on conversations; a conversation that the model's context can't hold is told, and the question left
    out."""
    sampler = PairSampler(run, temperature, seed, scored=False, trust=trust)
    if sampler.context.encoder is None or not sampler.context.encoder.messages:
        raise UserError(f"{run} was not trained on conversations: alignzoo sample {run} --file - goes on from what you type")
    start: list[Message] = [{"role": "system", "content": system}] if system else []
    conversation = list(start)
    for question in questions:
        if question.strip() == NEW:
            conversation = list(start)
        elif question.strip():
            conversation.append({"role": "user", "content": question.strip()})
            if not _answered(sampler, conversation):
                conversation.pop()
    return conversation


def _answered(sampler: PairSampler, conversation: list[Message]) -> bool:
    prompts = sampler.prompts([conversation])
    longest = sampler.context.context_length
    need = prompts.ids.shape[1] + sampler.sampling.max_new_tokens
    if longest and need > longest:
        console.show(f"the model's context holds {longest} tokens, and with an answer this needs {need}: {NEW} begins anew")
        return False
    (sample,) = sampler(prompts)
    for side in SIDES:
        console.show(printable(f"{side}: {getattr(sample, side)}"), soft_wrap=True)
    conversation.append({"role": "assistant", "content": sample.policy})
    return True
