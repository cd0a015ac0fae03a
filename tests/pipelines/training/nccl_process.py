"""Run by `test_cuda.py` in a process of its own: nccl's collectives, on one GPU."""

from unittest import mock

import torch
import torch.distributed as dist
from torch import nn

from pipelines.training import distributed
from pipelines.training.device import choose_device
from stage1_vqvae import collectives


def main():
    device = choose_device("cuda")
    store = dist.HashStore()
    dist.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=device)
    with (
        # One process does without collectives; a second one would need a second GPU.
        mock.patch.object(distributed, "world_size", return_value=2),
        mock.patch.object(collectives, "is_distributed", return_value=True),
    ):
        conv = nn.Conv2d(3, 4, 3).to(device, memory_format=torch.channels_last)
        weights = {"weight": conv.weight.detach().clone()}
        distributed.broadcast_from_main(weights)
        assert weights["weight"].equal(conv.weight)
        conv(torch.ones(2, 3, 5, 5, device=device)).sum().backward()
        before = conv.weight.grad.clone()
        distributed.average_gradients(list(conv.parameters()))
        assert conv.weight.grad.equal(before / 2)  # the other process has had none
        assert distributed.mean_metrics({"psnr": 3.0}, device) == {"psnr": 1.5}
        counts = torch.arange(5, device=device)
        assert collectives.all_reduce_sum(counts.clone()).equal(counts)
        assert collectives.broadcast(counts.clone()).equal(counts)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
