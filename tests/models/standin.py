"""A stand-in for a vLLM server: HTTP as vLLM answers it, weights by a queue instead of NCCL, tokens by the plain loop."""

from __future__ import annotations

import copy
import json
import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from alignzoo.batch import Prompts
from alignzoo.contracts import DecodingRequest
from alignzoo.models.sampling import generation, vllm_loop
from alignzoo.settings import Sampling
from tests.limits import HANG

# what `CompletionRequest` of vLLM has of what TRL and this project send
FIELDS = {
    "model", "prompt", "n", "seed", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "logprobs",
    "stop_token_ids", "ignore_eos", "allowed_token_ids", "return_token_ids", "return_tokens_as_token_ids",
}  # fmt: skip


class StandIn:
    """Serves a copy of `module`. What it got is in `requests`, the names of weights of each update in `updates`."""

    def __init__(self, module: Any, eos: int, longest: int = 64) -> None:
        self.module, self.eos, self.longest = copy.deepcopy(module).eval(), eos, longest
        self.requests, self.updates = list[dict[str, Any]](), list[list[str]]()
        self.channel: queue.Queue[tuple[str, Tensor]] = queue.Queue()
        self.staged: dict[str, Tensor] | None = None
        self.missing: set[str] = set()  # paths answered with 404
        self.transfer: Any = {"backend": "nccl"}
        self.model_config: dict[str, Any] = {"dtype": "torch.float32", "hf_config": str(module.config)}
        self.cap: int | None = None  # what a generation config may say of max_new_tokens
        self.asked, self.released, self.lock = threading.Event(), threading.Event(), threading.Lock()
        self.waits = False  # before it answers a request
        self.url = ""

    def get(self, path: str) -> tuple[int, Any]:
        found = {
            "/health": {}, "/v1/models": {"data": [{"id": "served"}]}, "/get_world_size": {"world_size": 1},
            "/server_info": {"vllm_config": {"weight_transfer_config": self.transfer, "model_config": self.model_config}},
        }  # fmt: skip
        return 200, found[path]

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v1/completions":
            return self.complete(body)
        if path == "/start_weight_update":
            self.staged = {}
        elif path == "/update_weights":
            self.receive(body["update_info"])
        elif path == "/finish_weight_update":
            self.load()
        elif path == "/init_weight_transfer_engine":
            assert body["init_info"]["world_size"] == 2 and body["init_info"]["rank_offset"] == 1
        else:
            assert path == "/reset_prefix_cache"
        return 200, {"success": True}

    def receive(self, announced: dict[str, Any]) -> None:
        assert self.staged is not None, "no update has begun"
        for name, dtype, shape in zip(announced["names"], announced["dtype_names"], announced["shapes"], strict=True):
            sent, tensor = self.channel.get(timeout=HANG)
            assert (sent, str(tensor.dtype), list(tensor.shape)) == (name, f"torch.{dtype}", shape)
            self.staged[name] = tensor
        self.updates.append(announced["names"])

    def load(self) -> None:
        assert self.staged is not None
        own = dict(self.module.named_parameters())
        assert own.keys() == self.staged.keys()
        with torch.no_grad():
            for name, tensor in self.staged.items():
                own[name].copy_(tensor)
        self.staged = None

    def complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        assert body.keys() <= FIELDS and body["model"] == "served" and body["return_token_ids"], body
        self.requests.append(body)
        self.asked.set()
        if self.waits:
            self.released.wait()
            return 400, {"error": {"message": "nobody waits any more"}}
        (prompt,) = body["prompt"]
        greedy = body["temperature"] < 1e-5
        if greedy and body["n"] > 1:
            return 400, {"error": {"message": f"n must be 1 when using greedy sampling, got {body['n']}."}}
        if len(prompt) + body["max_tokens"] > self.longest:
            return 400, {"error": {"message": f"This model's maximum context length is {self.longest} tokens."}}
        with self.lock:
            rows = [self.sampled(prompt, body, body["seed"] + i) for i in range(body["n"])]
        choices = [
            {"index": i, "text": "", "prompt_token_ids": prompt, "token_ids": row, "logprobs": None}
            for i, row in enumerate(rows)
        ]
        return 200, {"choices": choices}

    def sampled(self, prompt: list[int], body: dict[str, Any], seed: int) -> list[int]:
        """One completion, the last token that ends it included."""
        names = ("temperature", "top_k", "top_p", "min_p")
        length = min(body["max_tokens"], self.cap or body["max_tokens"])
        sampling = Sampling(max_new_tokens=length, **{name: body[name] for name in names})
        noise = torch.Generator().manual_seed(seed)
        ends = {*body["stop_token_ids"], *([] if body["ignore_eos"] else [self.eos])}
        ids = torch.tensor([prompt])
        prompts = Prompts(ids=ids, attended=torch.ones_like(ids, dtype=torch.bool), row=torch.zeros(1, dtype=torch.long))

        def shape(logits: Tensor) -> Tensor:
            if "allowed_token_ids" in body:
                logits = logits + torch.full_like(logits, -torch.inf).index_fill(
                    1, torch.tensor(body["allowed_token_ids"]), 0.0
                )
            return logits / (sampling.temperature or 1.0)

        uniforms = torch.rand(1, length, dtype=torch.float64, generator=noise)
        drawn = generation.generate(DecodingRequest(self.module, prompts, sampling, uniforms, ends, shape))
        return drawn.ids[0, drawn.attended[0]].tolist()

    # --- the trainer's side of what is NCCL ---

    def packed(self, iterator: Iterable[tuple[str, Tensor]], group: Any, src: int, post_iter_func: Any) -> None:
        assert group is not None and src == 0
        for one in iterator:
            self.channel.put((one[0], post_iter_func(one).clone()))

    def engine(self) -> Any:
        """As vLLM before 0.28 has it."""

        def send(iterator: Iterable[tuple[str, Tensor]], trainer_args: Any) -> None:
            self.packed(iterator, trainer_args.group, 0, lambda one: one[1])

        return SimpleNamespace(trainer_init=opened, trainer_send_weights=send)


