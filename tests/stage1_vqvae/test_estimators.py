"""The Jacobians that estimators give a choice, against their formulas."""

import torch

from stage1_vqvae.quantizers.estimators import straight_through


def test_straight_through_has_exactly_the_quantized_value():
    # z_e + (z_q - z_e) would round to 0 here.
    z_e, z_q = torch.tensor([1e8, -3.0]), torch.tensor([1.0, 0.1])
    assert torch.equal(straight_through(z_e, z_q), z_q)


def test_straight_through_has_an_identity_jacobian_to_z_e():
    z_q = torch.randn(4)
    jacobian = torch.autograd.functional.jacobian(
        lambda z: straight_through(z, z_q), torch.randn(4)
    )
    assert torch.equal(jacobian, torch.eye(4))


def test_straight_through_has_no_gradient_to_z_q():
    z_q = torch.randn(4)
    jacobian = torch.autograd.functional.jacobian(lambda q: straight_through(torch.ones(4), q), z_q)
    assert torch.equal(jacobian, torch.zeros(4, 4))
