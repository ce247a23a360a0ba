"""Sampling by a vLLM server, through TRL's client: the network's weights are sent there, and each prompt is one request. Tokens
are other ones than those of `generation.generate`, of the same distribution.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.pool import ThreadPool
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from alignzoo.batch import Completions, Prompts
from alignzoo.errors import UserError
from alignzoo.models.forward import flat, padded
from alignzoo.models.sampling import transformers_loop
from alignzoo.models.sampling.generation import Finished, recorded, unpadded
from alignzoo.models.sampling.weights import weights
from alignzoo.settings import Sampling

logger = logging.getLogger("alignzoo")
START = """VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --dtype DTYPE --weight-transfer-config '{"backend": "nccl"}'"""
AT_ONCE = 64  # requests, as many as TRL's client keeps connections
SHAPE = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@torch.no_grad()
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
    """As `generation.generate`, but without log-probs. A prompt's seed is made of its uniforms, so it asks for the same samples
    after a restart. With several ranks, all must call this equally often.

    Raises UserError where the server can't be used, or does not do what is asked of it.
    """
    if adjust:
        raise UserError("generation.decoding=vllm can't change the logits that are sampled from: take generation.decoding=auto")
    client = connected(sampling.server)
    with _explained(sampling.server):
        _everybody(prompts.ids.device)  # nobody's answers are still being written when the weights change
        _send(client, module, sampling.server)
        _everybody(prompts.ids.device)
        rows = _answers(client, prompts, sampling, uniforms, _asked(module, sampling, ends, shape))
    _check_whole(rows, prompts, sampling, ends)
    return recorded(prompts, sampling, rows, ends)


def able(module: Any) -> bool:
    """Whether this is a network that vLLM may know."""
    return transformers_loop.able(module) and not padded.is_encoder_decoder(module)


def check() -> None:
    """Raises UserError where this machine can't send weights to a server."""
    from trl.generation import vllm_client

    if not vllm_client.is_vllm_available():
        raise UserError("generation.decoding=vllm needs vLLM, which is not installed: pip install 'alignzoo[vllm]'")
    if not hasattr(vllm_client.VLLMClient, "update_named_params"):
        raise UserError("generation.decoding=vllm needs trl 1.16 or newer: pip install --upgrade trl")
    if not _has_cuda():
        raise UserError("generation.decoding=vllm sends weights from one GPU to another, and there is none: take auto")


def _has_cuda() -> bool:
    return torch.cuda.is_available()


@cache
def connected(server: str) -> Any:
    """TRL's client of this server, one in a process. Raises UserError where none answers."""
    import requests
    from trl.generation.vllm_client import VLLMClient

    with _explained(server):
        found = requests.get(f"{server.rstrip('/')}/health", timeout=10)  # TRL's client waits for ever for any other answer
        if found.status_code != 200:
            raise UserError(f"generation.server={server} answers {found.status_code}, so no vLLM server is well there")
        return VLLMClient(base_url=server.rstrip("/"))


@contextmanager
def _explained(server: str) -> Iterator[None]:
    """What goes wrong between here and the server, as a user's error."""
    import requests

    try:
        yield
    except requests.ConnectionError as error:
        raise UserError(f"generation.server={server} can't be reached: start it with\n{START}") from error
    except requests.RequestException as error:
        raise UserError(f"generation.server={server} failed, and its log says why: {error}") from error
    except Exception as error:
        if type(error) is not Exception:  # TRL's client raises these for what the server refuses
            raise
        raise UserError(f"generation.server={server}: {str(error)[:1000]}") from error


def _everybody(device: torch.device) -> None:
    """Returns when all ranks have come here."""
    if dist.is_available() and dist.is_initialized():
        arrived = torch.ones(1, device=device)
        dist.all_reduce(arrived)
        arrived.item()


# --- weights ---


def _send(client: Any, module: Any, server: str) -> None:
    """The first rank sends; the others help to put sharded weights together."""
    tensors = weights(module)
    if dist.is_available() and dist.is_initialized() and dist.get_rank() > 0:
        for tensor in tensors:
            tensor.whole()
        return
    _compare(_served(server), flat._inner(module), server)
    if client.communicator is None:
        _open(client, module, server)
    client.update_named_params([tensor.described for tensor in tensors], ((t.name, t.whole()) for t in tensors))
    client.reset_prefix_cache()


