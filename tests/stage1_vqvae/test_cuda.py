"""A CUDA device computes what the CPU computes."""

import pytest
import torch
from tiny_vqvae import CASES, make_model, random_images

from stage1_vqvae.base import ImageTokenizer
from stage1_vqvae.model import VQVAE
from stage1_vqvae.objective import VQVAEObjective

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def _exact_convolutions(monkeypatch):
    # TensorFloat-32, the default of cuDNN's convolutions, keeps 10 bits of the mantissa.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def models(name):
    """The same model on the CPU and on the CUDA device."""
    pair = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = make_model((3, 9, 11), quantizer=CASES[name])
        pair.append(model.to(device, memory_format=torch.channels_last))
    return pair


@pytest.mark.parametrize("name", CASES)
def test_cuda_encodes_and_decodes_as_the_cpu(name):
    on_cpu, on_cuda = models(name)
    images = random_images(16, 3, 9, 11)
    codes, found = on_cpu.encode(images), on_cuda.encode(images)
    same = [(a == b.cpu()).double().mean() for a, b in zip(codes, found, strict=True)]
    assert min(same) > 0.99  # z_e half-way between two codes may take the other
    difference = on_cuda.decode(codes).cpu().int() - on_cpu.decode(codes).int()
    assert int(difference.abs().max()) <= 1  # a value half-way between two levels may round up


@pytest.mark.parametrize("owner", [VQVAE, ImageTokenizer])
def test_cuda_reconstructs_images_that_are_on_the_cpu(owner):
    on_cpu, on_cuda = models("ema")
    images = random_images(16, 3, 9, 11)
    expected, found = (owner.reconstruct(model, images) for model in (on_cpu, on_cuda))
    assert found.images.device.type == "cuda"
    torch.testing.assert_close(found.loss.cpu(), expected.loss, rtol=1e-3, atol=0)


# Without kinds that draw their codes, and without restarts: devices have different streams.
@pytest.mark.parametrize("name", ["ema", "gradient", "simvq", "finite_scalar", "lookup_free"])
def test_cuda_gives_the_loss_and_gradients_of_the_cpu(name):
    images = random_images(16, 3, 9, 11)
    results = []
    for model in models(name):
        device = next(model.parameters()).device
        objective = VQVAEObjective(model).train()
        output = objective(images.to(device))
        output.loss.backward()
        gradients = {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}
        results.append((output.loss.detach().cpu(), gradients, model.quantizer.state_dict()))
    (loss, gradients, state), (cuda_loss, cuda_gradients, cuda_state) = results
    torch.testing.assert_close(cuda_loss, loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(cuda_gradients, gradients, rtol=1e-3, atol=1e-5)
    on_cpu = {n: t.cpu() for n, t in cuda_state.items()}
    torch.testing.assert_close(on_cpu, dict(state), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ema-kmeans", "ema-restarts", "gradient-anchors", "stochastic"])
def test_random_parts_keep_codes_finite_on_cuda(name):
    _, model = models(name)
    objective = VQVAEObjective(model).train()
    images = random_images(16, 3, 9, 11).cuda()
    with torch.no_grad():
        objective.initialise(iter([images, images]))
    for _ in range(3):
        objective(images).loss.backward()
    assert all(t.isfinite().all() for t in model.state_dict().values() if t.is_floating_point())
    assert len(model.eval().encode(images)[0].unique()) > 1
