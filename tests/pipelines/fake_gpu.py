"""A GPU without float64, like that of a Mac, as far as a test can have one without it."""

from contextlib import contextmanager
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipelines.training import device

FAKE_GPU = "cuda"  # PyTorch lets only tensors of its own build lie on "mps"


class _WithoutFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, function, _types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves(result):
            if torch.is_tensor(tensor) and tensor.device.type == FAKE_GPU:
                assert tensor.dtype != torch.float64, function
        return result


@contextmanager
def fake_gpu_without_float64():
    """Tensors have no content and may lie on `FAKE_GPU`, where float64 is refused."""
    without = mock.patch.object(device, "_WITHOUT_FLOAT64", (FAKE_GPU,))
    with without, FakeTensorMode(allow_non_fake_inputs=True), _WithoutFloat64():
        yield
