"""Small quantizers, models and images for the tests of stage one."""

import torch

from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.model import VQVAE
from stage1_vqvae.quantizer_config import (
    CodebookConfig,
    EMAQuantizerConfig,
    GradientQuantizerConfig,
)
from stage1_vqvae.quantizers import build_quantizer

KINDS = ("ema", "gradient")
_CONFIGS = {"ema": EMAQuantizerConfig, "gradient": GradientQuantizerConfig}


def quantizer_config(kind="ema", **options) -> CodebookConfig:
    small = {"codebook_size": 7, "codebook_dim": 4, "kmeans_batches": 0, "restart_threshold": 0.0}
    return _CONFIGS[kind](**small | options)


def make_quantizer(kind="ema", **options):
    return build_quantizer(quantizer_config(kind, **options))


def make_model(image_shape=(1, 8, 8), kind="ema", *, codebook=None, **options) -> VQVAE:
    """A model with random weights everywhere; `codebook` holds options of the quantizer."""
    small = {"downsampling": 2, "width": 6, "fine_width": 4, "num_layers": 1}
    config = VQVAEConfig(quantizer=quantizer_config(kind, **codebook or {}), **small | options)
    model = VQVAE(config, image_shape)
    for parameter in model.parameters():
        # The residual blocks start at zero, which would hide them from the tests.
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def random_images(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def state_of(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def changed(before, after):
    """Names of the tensors whose values differ."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}
