import math

import numpy as np
import pytest
import torch
from tiny_vqvae import LEARNED, make_model, random_images
from torchmetrics.image import PeakSignalNoiseRatio

from stage1_vqvae.images import to_float
from stage1_vqvae.objective import VQVAEObjective, measure_reconstruction


def decoded_by(model, images):
    """What a user sees of the reconstructions, through the codes."""
    return model.decode(model.encode(images), (images.shape[2], images.shape[3]))


def black_and_white_model():
    """2x2 images of one code each: black is code 0, white is code 1, two codes are unused."""
    model = make_model((1, 2, 2), codebook={"codebook_size": 4})
    shades = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    with torch.no_grad():
        z_e = model.encode_features(shades)[:, :, 0, 0]
        model.quantizer.codebook.copy_(torch.cat([z_e, torch.full((2, 4), 1e3)]))
    return model, shades[:1], shades[1:]


@pytest.mark.parametrize("kind", ["gradient", "finite_scalar", "residual"])
def test_loss_is_the_sum_of_its_terms(kind):
    step = VQVAEObjective(make_model(kind=kind))(random_images(3, 1, 8, 8))
    total = sum(term.double() for term in step.metrics.values())
    torch.testing.assert_close(step.loss.double(), total, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", LEARNED)
def test_loss_terms_are_the_means_of_equation_3(kind):
    model = make_model(kind=kind, codebook={"commitment_weight": 0.5})
    images = random_images(3, 1, 8, 8)
    with torch.no_grad():
        output, z_e = model(images), model.encode_features(images)
    floats = images.double().numpy() / 127.5 - 1
    reconstruction = np.square(output.output.double().numpy() - floats).mean()
    z_q = model.quantizer.decode(output.quantized.codes).detach().double().numpy()
    distance = np.square(z_e.double().numpy() - z_q).mean()
    expected = {"reconstruction": reconstruction, "commitment": 0.5 * distance}
    if kind == "gradient":
        expected["codebook"] = distance
    metrics = VQVAEObjective(model)(images).metrics
    found = {name: term.item() for name, term in metrics.items()}
    assert found == pytest.approx(expected, rel=1e-5)  # float32 means of 192 elements


def test_metrics_are_detached_from_the_loss():
    step = VQVAEObjective(make_model())(random_images(3, 1, 8, 8))
    assert step.loss.requires_grad
    assert not any(term.requires_grad for term in step.metrics.values())


def test_loss_is_float32_under_autocast():
    objective = VQVAEObjective(make_model(kind="gradient"))
    with torch.autocast("cpu", torch.bfloat16):
        step = objective(random_images(3, 1, 8, 8))
    assert {step.loss.dtype, *(t.dtype for t in step.metrics.values())} == {torch.float32}


def test_initialise_takes_only_the_batches_it_needs():
    objective = VQVAEObjective(make_model(codebook={"kmeans_batches": 2}))
    stream = iter([random_images(4, 1, 8, 8, seed=seed) for seed in range(5)])
    objective.initialise(stream)
    assert len(list(stream)) == 3


def test_initialise_puts_codes_on_the_features_of_the_images():
    model = make_model((1, 2, 2), codebook={"codebook_size": 3, "kmeans_batches": 1})
    images = random_images(3, 1, 2, 2)
    VQVAEObjective(model).initialise([images])
    with torch.no_grad():
        z_e = model.encode_features(images)[:, :, 0, 0]
    # One image per code: every distance is rounding only.
    assert torch.cdist(z_e, model.quantizer.vectors()).min(dim=1).values.max() < 1e-3


def test_set_progress_reaches_the_quantizer():
    options = {"restart_threshold": 0.03, "restart_until": 0.5, "codebook_dim": 4}
    model = make_model(kind="gradient", codebook=options).train()
    model.quantizer.usage_average[0] = 0.0
    before = model.quantizer.codebook.detach().clone()
    objective = VQVAEObjective(model)
    objective.set_progress(0.5)
    objective(random_images(2, 1, 8, 8))
    assert torch.equal(model.quantizer.codebook[0], before[0])
    objective.set_progress(0.4)
    objective(random_images(2, 1, 8, 8))
    assert not torch.equal(model.quantizer.codebook[0], before[0])


@pytest.mark.parametrize("likelihood", ["mse", "l1", "bernoulli"])
def test_psnr_equals_torchmetrics(likelihood):
    model = make_model((3, 9, 6), likelihood=likelihood)
    images = random_images(7, 3, 9, 6)
    reference = PeakSignalNoiseRatio(data_range=255.0)
    expected = reference(decoded_by(model, images).float(), images.float()).item()
    metrics = measure_reconstruction(model, images.split(3))
    # Single values may round to the next gray level when convolutions sum in another order.
    assert metrics.psnr == pytest.approx(expected, abs=1e-3)


def test_psnr_and_l1_equal_numpy():
    model = make_model((1, 8, 8))
    images = random_images(7, 1, 8, 8)
    error = decoded_by(model, images).numpy().astype(np.float64) - images.numpy()
    metrics = measure_reconstruction(model, [images])
    assert metrics.psnr == pytest.approx(10 * np.log10(255**2 / np.square(error).mean()), abs=1e-3)
    assert metrics.l1 == pytest.approx(np.abs(error).mean(), abs=1e-2)


@pytest.mark.parametrize("sizes", [[7], [3, 3, 1], [1] * 7])
def test_metrics_do_not_depend_on_how_images_are_cut_into_batches(sizes):
    model = make_model((1, 8, 8))
    images = random_images(7, 1, 8, 8)
    with torch.no_grad():
        output = model(images)
    counts = np.bincount(output.quantized.codes[0].flatten(), minlength=7)
    shares = counts[counts > 0] / counts.sum()
    entropy = -(shares * np.log2(shares)).sum()
    expected = {
        "loss": np.square((output.output - to_float(images)).double().numpy()).mean(),
        "usage": (len(shares) / 7,),
        "entropy": (pytest.approx(entropy, rel=1e-9),),
        "perplexity": (pytest.approx(2**entropy, rel=1e-9),),
    }
    metrics = measure_reconstruction(model, images.split(sizes))
    assert metrics.loss == pytest.approx(expected.pop("loss"), rel=1e-5)  # float32 per batch
    assert {name: getattr(metrics, name) for name in expected} == expected


def test_psnr_of_unequal_batches_is_of_all_pixels():
    # The mean of the batches' metrics would be infinite: black is reconstructed exactly.
    model = make_model((1, 2, 2))
    with torch.no_grad():
        for parameter in model.decoder.to_pixels.parameters():
            parameter.zero_()
        model.decoder.to_pixels.conv.bias.fill_(-1.0)
    shades = [
        torch.full((size, 1, 2, 2), shade, dtype=torch.uint8) for size, shade in ((3, 0), (1, 51))
    ]
    metrics = measure_reconstruction(model, shades)
    # A quarter of the pixels is off by 51 = 255 / 5.
    assert metrics.psnr == pytest.approx(10 * math.log10(4 * 25), rel=1e-12)
    assert metrics.l1 == pytest.approx(51 / 4, rel=1e-12)


def test_psnr_of_exact_images_is_infinite():
    model = make_model((1, 2, 2))
    with torch.no_grad():
        for parameter in model.decoder.to_pixels.parameters():
            parameter.zero_()
    # An output of 0 is gray level 127.5, which rounds to the even 128.
    metrics = measure_reconstruction(model, [torch.full((2, 1, 2, 2), 128, dtype=torch.uint8)])
    assert (metrics.psnr, metrics.l1) == (math.inf, 0.0)


def test_perplexity_is_of_the_whole_set_and_not_a_mean_of_batches():
    model, black, white = black_and_white_model()
    # Each batch has one code and a perplexity of 1; together they have two.
    metrics = measure_reconstruction(model, [black, white])
    assert metrics.perplexity == (pytest.approx(2.0, rel=1e-12),)
    assert metrics.entropy == (pytest.approx(1.0, rel=1e-12),)


def test_usage_counts_a_code_of_any_batch():
    model, black, white = black_and_white_model()
    assert measure_reconstruction(model, [black, white, white]).usage == (0.5,)


def test_measure_reconstruction_changes_no_statistics():
    model = make_model((1, 8, 8)).train()
    before = model.weights_hash()
    measure_reconstruction(model, [random_images(2, 1, 8, 8)])
    assert model.weights_hash() == before


def test_measure_reconstruction_of_no_images_is_refused():
    with pytest.raises(ValueError, match=r"at least one image is required .* got none"):
        measure_reconstruction(make_model(), [])