def _open(client: Any, module: Any, server: str) -> None:
    """A channel for weights."""
    dtypes = [str(name).removeprefix("torch.") for name in (_served(server).get("dtype", module.dtype), module.dtype)]
    if dtypes[0] != dtypes[1]:
        logger.warning("%s computes in %s and the network in %s: start it with --dtype %s", server, *dtypes, dtypes[1])
    try:
        client.init_communicator(device=_device(module))
    except RuntimeError as error:
        raise UserError(f"generation.server={server}: {error}") from error


@cache
def _served(server: str) -> dict[str, Any]:
    """What the server says of its model; nothing where it doesn't."""
    try:
        return connected(server).get_server_info().get("model_config") or {}
    except RuntimeError as error:  # TRL's client says which setting the server lacks
        raise UserError(f"generation.server={server}: {error}") from error


def _compare(served: dict[str, Any], network: Any, server: str) -> None:
    """Raises UserError where the server has another architecture: sending to it would never end."""
    theirs = served.get("hf_config") or {}
    if isinstance(theirs, str):  # "LlamaConfig {...}", without what is as in every new one
        theirs = json.loads(theirs[theirs.find("{") :]) if "{" in theirs else {}
    for name in SHAPE:
        own = getattr(network.config, name, None)
        if theirs.get(name, own) != own:
            raise UserError(
                f"generation.server={server} serves a model of {name}={theirs[name]}, and {type(network).__name__} has {own}:\n"
                f"start it with {START}"
            )


def _device(module: Any) -> torch.device:
    device = next(module.parameters()).device
    if device.type != "cuda":
        raise UserError(f"generation.decoding=vllm sends weights from a GPU, and the network is on the {device}: take auto")
    return device


# --- requests ---


def _asked(module: Any, sampling: Sampling, ends: Collection[int], shape: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """What every request has in common, for `VLLMClient.generate`."""
    # of logits that are all 1, `shape` makes one over the temperature, and -inf where a token may not be drawn
    ones = torch.ones(1, flat._inner(module).config.vocab_size, dtype=torch.float64, device=next(module.parameters()).device)
    shaped = shape(ones)[0]
    hidden, greedy = shaped.isneginf(), sampling.temperature == 0
    options = {"stop_token_ids": sorted(ends), "ignore_eos": True}  # theirs is no part of the policy
    if hidden.any():
        options["allowed_token_ids"] = (~hidden).nonzero()[:, 0].tolist()
    return {
        "n": 1 if greedy else sampling.samples, "temperature": 0.0 if greedy else 1 / shaped.max().item(),
        "top_k": sampling.top_k, "top_p": sampling.top_p, "min_p": sampling.min_p, "repetition_penalty": 1.0,
        "max_tokens": sampling.max_new_tokens, "logprobs": None, "generation_kwargs": options,
    }  # fmt: skip


def _answers(client: Any, prompts: Prompts, sampling: Sampling, uniforms: Tensor, asked: dict[str, Any]) -> list[list[int]]:
    """The tokens of every completion, a prompt's together."""
    texts = unpadded(prompts)
    seeds = (uniforms[:: sampling.samples, 0] * 2**53).long().tolist()  # sample i of a request has its seed plus i

    def answer(text: list[int], seed: int) -> list[list[int]]:
        options = asked["generation_kwargs"] | {"seed": seed}
        found: list[list[int]] = client.generate([text], **asked | {"generation_kwargs": options})["completion_ids"]
        return found * (sampling.samples // asked["n"])

    with ThreadPool(min(AT_ONCE, len(texts))) as pool:  # whose threads Ctrl-C need not wait for, as those of an executor
        return [row for rows in pool.imap(lambda both: answer(*both), zip(texts, seeds, strict=True)) for row in rows]


def _check_whole(rows: list[list[int]], prompts: Prompts, sampling: Sampling, ends: Collection[int]) -> None:
    """Raises UserError where the server has stopped for a reason of its own."""
    for row in rows:
        if len(row) < sampling.max_new_tokens and not (row and row[-1] in ends):
            needed = int(prompts.attended.sum(1).max()) + sampling.max_new_tokens
            raise UserError(
                f"generation.server={sampling.server} stopped after {len(row)} tokens, and generation.max_new_tokens="
                f"{sampling.max_new_tokens}:\nstart it with --max-model-len {needed} or more, and with --generation-config vllm"
            )
