"""One of two processes that train a quantizer together; see `test_distributed.py`.

python gloo_process.py RANK DIRECTORY
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from tiny_vqvae import make_quantizer

from stage1_vqvae.collectives import all_reduce_sum, broadcast, is_distributed

STEPS = 5


def shared_batches():
    """What both processes train on, (2, D, h, w) each: the first image is rank 0's."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 4, 5, 5, generator=generator) + step for step in range(STEPS)]


def trained(kind, batches, **options):
    """A quantizer's state after training on `batches` from the same start everywhere."""
    torch.manual_seed(0)
    quantizer = make_quantizer(kind, decay=0.8, **options).train()
    for z_e in batches:
        quantizer(z_e)
    return {name: tensor.detach().clone() for name, tensor in quantizer.state_dict().items()}


def restarted(batches, seed):
    """A quantizer with dead codes, trained by processes that draw differently."""
    quantizer = make_quantizer("ema", restart_threshold=0.03).train()
    quantizer.load_state_dict(trained("ema", []))
    quantizer.usage_average[:3] = 0.0
    torch.manual_seed(seed)
    quantizer(batches[0])
    return quantizer.state_dict()


def initialised(batches, seed):
    """A quantizer after k-means in processes that draw and see different points."""
    quantizer = make_quantizer("ema", kmeans_batches=2)
    torch.manual_seed(seed)
    quantizer.initialise(batches)
    return quantizer.state_dict()


def main() -> None:
    rank, directory = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    store = f"file://{directory / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    halves = [z_e[rank : rank + 1] for z_e in shared_batches()]
    results = {
        "ema": trained("ema", halves),
        "gradient": trained("gradient", halves),
        "restarted": restarted(halves, seed=rank),
        "initialised": initialised(halves, seed=rank),
        "collectives": {
            "is_distributed": torch.tensor(is_distributed()),
            "sum": all_reduce_sum(torch.tensor([rank + 1.0])),
            "first": broadcast(torch.tensor([rank + 5.0])),
        },
    }
    flat = {f"{case}/{name}": t for case, state in results.items() for name, t in state.items()}
    save_file(flat, directory / f"rank-{rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
    # gloo's threads now and then abort an interpreter that is being torn down (torch 2.15).
    os._exit(0)
