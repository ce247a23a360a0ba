"""Two ranks that sample by one server, their weights whole or sharded. A script of test_served."""

from __future__ import annotations

import copy
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from alignzoo.common.ranks import gather_objects
from alignzoo.models.roles import Trained, bound
from alignzoo.settings import Sampling
from alignzoo.testing import toys

sys.path.insert(0, str(Path(__file__).parents[2]))  # torchrun knows this script's folder alone
from tests.distributed.sharded import models, shard, texts, trained
from tests.models.standin import StandIn, install, other, serving


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank, whole = dist.get_rank(), trained()
    sharded = shard(copy.deepcopy(whole), init_device_mesh("cpu", (2,)))
    server = StandIn(other(whole.policy), toys.EOS)
    install(pytest.MonkeyPatch(), server)
    with serving(server) if rank == 0 else nullcontext():
        url = gather_objects(server.url)[0]
        found = {"whole": drawn(copy.deepcopy(whole), None, url), "sharded": drawn(whole, sharded, url)}
        gathered = gather_objects(found)
    if rank == 0:
        (folder / "found.json").write_text(json.dumps({"ranks": gathered, "updates": len(server.updates)}))
    dist.barrier()
    os._exit(0)  # as sharded.py


@torch.no_grad()
def drawn(plain: Trained, sharded: Trained | None, url: str) -> list[dict[str, Any]]:
    """This rank's prompts twice, with an update between: the texts, and whether they are what one process writes alone."""
    network, steps = sharded or plain, []
    rows = list(range(4 * dist.get_rank(), 4 * dist.get_rank() + 4))
    prompts = toys.completions(rows).prompts
    for _ in range(2):
        how = Sampling(max_new_tokens=6, decoding="vllm", server=url).greedy()
        c = network(bound(models(network).policy.generate, prompts, how))
        ours = models(plain).policy.generate(prompts, how.in_process())
        off = float((c.logprobs - ours.logprobs).abs().max()) if texts(c) == texts(ours) else None
        steps.append({"texts": texts(c), "off": off})
        for module in {plain, network}:
            for weight in module.parameters():
                weight.mul_(-0.7)
    return steps


if __name__ == "__main__":
    main(Path(sys.argv[1]))
