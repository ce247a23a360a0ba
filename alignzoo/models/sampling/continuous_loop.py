"""Sampling by the continuous batching of transformers: rows enter and leave a batch as there is room in a paged cache. It runs
the network, a prompt once for all its samples; the tokens are chosen as in `generation.generate`, and are the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import torch
from torch import Tensor
from transformers import ContinuousBatchingConfig, GenerationConfig, LogitsProcessorList
from transformers.generation.continuous_batching.cache import find_head_dim, find_num_key_value_heads
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
    ContinuousBatchingLogitsProcessorList,
)
from transformers.generation.continuous_batching.utils import WorkloadHints

from alignzoo.batch import Completions, Prompts
from alignzoo.errors import UserError
from alignzoo.models.forward import attention, flat
from alignzoo.models.sampling.generation import Finished, choose, recorded, unpadded
from alignzoo.settings import Sampling

PAGE = 256  # tokens: what flash attention's paged kernels ask for
TOKENS = 8192  # at most so many are read by one pass
REQUESTS = 1024  # at most so many are in it


def generate(
    module: Any,
    prompts: Prompts,
    sampling: Sampling,
    uniforms: Tensor,
    ends: Collection[int],
    shape: Callable[[Tensor], Tensor],
    adjust: Callable[[Tensor], Tensor] | None = None,
    finished: Finished | None = None,
) -> Completions:
    """What `generation.generate` gives for the same uniforms; log-probs are float32.

    Raises UserError where rows must be known by their place (`adjust`), where ranks must stop together (`finished`), and where
    transformers can't run the network so.
    """
    if adjust or finished:
        why = "logits are changed row by row" if adjust else "weights are sharded and all ranks must decode together"
        raise UserError(f"generation.decoding=continuous can't be used where {why}: take auto or transformers")
    network = flat._inner(module)
    texts = unpadded(prompts)
    drawn = _Drawn([len(text) for text in texts], sampling, uniforms.to(prompts.ids.device), shape)
    with flat.evaluating(network), _with_their_attention(network):
        written = _run(network, texts, drawn, ends)
    return recorded(prompts, sampling, written, ends, drawn.logprobs)


class _Drawn(ContinuousBatchingLogitsProcessor):
    """Leaves nothing but the token to be drawn, which greedy decoding then takes, and keeps its log-prob."""

    def __init__(
        self, prompt_lengths: list[int], sampling: Sampling, uniforms: Tensor, shape: Callable[[Tensor], Tensor]
    ) -> None:
        self.prompt_lengths, self.sampling, self.uniforms, self.shape = prompt_lengths, sampling, uniforms, shape
        self.logprobs = torch.zeros(uniforms.shape, dtype=torch.float32, device=uniforms.device)
        self.asked, self.supported_kwargs, self.ignored_kwargs = 0, {}, ()

    def row(self, request: str) -> int:
        """Of a prompt's samples, the last goes by its name, the others by those that transformers gives to forks of it."""
        prompt, _, sample = request.partition("__child#")
        return int(prompt) * self.sampling.samples + (int(sample) if sample else self.sampling.samples - 1)

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> Tensor:
        """For each of these requests, the place of its next token in the flattened uniforms."""
        places = []
        for request in requests_with_new_token:
            row = self.row(request.state.request_id)
            before = request.state.position_offset - self.prompt_lengths[row // self.sampling.samples]
            places.append(row * self.sampling.max_new_tokens + before)
        self.asked = len(places)
        return torch.tensor(places, dtype=torch.int32)

    def __call__(self, scores: Tensor, tensor_arg: Tensor) -> Tensor:
        place, shaped = tensor_arg[: len(scores)].long(), self.shape(scores)
        token = choose(shaped, self.sampling, self.uniforms.flatten()[place])[:, None]
        logprob = (shaped.gather(1, token)[:, 0] - shaped.logsumexp(1)).float()
        self.logprobs.flatten()[place[: self.asked]] = logprob[: self.asked]  # prompts read in part have scores as well
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def _run(network: Any, texts: list[list[int]], drawn: _Drawn, ends: Collection[int]) -> list[list[int]]:
    """The tokens of each row of `uniforms`, after these prompts."""
    rows, length = drawn.uniforms.shape
    stop = sorted(ends) or [-1]
    pages = drawn.sampling.samples * sum(ceil((len(text) + length) / PAGE) for text in texts)
    config = ContinuousBatchingConfig(
        page_size=PAGE, num_blocks=min(pages, _room(network)), max_batch_tokens=min(TOKENS, max(rows, sum(map(len, texts)))),
        max_requests_per_batch=min(rows, REQUESTS), auto_switch_to_flash=network.dtype in (torch.float16, torch.bfloat16),
        use_cuda_graph=False, use_async_batching=False,  # a graph would replay the first call's uniforms
    )  # fmt: skip
    hints = WorkloadHints(max(map(len, texts)), length, rows)
    try:
        manager = network.init_continuous_batching(GenerationConfig(do_sample=False, eos_token_id=stop), config, hints)
    except ValueError as error:
        raise _refused(network, error) from error
    manager.logit_processor = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([drawn]))
    manager.logit_processor.tensors_required = 1
    forked = min(map(len, texts)) > 1  # forks are made before the last token: of a prompt of one token, nothing would be read
    manager.num_return_sequences = drawn.sampling.samples if forked else 1
    names = [""] if forked else ["", *(f"__child#{sample}" for sample in range(drawn.sampling.samples - 1))]
    manager.start()
    try:
        for prompt, text in enumerate(texts):
            for name in names:
                manager.add_request(text, f"{prompt}{name}", length, eos_token_id=stop)
        return _collected(network, manager, drawn)
    finally:
        manager.stop(hard_stop=True)


def _collected(network: Any, manager: Any, drawn: _Drawn) -> list[list[int]]:
    written: list[tuple[int, list[int]]] = []
    while len(written) < len(drawn.uniforms):
        result = manager.get_result(timeout=1)
        if result is not None and not result.error:
            written.append((drawn.row(result.request_id), result.generated_tokens))
        elif result is not None or not manager.is_running():
            raise _refused(network, result.error if result else manager.background_thread_status.fatal_error)
    return [tokens for _, tokens in sorted(written)]


def _room(network: Any) -> int:
    """How many pages of every layer's keys and values fit into half of the memory that is free."""
    if network.device.type != "cuda":
        return sys.maxsize
    config = network.config.get_text_config()
    page = 2 * PAGE * config.num_hidden_layers * find_num_key_value_heads(config) * find_head_dim(config)
    return int(torch.cuda.mem_get_info(network.device)[0] / 2 // (page * network.dtype.itemsize))


def _refused(network: Any, reason: Any) -> UserError:
    return UserError(
        f"generation.decoding=continuous can't sample from {type(network).__name__}: {str(reason).splitlines()[0]}; "
        "take auto or transformers"
    )


@contextmanager
def _with_their_attention(network: Any) -> Iterator[None]:
    """Theirs reads the paged cache, ours doesn't."""
    config = network.config
    before = config._attn_implementation
    config._attn_implementation = "sdpa" if before == attention.NAME else before
    try:
        yield
    finally:
        config._attn_implementation = before
