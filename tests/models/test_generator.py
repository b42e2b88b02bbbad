import pytest
import torch
from torch.nn import functional as F

from sr_upscale.errors import ModelError
from sr_upscale.models.generator import (
    BLOCKS,
    PRESETS,
    TAILS,
    GatedBlock,
    Generator,
    GeneratorConfig,
    PReLU,
    deepened,
    gated_from_compact,
)


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


def test_gated_block_is_two_branches_concatenated_plus_the_gated_input() -> None:
    block = GatedBlock(8)
    x = torch.randn(1, 8, 6, 5)

    def conv(module: torch.nn.Conv2d, part: slice, slopes: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        assert module.bias is not None
        out = F.conv2d(value, module.weight[part], module.bias[part], padding=1)
        return torch.where(out > 0, out, slopes[:, None, None] * out)

    with torch.inference_mode():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter))
        short = conv(block.first, slice(4), block.first_act.weight[:4], x)
        long = conv(block.first, slice(4, 8), block.first_act.weight[4:], x)
        long = conv(block.second, slice(None), block.second_act.weight, long)
        torch.testing.assert_close(block(x), torch.cat((short, long), 1) + block.gain[:, None, None] * x)


def test_slopes_and_their_gradients_are_those_of_torch() -> None:
    ours, theirs = PReLU(5).double(), torch.nn.PReLU(5).double()
    slopes = torch.linspace(-1.5, 2, 5, dtype=torch.float64)
    x = [torch.randn(2, 5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    x[0][0, 0, 0, 0] = x[1][0, 0, 0, 0] = 0.0
    for module, value in zip((ours, theirs), x, strict=True):
        module.load_state_dict({"weight": slopes})
        module(value.requires_grad_()).sin().sum().backward()
    torch.testing.assert_close(x[0].grad, x[1].grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-6, atol=1e-6)  # summed in float32
    with torch.no_grad():
        assert torch.equal(ours(x[0]), theirs(x[0]))


def compact(feat: int, convs: int, scale: int) -> tuple[dict[str, torch.Tensor], torch.nn.Module]:
    """An SRVGGNetCompact written down once more, with random weights."""
    torch.manual_seed(3)
    layers: list[torch.nn.Module] = [torch.nn.Conv2d(3, feat, 3, padding=1), torch.nn.PReLU(feat)]
    for _ in range(convs):
        layers += [torch.nn.Conv2d(feat, feat, 3, padding=1), torch.nn.PReLU(feat)]
    layers.append(torch.nn.Conv2d(feat, 3 * scale**2, 3, padding=1))
    body = torch.nn.Sequential(*layers)
    for module in body:
        if isinstance(module, torch.nn.PReLU):
            torch.nn.init.uniform_(module.weight, -1.6, 1.9)
    return {f"body.{key}": value.detach() for key, value in body.state_dict().items()}, body


@pytest.mark.parametrize(("feat", "convs", "scale"), [(8, 3, 4), (16, 2, 2)])
def test_gated_network_holds_a_compact_one_bit_for_bit(feat: int, convs: int, scale: int) -> None:
    state, body = compact(feat, convs, scale)
    model = gated_from_compact(state)
    x = torch.rand(1, 3, 13, 10)
    with torch.inference_mode():
        expected = F.pixel_shuffle(body(x), scale) + F.interpolate(x, scale_factor=scale, mode="nearest")
        assert torch.equal(model(x), expected)
        assert torch.equal(deepened(model, convs + 2)(x), expected)
    assert model.config == GeneratorConfig(scale=scale, num_feat=feat, num_blocks=convs, block="gated")


def test_other_tensors_make_no_gated_network() -> None:
    state, _body = compact(8, 2, 4)
    del state["body.3.weight"]
    for bad in (state, {}, {"conv.weight": torch.zeros(1)}):
        with pytest.raises(ModelError, match="not a compact network"):
            gated_from_compact(bad)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("upsampler", "scale"), [*((name, 4) for name in TAILS), ("nearest_conv", 3)])
def test_halo_covers_the_receptive_field_and_is_tight_for_pixelshuffle(upsampler: str, scale: int, block: str) -> None:
    config = GeneratorConfig(scale=scale, num_feat=4, num_blocks=3, upsampler=upsampler, block=block)
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
    [{"scale": 5}, {"num_feat": 7}, {"num_blocks": 0}, {"upsampler": "bilinear"}, {"block": "dense"}],
    ids=lambda bad: next(iter(bad)),
)
def test_impossible_configurations_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="expected"):
        GeneratorConfig(**bad)  # type: ignore[arg-type]
