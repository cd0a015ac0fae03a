"""Trains small VQ-VAEs in the processes of its environment; see `test_stage_one_processes.py`."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from toy_tasks import small_config, trainer_for

from pipelines.data.image_set import ImageSet
from pipelines.runs.tasks import VQVAETask
from pipelines.training.distributed import process_group, rank
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.model import VQVAE
from stage1_vqvae.quantizers.config import EMAQuantizerConfig, ProductConfig, ResidualConfig

BATCH = 24
EMA = EMAQuantizerConfig(codebook_size=8, codebook_dim=4)
QUANTIZERS = {
    "ema": EMA,
    "residual": ResidualConfig(num_quantizers=2, base=EMA),
    "product": ProductConfig(codebook_dim=8, base=EMA),
}


def train(name, directory):
    """The state of the model trained with one of `QUANTIZERS` for 12 steps."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    config = VQVAEConfig(width=8, fine_width=4, num_layers=1, quantizer=QUANTIZERS[name])
    torch.manual_seed(0)
    model = VQVAE(config, (1, 8, 8))
    task = VQVAETask(model, ImageSet(images[:50]), ImageSet(images[50:]), batch_size=BATCH // 2)
    settings = replace(small_config(), batch_size=BATCH, epochs=12 * BATCH / 50)
    trainer_for(task, settings, directory / name).fit(resume=False)
    return {f"{name}/{key}": tensor for key, tensor in model.state_dict().items()}


def main() -> None:
    directory = Path(sys.argv[1])
    with process_group(torch.device("cpu")):
        states = [train(name, directory) for name in QUANTIZERS]
        if rank() == 0:
            save_file(states[0] | states[1] | states[2], directory / "state.safetensors")


if __name__ == "__main__":
    main()
    # gloo's threads now and then abort an interpreter that is being torn down (torch 2.15).
    os._exit(0)
