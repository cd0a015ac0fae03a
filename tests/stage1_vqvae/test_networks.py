import pytest
import torch
from tiny_vqvae import make_model, quantizer_config

from stage1_vqvae.config import VQVAEConfig
from stage1_vqvae.networks.decoder import Decoder
from stage1_vqvae.networks.encoder import Encoder
from stage1_vqvae.networks.layers import Downsample, ResidualBlock, Upsample


def test_residual_block_starts_as_the_identity():
    x = torch.randn(2, 4, 5, 6)
    assert torch.equal(ResidualBlock(4)(x), x)


def test_residual_block_adds_its_input_once():
    block = ResidualBlock(1)
    with torch.no_grad():
        # Both convolutions only see the centre: x + 3 silu(2 silu(x)).
        for convolution, weight in ((block.conv_in, 2.0), (block.conv_out, 3.0)):
            convolution.weight.zero_()[0, 0, 1, 1] = weight
            convolution.bias.zero_()
        x = torch.randn(1, 1, 3, 3)
        inner = 2 * x / (1 + torch.exp(-x))
        expected = x + 3 * inner / (1 + torch.exp(-inner))
        torch.testing.assert_close(block(x), expected)


def test_downsample_sees_the_four_pixels_of_each_square():
    layer = Downsample(1, 1)
    with torch.no_grad():
        layer.conv.weight.fill_(1.0)
        layer.conv.bias.zero_()
        sums = layer(torch.arange(16.0).view(1, 1, 4, 4))
    assert sums.tolist() == [[[[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 50]]]]


def test_upsample_spreads_its_channels_over_each_square():
    layer = Upsample(1, 1)
    with torch.no_grad():
        layer.conv.weight.copy_(torch.arange(1.0, 5.0).view(4, 1, 1, 1))
        layer.conv.bias.zero_()
        square = layer(torch.tensor([[[[1.0, 10.0]]]]))
    assert square.tolist() == [[[[1, 2, 10, 20], [3, 4, 30, 40]]]]


@pytest.mark.parametrize(("downsampling", "channels"), [(2, 1), (4, 3), (8, 1), (16, 3)])
def test_encoder_and_decoder_scale_by_the_downsampling(channels, downsampling):
    config = VQVAEConfig(
        downsampling=downsampling, width=4, fine_width=2, num_layers=1, quantizer=quantizer_config()
    )
    images = torch.randn(1, channels, 32, 16)
    z_e = Encoder(config, channels)(images)
    assert z_e.shape == (1, 4, 32 // downsampling, 16 // downsampling)
    assert Decoder(config, channels)(z_e).shape == images.shape


def test_encoder_sees_exactly_its_receptive_field():
    # Without residual blocks: one 3x3 convolution over 2x2 squares.
    model = make_model((1, 20, 20), num_layers=0)
    images = torch.randn(1, 1, 20, 20, requires_grad=True)
    model.encoder(images)[0, :, 4, 5].sum().backward()
    expected = torch.zeros(20, 20, dtype=torch.bool)
    expected[2 * 3 : 2 * 6, 2 * 4 : 2 * 7] = True
    assert torch.equal(images.grad[0, 0] != 0, expected)


def test_decoder_shows_a_code_exactly_within_its_reach():
    # 3x3 in `project` and 3x3 in `to_pixels`: two squares to each side.
    model = make_model((1, 20, 20), num_layers=0)
    z_q = torch.randn(1, 4, 10, 10, requires_grad=True)
    model.decoder(z_q)[0, 0, 2 * 4, 2 * 5].backward()
    expected = torch.zeros(10, 10, dtype=torch.bool)
    expected[2:7, 3:8] = True
    assert torch.equal(z_q.grad[0].abs().sum(dim=0) != 0, expected)