def opened(init_info: dict[str, Any]) -> Any:
    return SimpleNamespace(group=SimpleNamespace(store=None, socket=None))


@contextmanager
def serving(server: StandIn) -> Iterator[StandIn]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            self.answer(*((404, {}) if path in server.missing else server.get(path)))

        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(*server.post(self.path, json.loads(text) if text else None))

        def answer(self, status: int, body: Any) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            vllm_loop.connected(server.url).session.close()  # its connections keep the server's threads
            http.shutdown()
            thread.join()


def install(monkeypatch: Any, server: StandIn, stateful: bool = True) -> None:
    """As if vLLM were installed, 0.28 or newer where `stateful`, and this process had a GPU."""
    from trl.generation import vllm_client

    names: dict[str, Any] = {
        "is_vllm_available": lambda *_, **__: True, "get_ip": lambda: "127.0.0.1", "_HAS_STATEFUL_TRAINER_ENGINE": stateful,
    }  # fmt: skip
    if stateful:
        names |= {"open_trainer_endpoint": opened, "packed_nccl_broadcast_producer": server.packed}
    else:
        names |= {"NCCLWeightTransferEngine": server.engine(), "NCCLTrainerSendWeightsArgs": SimpleNamespace}
    for name, value in names.items():
        monkeypatch.setattr(vllm_client, name, value, raising=False)
    monkeypatch.setattr(vllm_loop, "_has_cuda", lambda: True)
    monkeypatch.setattr(vllm_loop, "_device", lambda module: torch.device("cuda"))


def other(module: nn.Module) -> nn.Module:
    """The same architecture with weights of its own."""
    made = copy.deepcopy(module)
    source = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(0.2 * torch.randn(weight.shape, generator=source))
    return made
