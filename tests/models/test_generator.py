import pytest
import torch
from torch.nn import functional as F

from sr_upscale.errors import ModelError
from sr_upscale.models.generator import PRESETS, Generator, GeneratorConfig
from sr_upscale.models.tails import TAILS


def parameters(config: GeneratorConfig) -> int:
    return sum(parameter.numel() for parameter in Generator(config).parameters())


def test_published_generator_has_the_published_number_of_parameters() -> None:
    assert parameters(PRESETS["published-x4"]) == 913_027


def test_our_generator_has_the_designed_number_of_parameters() -> None:
    assert parameters(PRESETS["ours-x4"]) == 828_208


@pytest.mark.parametrize("upsampler", TAILS)
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3)])
def test_output_is_exactly_scale_times_the_input(upsampler: str, scale: int, size: tuple[int, int]) -> None:
    model = Generator(GeneratorConfig(scale=scale, num_feat=8, num_blocks=1, upsampler=upsampler))
    with torch.inference_mode():
        assert model(torch.rand(2, 3, *size)).shape == (2, 3, size[0] * scale, size[1] * scale)


def test_without_a_residual_the_image_skip_is_nearest_neighbour() -> None:
    model = Generator(GeneratorConfig(scale=3, num_feat=8, num_blocks=1))
    x = torch.rand(1, 3, 4, 5)
    with torch.inference_mode():
        model.tail.last.weight.zero_()
        assert torch.equal(model(x), x.repeat_interleave(3, 2).repeat_interleave(3, 3))


def test_block_is_two_branches_concatenated_plus_the_input() -> None:
    from sr_upscale.models.generator import InceptionResidualBlock

    block = InceptionResidualBlock(8)
    x = torch.randn(1, 8, 6, 5)

    def conv(module: torch.nn.Conv2d, value: torch.Tensor) -> torch.Tensor:
        out = F.conv2d(value, module.weight, padding=module.kernel_size[0] // 2)
        return torch.where(out > 0, out, 0.2 * out)

    with torch.inference_mode():
        short = conv(block.conv1, conv(block.reduce1, x))
        long = conv(block.conv2b, conv(block.conv2a, conv(block.reduce2, x)))
        torch.testing.assert_close(block(x), torch.cat((short, long), 1) + x)


@pytest.mark.parametrize(("upsampler", "scale"), [*((name, 4) for name in TAILS), ("nearest_conv", 3)])
def test_halo_covers_the_receptive_field_and_is_tight_for_pixelshuffle(upsampler: str, scale: int) -> None:
    config = GeneratorConfig(scale=scale, num_feat=4, num_blocks=3, upsampler=upsampler)
    torch.manual_seed(1)
    model = Generator(config).double()
    side = 2 * config.halo + 7
    x = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    centre = side // 2 * scale
    model(x)[0, :, centre : centre + scale, centre : centre + scale].sum().backward()
    assert x.grad is not None
    touched = x.grad[0].abs().sum(0).nonzero() - side // 2
    reach = int(touched.abs().max())
    assert reach <= config.halo
    if upsampler == "pixelshuffle":
        assert reach == config.halo
        assert PRESETS["ours-x4"].halo == 51


@pytest.mark.parametrize(
    "bad",
    [{"scale": 5}, {"num_feat": 7}, {"num_blocks": 0}, {"upsampler": "bilinear"}],
    ids=lambda bad: next(iter(bad)),
)
def test_impossible_configurations_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="expected"):
        GeneratorConfig(**bad)  # type: ignore[arg-type]
