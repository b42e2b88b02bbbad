"""HR -> LR as it happens to rendered pictures: text, screens, drawings, charts, and scans of them.

What photographs suffer (`data.degradations.RealWorld`) is not what these do. They are reduced to a screen's size and
again, sharpened, given a palette with or without dither, saved as JPEG or WebP once or twice, printed on paper that
shows its back, scanned at one bit. HR is nearly determined by LR here, so HR is the answer to learn. What belongs to
the picture itself and must stay, such as a stamp, a turn or the light on a page, is drawn into HR and not made here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sr_upscale.data.degradations import check, gaussian_blur, jpeg, webp
from sr_upscale.errors import UsageError
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.resize import resize

UINT8 = np.dtype(np.uint8)
WEB_SAFE = np.array(np.meshgrid(*[np.arange(0, 256, 51)] * 3, indexing="ij"), dtype=np.uint8).reshape(3, 216).T
"""The 216 colours of six levels for each channel, as old browsers had them."""
BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])  # ordered dither of 4x4, Bayer 1973


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A family of chains for rendered pictures. Ranges are (lowest, highest), probabilities and shares 0 to 1.

    A chain is a blur, then one round or two of resize, sharpening, palette, noise and file, each drawn anew.

    Attributes:
        clean_prob, margin: See `data.degradations.Family`.
        second_prob: Probability of a second round. The first then ends at a size of its own and not at that of LR.
        paper_prob: Probability that a light, nearly gray picture gets grain, a back that shows through, uneven light.
        bitonal_prob: Probability that a page of one ink is cut to black and white, as by a fax or a scanner.
        resize_range: Size that the first of two rounds ends at, as a factor of LR's.
        soft_prob, soft_sigma: Probability of a Gaussian blur, and its standard deviation in pixels of LR.
        sharpen_prob, sharpen_amount: Probability of an unsharp mask, and what share of the detail it adds: halos.
        palette_prob, colors: Probability of a palette, and how many colours an adaptive one has.
        web_safe_share: Share of the palettes that are the 216 colours of old browsers.
        noise_prob, noise_sigma: Probability of Gaussian noise, and its standard deviation in levels of 255.
        file_prob, quality: Probability of a lossy file, and its quality on Pillow's scale.
        webp_share: Share of the files that are WebP; the rest is JPEG.
    """

    clean_prob: float = 0.1
    margin: int = 8
    second_prob: float = 0.5
    paper_prob: float = 0.15
    bitonal_prob: float = 0.07
    resize_range: tuple[float, float] = (0.8, 2.5)
    soft_prob: float = 0.45
    soft_sigma: tuple[float, float] = (0.2, 1.2)
    sharpen_prob: float = 0.2
    sharpen_amount: tuple[float, float] = (0.3, 1.8)
    palette_prob: float = 0.25
    colors: tuple[float, float] = (8.0, 256.0)
    web_safe_share: float = 0.15
    noise_prob: float = 0.2
    noise_sigma: tuple[float, float] = (1.0, 12.0)
    file_prob: float = 0.55
    quality: tuple[float, float] = (20.0, 95.0)
    webp_share: float = 0.25

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            if each.name != "margin":
                check(each.name, getattr(self, each.name))
        if self.margin < 0:
            raise UsageError(f"degradation: margin is {self.margin}; expected 0 or more")

    def spoiled(self, x: Tensor, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
        """Draws a chain; see `data.degradations.Family`."""
        gray = (x - x.mean(dim=1, keepdim=True)).abs().mean().item() < NEARLY_GRAY
        if rng.random() < self.paper_prob and gray and x.median().item() > 0.7:
            x = on_paper(x, rng)
        bitonal = rng.random() < self.bitonal_prob and gray and _midtones(x) < 0.2
        if rng.random() < self.soft_prob:
            x = gaussian_blur(x, max(0.1, rng.uniform(*self.soft_sigma) * x.shape[-1] / size[1]))
        factor = rng.uniform(*self.resize_range)
        if rng.random() < self.second_prob or bitonal:
            middle = (max(8, round(size[0] * factor)), max(8, round(size[1] * factor)))
            x = two_levels(resized(x, middle, rng), rng) if bitonal else self._round(x, middle, rng)
        return self._round(x, size, rng)

    def _round(self, x: Tensor, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
        x = resized(x, size, rng)
        if rng.random() < self.sharpen_prob:
            x = sharpened(x, rng.uniform(*self.sharpen_amount), rng.uniform(0.5, 1.6))
        if rng.random() < self.palette_prob:
            colors = round(float(np.exp(rng.uniform(*np.log(self.colors)))))
            x = palette(x, None if rng.random() < self.web_safe_share else colors, DITHERS[int(rng.integers(3))])
        if rng.random() < self.noise_prob:
            shape = (1, 1 if rng.random() < 0.5 else 3, *size)
            normal = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
            x = (x + normal * (rng.uniform(*self.noise_sigma) / 255)).clamp(0, 1)
        if rng.random() < self.file_prob:
            save = webp if rng.random() < self.webp_share else jpeg
            x = save(x, round(rng.uniform(*self.quality)))
        return x


NEARLY_GRAY = 6 / 255
"""Mean distance of channels from their mean, below which a picture counts as a page without colour."""


def resized(x: Tensor, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """Resizes as one of the programs that people use: averaging, antialiased, aliasing, nearest. Nothing is displaced.

    Args:
        x: (1, 3, H, W) in [0, 1].
        size: Target (height, width).
        rng: Source of the draw.

    Returns:
        (1, 3, height, width) in [0, 1].
    """
    mode = ("area", "bicubic", "bilinear", "nearest-exact", "antialiased", "antialiased", "lanczos")[
        int(rng.integers(7))
    ]
    if x.shape[-2:] == size:
        return x
    if mode == "nearest-exact" and x.shape[-2] % size[0] == 0:
        mode = "area"  # of an even number of pixels the nearest is half a pixel off
    if mode in ("antialiased", "lanczos"):
        return resize(x, size, kernel="bicubic" if mode == "antialiased" else "lanczos3").clamp(0, 1)
    corners = None if mode in ("area", "nearest-exact") else False
    return F.interpolate(x, size=size, mode=mode, align_corners=corners).clamp(0, 1)


def sharpened(x: Tensor, amount: float, sigma: float) -> Tensor:
    """Adds `amount` times the difference from a Gaussian blur of `sigma` pixels, and clamps: an unsharp mask."""
    return (x + amount * (x - gaussian_blur(x, sigma))).clamp(0, 1)


# --- palettes ---------------------------------------------------------------------------------------

DITHERS = ("none", "floyd-steinberg", "ordered")


def palette(x: Tensor, colors: int | None, dither: str) -> Tensor:
    """Gives a picture a palette, as GIF, PNG of 8 bits and old screens have.

    Args:
        x: (1, 3, H, W) in [0, 1].
        colors: Number of colours chosen for the picture (median cut), 2 to 256; None is the web-safe 216.
        dither: One of `DITHERS`.

    Returns:
        (1, 3, H, W) in [0, 1], of at most that many colours.
    """
    pixels = to_pixels(x, UINT8)
    image = Image.fromarray(pixels)
    if colors is None:
        chosen = Image.new("P", (1, 1))
        chosen.putpalette(WEB_SAFE.tobytes())
        step = 51.0
    else:
        chosen = image.quantize(colors)
        step = 255 / (colors ** (1 / 3) + 1)
    if dither == "ordered":
        image = Image.fromarray(_ordered(pixels, step))
    spread = Image.Dither.FLOYDSTEINBERG if dither == "floyd-steinberg" else Image.Dither.NONE
    return to_tensor(np.asarray(image.quantize(palette=chosen, dither=spread).convert("RGB")))


def _ordered(pixels: NDArray[np.uint8], step: float) -> NDArray[np.uint8]:
    """Adds Bayer's pattern, whose mean is zero, over the distance of two levels."""
    height, width = pixels.shape[:2]
    pattern = np.tile((BAYER + 0.5) / 16 - 0.5, (height // 4 + 1, width // 4 + 1))[:height, :width, None]
    return np.rint(pixels + pattern * step).clip(0, 255).astype(np.uint8)


# --- scans ------------------------------------------------------------------------------------------


def _midtones(x: Tensor) -> float:
    """Returns the share of the pixels that are neither near the darkest nor near the lightest ones."""
    gray = x.mean(dim=1)
    low, high = gray.amin(), gray.amax()
    return ((gray - (low + high) / 2).abs() < (high - low) * 0.35).float().mean().item()


def two_levels(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Cuts a page to black and white around the middle between its paper and its ink, as a fax or a G4 scan."""
    gray = x.mean(dim=1, keepdim=True)
    low, high = (float(torch.quantile(gray, share)) for share in (0.02, 0.98))
    level = low + (high - low) * rng.uniform(0.4, 0.65)
    speckle = torch.from_numpy(rng.standard_normal(tuple(gray.shape), dtype=np.float32)) * rng.uniform(0, 0.06)
    return (gray + speckle > level).float().expand_as(x)


def on_paper(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Prints a page on paper: grain of fibres, the back shining through, and light that falls off to one side.

    Args:
        x: (1, 3, H, W) in [0, 1].
        rng: Source of every draw.

    Returns:
        The same shape, in [0, 1]; the mean light stays within some hundredths.
    """
    height, width = x.shape[-2:]
    grain = torch.zeros(1, 1, height, width)
    for cell in (3, 9):  # fibres, and clouds of them
        coarse = rng.standard_normal((1, 1, height // cell + 2, width // cell + 2), dtype=np.float32)
        grain += F.interpolate(torch.from_numpy(coarse), size=(height, width), mode="bilinear", align_corners=False)
    x = x + grain * (rng.uniform(0, 5) / 255)
    if rng.random() < 0.5:
        back = gaussian_blur(x.mean(dim=1, keepdim=True).expand_as(x), rng.uniform(1.5, 5)).flip(-1)
        x = x * (1 - rng.uniform(0.03, 0.15) * (back.amax() - back))
    if rng.random() < 0.5:
        angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.05)
        down, right = (torch.linspace(-1, 1, side) for side in (height, width))
        x = x * (1 + depth * (np.cos(angle) * right + np.sin(angle) * down[:, None]))
    return x.clamp(0, 1)


__all__ = ["Rendered"]
