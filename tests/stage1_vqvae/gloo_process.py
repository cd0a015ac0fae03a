"""One of two processes that train a quantizer together; see `test_distributed.py`.

python gloo_process.py RANK DIRECTORY
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from tiny_vqvae import (
    LEARNED,
    make_quantizer,
    product_config,
    quantizer_config,
    residual_config,
)

from stage1_vqvae.collectives import all_reduce_sum, broadcast, is_distributed
from stage1_vqvae.quantizers.build import build_quantizer

STEPS = 5
POINTS = 2 * 5 * 5
"""Positions of a batch, over both processes."""
TRAINED = {
    "ema": quantizer_config("ema", decay=0.8),
    "gradient": quantizer_config("gradient", decay=0.8),
    "residual": residual_config("ema", decay=0.8, num_quantizers=2),
    "product": product_config("ema", decay=0.8),
}
INITIALISED = {
    "initialised": quantizer_config("ema", kmeans_batches=2),
    "initialised-residual": residual_config("ema", kmeans_batches=2, num_quantizers=2),
    "initialised-stochastic": quantizer_config("stochastic", kmeans_batches=2),
    "initialised-simvq": quantizer_config("simvq", moment_batches=2),
}


def shared_batches():
    """What both processes train on, (2, D, h, w) each: the first image is rank 0's."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 4, 5, 5, generator=generator) + step for step in range(STEPS)]


def trained(case, batches):
    """A quantizer's state after training on `batches` from the same start everywhere."""
    torch.manual_seed(0)
    quantizer = build_quantizer(TRAINED[case]).train()
    for z_e in batches:
        quantizer(z_e)
    return {name: tensor.detach().clone() for name, tensor in quantizer.state_dict().items()}


def restarted(kind, batches, seed, **options):
    """A quantizer with dead codes, trained by processes that sample differently."""
    quantizer = make_quantizer(kind, decay=0.8, **options).train()
    quantizer.load_state_dict(trained(kind, []))
    quantizer.usage_average[:3] = 0.0
    torch.manual_seed(seed)
    quantizer(batches[0])
    return quantizer.state_dict()


def initialised(case, batches, seed):
    """A quantizer after its start in processes that sample and see different points."""
    torch.manual_seed(0)
    quantizer = build_quantizer(INITIALISED[case])
    torch.manual_seed(seed)
    quantizer.initialise(batches)
    quantizer.scale_usage(POINTS)
    return quantizer.state_dict()


def main() -> None:
    rank, directory = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    store = f"file://{directory / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    halves = [z_e[rank : rank + 1] for z_e in shared_batches()]
    results = {
        **{case: trained(case, halves) for case in TRAINED},
        **{case: initialised(case, halves, seed=rank) for case in INITIALISED},
        **{
            f"restarted-{kind}": restarted(kind, halves, rank, restart_threshold=0.03)
            for kind in LEARNED
        },
        # An EMA codebook would be moved to the mean of all processes' points at once.
        "anchored-gradient": restarted("gradient", halves, rank, online_clustering=True),
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
