"""Index back-propagation against an explicit one-hot implementation, differentiated in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_vqvae import make_quantizer, to_rows

OPTIONS = {
    "commitment_weight": 0.7,
    "codebook_weight": 0.3,
    "entropy_weight": 0.2,
    "entropy_temperature": 0.4,
    "temperature": 0.6,
}


@pytest.fixture(params=[False, True], ids=["plain", "cosine"])
def quantizer(request):
    return make_quantizer("index_backprop", cosine=request.param, **OPTIONS).train()


@pytest.fixture
def z_e():
    return torch.randn(2, 4, 3, 5)


class ReferenceIBQ:
    """Equations 3 to 6 with the (N, K) one-hot written out, float64."""

    def __init__(self, quantizer, z_e):
        self.rows = torch.from_numpy(to_rows(z_e)).requires_grad_()
        self.codebook = quantizer.codebook.detach().double().requires_grad_()
        cosine = quantizer.config.cosine
        z = F.normalize(self.rows, dim=1) if cosine else self.rows
        e = F.normalize(self.codebook, dim=1) if cosine else self.codebook
        logits = z @ e.T
        p = (logits / 0.6).softmax(dim=1)
        one_hot = F.one_hot(logits.argmax(dim=1), len(e)).double()
        index = one_hot - p.detach() + p  # equation 3
        # The gradient to the vectors is that of the one-hot, as in the authors' code.
        self.z_q = one_hot @ e + (index - index.detach()) @ e.detach()
        chosen = one_hot @ e
        soft = (logits / 0.4).softmax(dim=1)
        mean = soft.mean(dim=0)
        self.losses = {
            "index": (z - self.z_q).square().mean(),
            "commitment": 0.7 * (z - chosen.detach()).square().mean(),
            "codebook": 0.3 * (z.detach() - chosen).square().mean(),
            "entropy": 0.2 * (-(soft * soft.log()).sum(dim=1).mean() + (mean * mean.log()).sum()),
        }
        self.codes = one_hot.argmax(dim=1)


def test_codes_and_z_q_are_those_of_the_reference(quantizer, z_e):
    reference = ReferenceIBQ(quantizer, z_e)
    output = quantizer(z_e)
    np.testing.assert_array_equal(output.codes[0].flatten(), reference.codes)
    np.testing.assert_allclose(to_rows(output.z_q), reference.z_q.detach(), rtol=1e-5, atol=1e-6)


def test_losses_are_those_of_the_reference(quantizer, z_e):
    expected = {name: loss.item() for name, loss in ReferenceIBQ(quantizer, z_e).losses.items()}
    found = {name: loss.item() for name, loss in quantizer(z_e).losses.items()}
    assert found == pytest.approx(expected, rel=1e-5)  # float32


@pytest.mark.parametrize("term", ["z_q", "index", "commitment", "codebook", "entropy"])
def test_gradients_of_a_term_are_those_of_the_reference(quantizer, z_e, term):
    weights = torch.randn_like(z_e)
    reference = ReferenceIBQ(quantizer, z_e)
    z_e.requires_grad_()
    output = quantizer(z_e)
    if term == "z_q":
        (output.z_q * weights).sum().backward()
        (reference.z_q * torch.from_numpy(to_rows(weights))).sum().backward()
    else:
        output.losses[term].backward()
        reference.losses[term].backward()
    for tensor, expected in ((z_e, reference.rows), (quantizer.codebook, reference.codebook)):
        found = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        expected = torch.zeros_like(expected) if expected.grad is None else expected.grad
        found = to_rows(found) if found.ndim == 4 else found
        # Thirty float32 additions of numbers near one.
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_gradient_of_the_index_term_reaches_codes_that_nothing_chose(quantizer):
    output = quantizer(torch.full((1, 4, 2, 2), 0.5))
    (chosen,) = output.codes[0].unique().tolist()
    (vectors,) = quantizer.code_vectors()
    output.losses["index"].backward()
    others = [code for code in range(len(vectors)) if code != chosen]
    assert quantizer.codebook.grad[others].any(dim=1).all()


def test_entropy_is_absent_at_weight_zero(z_e):
    quantizer = make_quantizer("index_backprop", entropy_weight=0.0)
    assert quantizer(z_e).losses.keys() == {"index", "commitment", "codebook"}


def test_evaluation_takes_the_most_similar_code(quantizer, z_e):
    (vectors,) = (v.detach().double().numpy() for v in quantizer.code_vectors())
    expected = (to_rows(quantizer.to_code_space(z_e)) @ vectors.T).argmax(axis=1)
    np.testing.assert_array_equal(quantizer.eval()(z_e).codes[0].flatten(), expected)


def test_plain_similarity_prefers_the_longer_vector():
    quantizer = make_quantizer("index_backprop", codebook_size=2, codebook_dim=2, cosine=False)
    quantizer.codebook.data = torch.tensor([[1.0, 0.0], [3.0, 3.0]])
    # Code 0 is on the point, but the product with code 1 is larger.
    assert quantizer.encode(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))[0].item() == 1


def test_initialise_puts_codes_on_the_clusters():
    quantizer = make_quantizer(
        "index_backprop", codebook_size=4, codebook_dim=2, cosine=True, kmeans_batches=4
    )
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    quantizer.initialise([d.view(1, 2, 1, 1).expand(1, 2, 3, 3) * 5 for d in directions])
    assert torch.equal(quantizer.encode(directions.T[None, :, None])[0].unique(), torch.arange(4))
    distances = torch.cdist(quantizer.code_vectors()[0].detach(), directions)
    assert distances.min(dim=1).values.max() < 1e-5  # float32 means of equal points
