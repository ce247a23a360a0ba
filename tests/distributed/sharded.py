"""FSDP2 on a mesh of two CPU ranks, applied by hand to what the trainer would wrap. A script of test_sharded."""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from alignzoo.batch import Completions
from alignzoo.common.noise import Noise
from alignzoo.contracts import Kind, Role
from alignzoo.models import modules, tokenizers
from alignzoo.models.networks import HeadedNetwork, PolicyNetwork, Shared
from alignzoo.models.roles import RoleNetworks, Trained, bound, together
from alignzoo.settings import Model, Sampling
from alignzoo.testing import toys

ROWS = list(range(8))
SAMPLING = Sampling(samples=2, max_new_tokens=6)
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank, mesh = dist.get_rank(), init_device_mesh("cpu", (2,))
    plain = trained()
    sharded = shard(copy.deepcopy(plain), mesh)
    mine = slice(4 * rank, 4 * rank + 4)
    found = {"samples": samples(plain, sharded, mine)} | update(plain, sharded, mine)
    state = get_model_state_dict(sharded, options=WHOLE)  # a collective; whole on rank 0 alone
    if rank == 0:
        save(sharded, state, folder)
    dist.barrier()
    found["reloaded"] = reloaded(plain, sharded, mesh, folder)
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found))
    dist.barrier()
    os._exit(0)  # torch 2.13 now and then aborts when it takes a mesh of gloo groups down


def trained() -> Trained:
    settings = Model(config=toys.LLAMA | {"num_hidden_layers": 2})
    policy = modules.policy(settings, modules.config(settings, tokenizers.byte_level()), seed=0)
    value = modules.role_module("value", Role(kind=Kind.VALUE, trained=True), policy, None, settings)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in [*policy.parameters(), *value.parameters()]:
            weight.add_(0.2 * torch.randn(weight.shape))
    return Trained({"policy": policy, "value": value})


def shard(whole: Trained, mesh: Any) -> Trained:
    """Each layer, and the root with all the rest, as accelerate wraps a model.

    A head is read without a forward of the `Headed` around it, so that module can't be a unit of its own.
    """
    for layer in [*whole.policy.model.layers, *whole.roles["value"].trunk.layers]:
        fully_shard(layer, mesh=mesh)
    return fully_shard(whole, mesh=mesh)


def models(module: Trained) -> RoleNetworks:
    ends = range(2, 150)  # most completions are short, of a length of their own
    shared = Shared(Noise(seed=3), ends)
    networks = {"policy": PolicyNetwork(module.policy, shared), "value": HeadedNetwork(module.roles["value"], shared)}
    return RoleNetworks(networks, shared, SAMPLING)


@torch.no_grad()
def samples(plain: Trained, sharded: Trained, mine: slice) -> dict[str, Any]:
    """Ranks whose completions end at different lengths draw what one process draws."""
    prompts = toys.completions(ROWS).prompts
    expected = plain(bound(models(plain).policy.generate, prompts, SAMPLING))
    roles = models(sharded)
    roles.shared.finished = together(roles)
    drawn = sharded(bound(roles.policy.generate, prompts.take(ROWS[mine]), SAMPLING))
    theirs = expected.take(range(2 * mine.start, 2 * mine.stop))
    same = texts(drawn) == texts(theirs)
    ended = [int(length.max()) for length in (roles.gather(drawn.length[:8]).view(2, -1))]
    logprobs = (drawn.logprobs[:, : theirs.ids.shape[1]] - theirs.logprobs).abs().max()
    return {"same": every(same), "longest": ended, "width": drawn.ids.shape[1], "logprobs": float(logprobs)}


def texts(c: Completions) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(c.ids, c.attended, strict=True)]


def loss(roles: RoleNetworks, c: Completions) -> Tensor:
    """Two networks, the policy twice: sum over records."""
    logprobs, again = roles.policy.logprobs(c), roles.policy.entropy(c)
    return (c.sum(logprobs) + c.mean(again) + c.sum(roles.value.values(c)).square()).sum()


def update(plain: Trained, sharded: Trained, mine: slice) -> dict[str, float]:
    """One SGD step on all records at once, and on half of them a rank: relative distances of gradients and weights."""
    c = toys.completions(ROWS, unscored=True)
    total, ranks = len(c), 2
    plain(bound(loss, models(plain), c)).div(total).backward()
    # FSDP averages over ranks, as the engine expects, hence the factor
    sharded(bound(loss, models(sharded), c.take(ROWS[mine]))).div(total).mul(ranks).backward()
    gradient = distance([p.grad.full_tensor() for p in sharded.parameters()], [p.grad for p in plain.parameters()])
    for module in (plain, sharded):
        torch.optim.SGD(module.parameters(), lr=0.01).step()
    weights = distance([p.full_tensor() for p in sharded.parameters()], list(plain.parameters()))
    return {"gradient": gradient, "weights": weights}


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    flat = [torch.cat([x.detach().flatten().double() for x in side]) for side in (found, expected)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def save(sharded: Trained, state: dict[str, Tensor], folder: Path) -> None:
    """By role, as checkpoints are: the policy for `from_pretrained`, the value model beside it."""
    sharded.policy.save_pretrained(folder, state_dict=of_role(state, "policy"))
    (folder / "value").mkdir()
    save_file(of_role(state, "value"), folder / "value" / "model.safetensors")


def of_role(state: dict[str, Tensor], role: str) -> dict[str, Tensor]:
    prefix = f"roles.{role}."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def reloaded(plain: Trained, sharded: Trained, mesh: Any, folder: Path) -> dict[str, bool]:
    """What was saved, loaded by the engine into a plain model and from there into a sharded one: the weights, bit by bit."""
    from alignzoo.engine import checkpoint

    fresh = trained()
    checkpoint.load_main(fresh.policy, folder)
    checkpoint.load_module(fresh.roles["value"], folder / "value")
    whole = [p.full_tensor() for p in sharded.parameters()]
    into_plain = all(torch.equal(a, b) for a, b in zip(fresh.parameters(), whole, strict=True))
    target = shard(trained(), mesh)
    state = fresh.state_dict() if dist.get_rank() == 0 else {}
    set_model_state_dict(target, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    into_shards = all(torch.equal(a.full_tensor(), b) for a, b in zip(target.parameters(), whole, strict=True))
    return {"plain": every(into_plain), "sharded": every(into_shards)}


def every(holds: bool) -> bool:
    """On all ranks."""
    flag = torch.tensor(int(holds))
    dist.all_reduce(flag, dist.ReduceOp.MIN)
    return bool(flag)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
