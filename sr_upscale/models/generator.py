"""The generator: inception-residual blocks between a 3x3 head and an upsampling tail.

There are two kinds of blocks. The published one (github.com/hueindahaus/srgan, after SRGAN, Ledig et al. 2017,
arXiv:1609.04802, and ESRGAN, Wang et al. 2018, arXiv:1809.00219) makes a network of 913 027 parameters at x4 with the
published tail ``nearest_conv``. With ``pixelshuffle``, which never leaves the input's resolution, it has 828 208. The
gated one holds the compact network of Real-ESRGAN (SRVGGNetCompact, Wang et al. 2021, arXiv:2107.10833) as a special
case (`gated_from_compact`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_upscale.errors import ModelError
from sr_upscale.models.descriptor import NEGATIVE_SLOPE, GeneratorConfig, nearest_stages


class Tail(nn.Module):
    """Base of all tails.

    Args:
        scale: Factor.
        num_feat: Channels of the features.

    Shapes: (N, C, H, W) features and the (N, 3, H, W) image -> (N, 3, H*s, W*s) image.
    """

    def __init__(self, scale: int, num_feat: int) -> None:
        super().__init__()


class NearestConvTail(Tail):
    """The published tail.

    Each stage is nearest-neighbour upsampling, a conv and LeakyReLU. Two convs at full size follow the last one.
    """

    def __init__(self, scale: int, num_feat: int) -> None:
        super().__init__(scale, num_feat)
        self.factors = nearest_stages(scale)
        self.stages = nn.ModuleList(nn.Conv2d(num_feat, num_feat, 3, padding=1) for _ in self.factors)
        self.conv = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.last = nn.Conv2d(num_feat, 3, 3, padding=1)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:  # noqa: ARG002 (one signature for all tails)
        for factor, conv in zip(self.factors, self.stages, strict=True):
            features = leaky_relu(conv(F.interpolate(features, scale_factor=factor, mode="nearest")))
        return cast("Tensor", self.last(leaky_relu(self.conv(features))))


class PixelShuffleTail(Tail):
    """One conv to 3*s*s channels and a pixel shuffle (Shi et al. 2016, arXiv:1609.05158).

    The image, enlarged by nearest neighbours, is added.
    """

    def __init__(self, scale: int, num_feat: int) -> None:
        super().__init__(scale, num_feat)
        self.scale = scale
        self.last = nn.Conv2d(num_feat, 3 * scale**2, 3, padding=1)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        residual = F.pixel_shuffle(self.last(features), self.scale)
        return residual + F.interpolate(image, scale_factor=self.scale, mode="nearest")


TAILS: dict[str, type[Tail]] = {"pixelshuffle": PixelShuffleTail, "nearest_conv": NearestConvTail}
"""Tails by the name in a configuration."""


def leaky_relu(x: Tensor) -> Tensor:
    """Applies LeakyReLU(0.2) in place, to a tensor of any shape.

    That is safe: every caller hands over a conv's fresh output, and the gradient needs the result alone.
    """
    return F.leaky_relu(x, NEGATIVE_SLOPE, inplace=True)


class InceptionResidualBlock(nn.Module):
    """Two branches of 1x1 and 3x3 convs, concatenated, plus the input.

    Every conv is bias-free and followed by LeakyReLU(0.2). Each branch makes half of the channels.

    Args:
        num_feat: Channels, even.

    Shapes: (N, C, H, W) -> same.
    """

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        half = num_feat // 2
        self.reduce1 = nn.Conv2d(num_feat, half, 1, bias=False)
        self.conv1 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.reduce2 = nn.Conv2d(num_feat, half, 1, bias=False)
        self.conv2a = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.conv2b = nn.Conv2d(half, half, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        short = leaky_relu(self.conv1(leaky_relu(self.reduce1(x))))
        long = leaky_relu(self.conv2b(leaky_relu(self.conv2a(leaky_relu(self.reduce2(x))))))
        return torch.cat((short, long), dim=1) + x

    @torch.no_grad()
    def pass_on(self) -> None:
        """Sets the last convs of both branches to zero, so that the block gives its input back, bit for bit."""
        self.conv1.weight.zero_()
        self.conv2b.weight.zero_()


class _LearntSlopes(torch.autograd.Function):
    """PReLU whose gradient takes a third of the time of torch's on a CPU; the slopes' is summed in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(x, slopes)
        return F.prelu(x, slopes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, slopes = ctx.saved_tensors
        above = torch.ops.aten.threshold_backward(gradient, x, 0)
        below = gradient - above
        of_slopes = (below * x).sum((0, 2, 3), dtype=torch.float32).to(slopes.dtype)
        return above.addcmul_(below, slopes[:, None, None]), of_slopes


class PReLU(nn.PReLU):
    """PReLU with a slope per channel. In training mode it learns fast (`_LearntSlopes`).

    Shapes: (N, C, H, W) -> same.
    """

    def forward(self, x: Tensor) -> Tensor:
        slopes = self.weight.to(x.dtype)
        return _LearntSlopes.apply(x, slopes) if self.training else F.prelu(x, slopes)


class GatedBlock(nn.Module):
    """Two branches of 3x3 convs, concatenated, plus the input times a gain per channel.

    The short branch has one conv, the long one two. Every conv has a bias and is followed by PReLU, with a slope per
    channel. Each branch makes half of the channels. The first convs of both read the same and stand as one, the
    short branch's channels first.

    Args:
        num_feat: Channels, even.

    Shapes: (N, C, H, W) -> same.
    """

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        half = num_feat // 2
        self.first = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.first_act = PReLU(num_feat, init=NEGATIVE_SLOPE)
        self.second = nn.Conv2d(half, half, 3, padding=1)
        self.second_act = PReLU(half, init=NEGATIVE_SLOPE)
        self.gain = nn.Parameter(torch.ones(num_feat))

    def forward(self, x: Tensor) -> Tensor:
        short, long = self.first_act(self.first(x)).chunk(2, dim=1)
        long = self.second_act(self.second(long))
        return torch.addcmul(torch.cat((short, long), dim=1), x, self.gain.to(x.dtype)[:, None, None])

    @torch.no_grad()
    def pass_on(self) -> None:
        """Sets the branches to zero and the gain to one, so that the block gives its input back, bit for bit."""
        for each in (self.first, self.second):
            each.weight.zero_()
            _bias(each).zero_()
        self.gain.fill_(1)

    @torch.no_grad()
    def become_conv(self, weight: Tensor, bias: Tensor, slopes: Tensor) -> None:
        """Becomes a single 3x3 conv and PReLU, bit for bit: no skip, and a second conv that passes its input on.

        Args:
            weight: (C, C, 3, 3).
            bias, slopes: (C,).
        """
        half = len(bias) // 2
        self.first.weight.copy_(weight)
        _bias(self.first).copy_(bias)
        self.first_act.weight.copy_(torch.cat((slopes[:half], torch.ones(half))))
        nn.init.dirac_(self.second.weight)
        _bias(self.second).zero_()
        self.second_act.weight.copy_(slopes[half:])
        self.gain.zero_()


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


Block = InceptionResidualBlock | GatedBlock
BLOCKS: dict[str, type[InceptionResidualBlock] | type[GatedBlock]] = {
    "inception": InceptionResidualBlock,
    "gated": GatedBlock,
}
"""Blocks by the name in a configuration."""

PRESETS: dict[str, GeneratorConfig] = {
    "published-x4": GeneratorConfig(scale=4, upsampler="nearest_conv"),
    "ours-x2": GeneratorConfig(scale=2),
    "ours-x3": GeneratorConfig(scale=3),
    "ours-x4": GeneratorConfig(scale=4),
    "ours-x8": GeneratorConfig(scale=8),
}
"""Configurations by name. ``published-x4`` is the generator of the course project, unchanged."""


class Generator(nn.Module):
    """Network that makes an SR image of an LR image.

    With inception-residual blocks it has a conv behind them and a long skip around both; with gated ones neither.

    Args:
        config: Sizes, blocks and tail.

    Shapes: (N, 3, H, W) RGB in [0, 1] -> (N, 3, H*scale, W*scale), RGB, nominally in [0, 1] but not
    clamped. Any H and W of at least 1 will do.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        feat = config.num_feat
        self.head = nn.Conv2d(3, feat, 3, padding=1)
        if config.block == "gated":
            self.head_act = PReLU(feat, init=NEGATIVE_SLOPE)
        self.blocks = nn.Sequential(*(BLOCKS[config.block](feat) for _ in range(config.num_blocks)))
        if config.block == "inception":
            self.trunk = nn.Conv2d(feat, feat, 3, padding=1, bias=False)
        self.tail = TAILS[config.upsampler](config.scale, feat)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws random weights: Kaiming's, with 3x3 convs of the blocks x0.3 and the tail's last conv x0.1.

        Without batch norm the sum over 24 residual blocks would grow. Small branches keep the start near the identity
        (the idea of ESRGAN's residual scaling and initialisation). On the meta device there is nothing to draw.
        """
        if self.head.weight.is_meta:
            return  # torch would import its compiler to draw nothing: a second and 200 MB
        for name, module in self.named_modules():
            if not isinstance(module, nn.Conv2d):
                continue
            nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            with torch.no_grad():
                if name.startswith("blocks.") and module.kernel_size == (3, 3):
                    module.weight.mul_(0.3)
                elif name == "tail.last":
                    module.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        if self.config.block == "gated":
            features = self.blocks(self.head_act(self.head(x)))
        else:
            shallow = leaky_relu(self.head(x))
            features = self.trunk(self.blocks(shallow)) + shallow
        return cast("Tensor", self.tail(features, x))


class OutputBlend(nn.Module):
    """Two generators side by side: (1 - share) of the output of the first, and share of that of the second.

    Args:
        first, second: Of one scale.
        share: Share of `second`, 0 to 1.

    Shapes: (N, 3, H, W) -> (N, 3, H * scale, W * scale), as of both.
    """

    def __init__(self, first: Generator, second: Generator, share: float) -> None:
        super().__init__()
        self.first, self.second, self.share = first, second, share

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(self.first(x).float(), self.second(x).float(), self.share)


def deepened(network: Generator, num_blocks: int) -> Generator:
    """Makes the same function with more blocks: the new ones pass their input on, bit for bit.

    Args:
        network: Any generator.
        num_blocks: Blocks wanted, no fewer than there are.

    Returns:
        A new network of the same shapes and answers.
    """
    deep = Generator(replace(network.config, num_blocks=num_blocks))
    deep.load_state_dict(network.state_dict(), strict=False)
    for block in deep.blocks[network.config.num_blocks :]:
        cast("Block", block).pass_on()
    return deep


def halved(state: Mapping[str, Tensor], scale: int) -> dict[str, Tensor]:
    """Makes the tensors of the network whose answers are the means of 2x2 pixels of another's.

    Args:
        state: Tensors of a `Generator` of factor 2 * scale with a pixel shuffle as its tail.
        scale: Factor of the new one.
    """
    small = dict(state)
    for key in ("tail.last.weight", "tail.last.bias"):
        shape = state[key].shape[1:]
        small[key] = state[key].view(3, scale, 2, scale, 2, *shape).mean(dim=(2, 4)).reshape(3 * scale**2, *shape)
    return small


def gated_from_compact(state: Mapping[str, Tensor]) -> Generator:
    """Builds the gated generator that answers as a compact network of Real-ESRGAN, bit for bit in float32.

    Args:
        state: Tensors of an SRVGGNetCompact with PReLU: ``body.0`` the head, then a slope and a conv in turn, the last
            conv before the pixel shuffle.

    Returns:
        A generator with a block for each conv between head and tail.

    Raises:
        ModelError: The tensors are not those of such a network.
    """
    try:
        numbers = sorted({int(key.split(".")[1]) for key in state})
        feat, last = state["body.0.weight"].shape[0], numbers[-1]
        scale = round((state[f"body.{last}.weight"].shape[0] / 3) ** 0.5)
        config = GeneratorConfig(scale=scale, num_feat=feat, num_blocks=last // 2 - 1, block="gated")
        model = Generator(config)
        with torch.no_grad():
            for module, number in ((model.head, 0), (model.head_act, 1), (cast("nn.Module", model.tail.last), last)):
                module.load_state_dict({key: state[f"body.{number}.{key}"].float() for key in module.state_dict()})
            for number, block in enumerate(model.blocks):
                conv, slopes = f"body.{2 * number + 2}", state[f"body.{2 * number + 3}.weight"]
                weight, bias = state[f"{conv}.weight"].float(), state[f"{conv}.bias"].float()
                cast("GatedBlock", block).become_conv(weight, bias, slopes.float())
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"not a compact network with PReLU ({error}); expected tensors body.0.weight to body.66.weight"
        ) from error
    return model.requires_grad_(False).eval()
