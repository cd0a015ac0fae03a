"""A stand-in for a GPU that says when it would be waited for: PyTorch's meta device.

Its tensors have no values, so that reading one is an error, and so is an output whose shape
depends on values. What is not a CPU in the code under test is this device.
"""

from contextlib import contextmanager, nullcontext
from importlib import import_module
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("meta")

# `torch.use_deterministic_algorithms` makes them raise an error, as its documentation says.
WITHOUT_DETERMINISM = {
    f"aten::{name}"
    for name in (
        *("_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "nll_loss2d_forward"),
        *(
            "upsample_bilinear2d_backward",
            "upsample_bicubic2d_backward",
            "grid_sampler_2d_backward",
        ),
        *("reflection_pad2d_backward", "histc", "put_", "median", "_ctc_loss_backward"),
    )
}


class _Watch(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = set()

    def __torch_dispatch__(self, function, _types, arguments=(), keywords=None):
        keywords = keywords or {}
        result = function(*arguments, **keywords)
        tensors = [x for x in tree_leaves((arguments, keywords, result)) if torch.is_tensor(x)]
        # A tensor of one number on the CPU is an argument of a kernel, and nothing to wait for.
        devices = {tensor.device.type for tensor in tensors if tensor.ndim}
        name = function._schema.name
        if len(devices) > 1:
            in_background = name == "aten::_to_copy" and keywords.get("non_blocking", False)
            assert in_background, f"{function} waits for the GPU"
        if GPU.type in devices:
            assert name not in WITHOUT_DETERMINISM, f"{function} is not deterministic on a GPU"
            self.operations.add(name)
        return result


@contextmanager
def watched_gpu():
    """Fails where the CPU would wait for `GPU`; yields the names of the operations on it."""
    watch = _Watch()
    optimizers = import_module("torch.optim.optimizer")
    with (
        mock.patch.object(torch, "autocast", return_value=nullcontext()),  # knows no "meta"
        mock.patch.object(torch.Tensor, "pin_memory", lambda tensor: tensor),
        mock.patch.object(
            optimizers, "_get_fused_kernels_supported_devices", return_value=[GPU.type]
        ),
        watch,
    ):
        yield watch.operations
