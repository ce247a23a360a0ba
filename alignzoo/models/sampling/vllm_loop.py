"""Sampling by a vLLM server, through TRL's client: the network's weights are sent there, and each prompt is one request. Tokens
are other ones than those of `generation.generate`, of the same distribution.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist
from torch import nn

from alignzoo.batch import Completions
from alignzoo.common import ranks
from alignzoo.contracts import DecodingRequest, Sampler
from alignzoo.errors import UserError, require
from alignzoo.models.forward import padded
from alignzoo.models.sampling import transformers_loop
from alignzoo.models.sampling.generation import recorded, unpadded
from alignzoo.models.sampling.weights import weights
from alignzoo.settings import SERVER, Generation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger("alignzoo")
START = """VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --dtype DTYPE --weight-transfer-config '{"backend": "nccl"}'"""
AT_ONCE = 64  # requests, as many as TRL's client keeps connections
SHAPE = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


@dataclass(kw_only=True)
class VLLM(Sampler):
    """A vLLM server, `generation.server`, to which the weights are sent before each use. Tokens of the same distribution."""

    by_server: ClassVar[bool] = True
    package: ClassVar[str] = "vllm"
    untested: ClassVar[str] = "tested with a stand-in for the server and for NCCL, with no vLLM"

    def check(self, generation: Generation) -> None:
        """Raises UserError where this machine can't send weights to such a server, which need not be running yet."""
        from trl.generation import vllm_client

        url = generation.server.startswith(("http://", "https://"))
        require(url, "generation.server", generation.server, f"a URL, such as {SERVER}")
        exact = generation.temperature == 0 or generation.temperature >= 0.01
        require(exact, "generation.temperature", generation.temperature, "0, or >= 0.01: vLLM takes 0.01 for anything between")
        if not vllm_client.is_vllm_available():
            raise UserError("generation.decoding=vllm needs vLLM, which is not installed: pip install 'alignzoo[vllm]'")
        if not hasattr(vllm_client.VLLMClient, "update_named_params"):
            raise UserError("generation.decoding=vllm needs trl 1.16 or newer: pip install --upgrade trl")
        if not _has_cuda():
            raise UserError("generation.decoding=vllm sends weights from one GPU to another, and there is none: take auto")

    def connect(self, generation: Generation) -> None:
        connected(generation.server)

    @torch.no_grad()
    def generate(self, request: DecodingRequest) -> Completions:
        """Without log-probs. A prompt's seed is made of its uniforms, so it asks for the same samples after a restart. With
        several ranks, all must call this equally often.

        Raises UserError where the server can't be used, or does not do what is asked of it.
        """
        module, prompts, sampling = request.module, request.prompts, request.sampling
        if not transformers_loop.able(module) or padded.is_encoder_decoder(module):
            name = type(padded.inner(module)).__name__
            raise UserError(
                f"generation.decoding=vllm can't sample from {name}, which is no decoder of transformers': take auto"
            )
        if request.adjust:
            raise UserError(
                "generation.decoding=vllm can't change the logits that are sampled from: take generation.decoding=auto"
            )
        client = connected(sampling.server)
        with _explained(sampling.server):
            _everybody(prompts.ids.device)  # nobody's answers are still being written when the weights change
            _send(client, module, sampling.server)
            _everybody(prompts.ids.device)
            rows = _answers(client, request)
        for row in rows:
            if len(row) < sampling.max_new_tokens and not (row and row[-1] in request.ends):  # for a reason of its own
                needed = int(prompts.attended.sum(1).max()) + sampling.max_new_tokens
                raise UserError(
                    f"generation.server={sampling.server} stopped after {len(row)} tokens, and generation.max_new_tokens="
                    f"{sampling.max_new_tokens}:\nstart it with --max-model-len {needed} or more, and with "
                    "--generation-config vllm"
                )
        return recorded(prompts, sampling, rows, request.ends)


def _has_cuda() -> bool:
    return torch.cuda.is_available()


@cache
def connected(server: str) -> Any:
    """TRL's client of this server, one in a process. Raises UserError where none answers."""
    import requests
    from trl.generation.vllm_client import VLLMClient

    with _explained(server):
        answer = requests.get(f"{server.rstrip('/')}/health", timeout=10)  # TRL's client waits for ever for any other
        if answer.status_code != 200:
            raise UserError(f"generation.server={server} answers {answer.status_code}, so no vLLM server is well there")
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
    ranks.summed(torch.ones(1, device=device)).item()


