"""Counts of parameters, computation and memory, against counts by hand."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines.runs import cost
from pipelines.runs.config import RunConfig
from pipelines.runs.cost import StageCost, count_costs
from pipelines.runs.models import new_prior, new_vqvae
from pipelines.runs.vqvae_augmentation import VQVAEAugmentationConfig
from pipelines.training.config import TrainingConfig
from pipelines.training.precision import Precision
from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.quantizers.config import QUANTIZER_CONFIGS, EMAQuantizerConfig
from stage2_prior.config import PixelCNNConfig, TransformerConfig
from stage2_prior.grids import GridSpec

FP32 = Precision(name="fp32", reason="it was asked for")
BF16 = Precision(name="bf16", reason="it was asked for")
CONFIG = RunConfig(
    vqvae=VQVAEConfig(
        downsampling=2,
        width=8,
        num_layers=1,
        quantizer=EMAQuantizerConfig(codebook_size=16, codebook_dim=4),
    ),
    vqvae_training=TrainingConfig(batch_size=6, accumulation=2),
    prior=TransformerConfig(num_layers=1, width=8, num_heads=2, dropout=0.0),
    prior_training=TrainingConfig(batch_size=4),
)
SHAPE = (3, 8, 12)
POSITIONS = 4 * 6


def costs(config=CONFIG, num_classes=5, precisions=(FP32, FP32), shape=SHAPE):
    return count_costs(config, shape, num_classes, precisions)


def test_parameters_are_those_of_the_models():
    vqvae = new_vqvae(CONFIG, SHAPE)
    prior = new_prior(CONFIG, (GridSpec(4, 6, 16),), 5)
    expected = [sum(p.numel() for p in model.parameters()) for model in (vqvae, prior)]
    assert [cost.parameters for cost in costs()] == expected


def test_flops_of_a_vqvae_are_those_of_its_convolutions_and_its_search():
    # (inputs, outputs, kernel positions) of each convolution, all at the resolution of the codes.
    encoder = [(12, 8, 9), (8, 8, 9), (8, 8, 9), (8, 4, 1)]
    decoder = [(4, 8, 9), (8, 8, 9), (8, 8, 9), (8, 12, 9)]
    search = [(4 + 1, 16, 1)]  # the product with a code, and its length
    products = sum(i * o * k for i, o, k in (*encoder, *decoder, *search))
    vqvae, _ = costs()
    assert vqvae.flops == 2 * POSITIONS * products
    assert vqvae.training_flops == 3 * vqvae.flops


# Above 256 positions a CPU takes a fused attention.
@pytest.mark.parametrize("shape", [SHAPE, (3, 34, 34)])
def test_flops_of_a_transformer_are_those_of_its_matrix_products(shape):
    width, positions = 8, shape[1] // 2 * shape[2] // 2
    linear = width * (3 * width + width + 4 * width + 4 * width + 16)
    attention = 2 * positions * width
    _, prior = costs(shape=shape)
    assert prior.flops == 2 * positions * (linear + attention)


def test_state_has_gradients_moments_and_three_copies_of_the_weights():
    adamw, _ = costs()
    buffers = adamw.state_bytes // 4 - 6 * adamw.parameters
    vqvae = new_vqvae(CONFIG, SHAPE)
    assert buffers == 3 * sum(buffer.numel() for buffer in vqvae.buffers())
    muon, _ = costs(replace(CONFIG, vqvae_training=TrainingConfig(optimizer="muon")))
    hidden = 4 * 8 * 8 * 9 + 4 * 8 * 9 + 4 * 8
    assert adamw.state_bytes - muon.state_bytes == 4 * hidden


def test_activations_grow_with_the_images_of_a_pass():
    twice = replace(CONFIG, vqvae_training=TrainingConfig(batch_size=12, accumulation=2))
    small, large = (costs(config)[0].activation_bytes for config in (CONFIG, twice))
    assert large == pytest.approx(2 * small, rel=0.05)
    # At least the input of each convolution: 3 images of 24 positions.
    assert small >= 4 * 3 * POSITIONS * (12 + 8 + 8 + 8 + 4 + 8 + 8 + 8)


def test_crops_cost_less_to_train_on_and_whole_images_as_much_as_before():
    cropped = replace(CONFIG, vqvae_augmentation=VQVAEAugmentationConfig(crop=4))
    whole, crop = (costs(config)[0] for config in (CONFIG, cropped))
    assert crop.flops == whole.flops
    # 2x2 of 4x6 positions.
    assert 6 * crop.training_flops == whole.training_flops


def test_bfloat16_of_a_stage_keeps_less_in_that_stage():
    single, mixed = (costs(precisions=(FP32, second)) for second in (FP32, BF16))
    assert mixed[0] == single[0]
    assert mixed[1].activation_bytes < 0.95 * single[1].activation_bytes
    assert mixed[1].flops == single[1].flops


@pytest.fixture
def described(monkeypatch):
    """The GiB and the words of a plan's memory, of 1 GiB of training images in RAM or a file."""
    monkeypatch.setattr(cost, "_PROCESS_BYTES", 0)

    def memory(kind=np.ndarray, processes=1):
        monkeypatch.setattr(cost, "world_size", lambda: processes)
        # Zeros take no memory before they are written to.
        images = np.zeros((2**28, 1, 2, 2), np.uint8).view(kind)
        parts = {"train": SimpleNamespace(images=images)}
        stage = StageCost(
            parameters=0,
            flops=0,
            training_flops=0,
            state_bytes=2**30,
            activation_bytes=4 * 2**30,
        )
        text = cost._memory(stage, SimpleNamespace(by_name=parts), torch.device("cpu"))
        number, words = text.split(" GiB of memory")
        return float(number), words

    return memory


def test_images_in_a_file_take_no_memory(described):
    assert described() == (6, "")
    assert described(np.memmap) == (5, "")


def test_processes_share_the_activations_of_a_batch(described):
    assert described(np.memmap, processes=4) == (2, " in each process")


@pytest.mark.parametrize("kind", QUANTIZER_CONFIGS)
def test_every_quantizer_and_data_without_classes_can_be_counted(kind):
    quantizer = QUANTIZER_CONFIGS[kind]()
    config = replace(
        CONFIG,
        vqvae=replace(CONFIG.vqvae, quantizer=quantizer),
        prior=PixelCNNConfig(num_layers=1, width=8, kernel_size=3),
    )
    torch.manual_seed(3)
    vqvae, prior = costs(config, num_classes=None)
    assert vqvae.flops > 0
    assert prior.flops > 0
    assert torch.initial_seed() == 3


def test_weights_to_start_from_are_not_read():
    nowhere = Path("no/run/is/here")
    assert costs(replace(CONFIG, vqvae_from=nowhere, prior_from=nowhere)) == costs()
