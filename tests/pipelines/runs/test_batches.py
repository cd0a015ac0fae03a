"""Batches of whole splits."""

import numpy as np
import pytest
import torch

from pipelines.data.image_set import ImageSet
from pipelines.runs.batches import code_batches, image_batches
from stage1_vqvae.code_dump import SplitCodes


@pytest.mark.parametrize(("side", "sizes"), [(28, [256, 44]), (256, [16] * 18 + [12])])
def test_batches_of_large_images_are_small(side, sizes):
    images = np.broadcast_to(np.uint8(0), (300, 1, side, side))
    batches = list(image_batches(ImageSet(images), torch.device("cpu")))
    assert [len(batch) for batch in batches] == sizes


@pytest.mark.parametrize(("side", "sizes"), [(8, [256, 44]), (32, [64, 64, 64, 64, 44])])
def test_batches_of_many_codes_are_small(side, sizes):
    grid = torch.zeros((), dtype=torch.int32).expand(300, side, side)
    assert [len(codes) for (codes,), _, _ in code_batches(SplitCodes((grid,), None))] == sizes