# --- weights ---


def _send(client: Any, module: nn.Module, server: str) -> None:
    """The first rank sends; the rest help to put sharded weights together."""
    tensors = weights(module)
    if ranks.ranks() > 1 and dist.get_rank() > 0:
        for tensor in tensors:
            tensor.whole()
        return
    network, served = padded.inner(module), _served(server)
    _compare(served, network, server)
    if client.communicator is None:
        dtypes = [str(name).removeprefix("torch.") for name in (served.get("dtype", network.dtype), network.dtype)]
        if dtypes[0] != dtypes[1]:
            logger.warning("%s computes in %s and the network in %s: start it with --dtype %s", server, *dtypes, dtypes[1])
        try:
            client.init_communicator(device=_device(module))
        except RuntimeError as error:
            raise UserError(f"generation.server={server}: {error}") from error
    client.update_named_params([tensor.described for tensor in tensors], ((t.name, t.whole()) for t in tensors))
    client.reset_prefix_cache()


@cache
def _served(server: str) -> dict[str, object]:
    """What the server says of its model; nothing where it doesn't."""
    try:
        return connected(server).get_server_info().get("model_config") or {}
    except RuntimeError as error:  # TRL's client says which setting the server lacks
        raise UserError(f"generation.server={server}: {error}") from error


def _compare(served: Mapping[str, object], network: PreTrainedModel, server: str) -> None:
    """Raises UserError where the server has another architecture: sending to it would never end."""
    config = served.get("hf_config") or {}
    if isinstance(config, str):  # "LlamaConfig {...}", without what is as in every new one
        config = json.loads(config[config.find("{") :]) if "{" in config else {}
    for name in SHAPE:
        size = getattr(network.config, name, None)
        if isinstance(config, dict) and config.get(name, size) != size:
            kind = type(network).__name__
            raise UserError(
                f"generation.server={server} serves a model of {name}={config[name]}, and {kind} has {size}:\n"
                f"start it with {START}"
            )


def _device(module: nn.Module) -> torch.device:
    device = next(module.parameters()).device
    if device.type != "cuda":
        raise UserError(f"generation.decoding=vllm sends weights from a GPU, and the network is on the {device}: take auto")
    return device


# --- requests ---


def _answers(client: Any, request: DecodingRequest) -> list[list[int]]:
    """The tokens of every completion, a prompt's together."""
    sampling, greedy = request.sampling, request.sampling.temperature == 0
    # of logits that are all 1, `shape` makes one over the temperature, and -inf where a token may not be drawn
    ones = torch.ones(1, padded.inner(request.module).config.vocab_size, dtype=torch.float64)
    shaped = request.shape(ones.to(request.prompts.ids.device))[0]
    hidden = shaped.isneginf()
    options: dict[str, object] = {"stop_token_ids": sorted(request.ends), "ignore_eos": True}  # theirs is no part of the policy
    if hidden.any():
        options["allowed_token_ids"] = (~hidden).nonzero()[:, 0].tolist()
    texts = unpadded(request.prompts)
    seeds = (request.uniforms[:: sampling.samples, 0] * 2**53).long().tolist()  # sample i of a request has its seed plus i

    def completed(text_and_seed: tuple[list[int], int]) -> list[list[int]]:
        text, seed = text_and_seed
        answer = client.generate(
            [text], n=1 if greedy else sampling.samples, temperature=0.0 if greedy else 1 / shaped.max().item(),
            top_k=sampling.top_k, top_p=sampling.top_p, min_p=sampling.min_p, repetition_penalty=1.0,
            max_tokens=sampling.max_new_tokens, logprobs=None, generation_kwargs=options | {"seed": seed},
        )  # fmt: skip
        ids: list[list[int]] = answer["completion_ids"]
        return ids * (sampling.samples if greedy else 1)

    with ThreadPool(min(AT_ONCE, len(texts))) as pool:  # whose threads Ctrl-C need not wait for, as those of an executor
        return [row for rows in pool.imap(completed, zip(texts, seeds, strict=True)) for row in rows]
