"""How near an image is to its ground truth."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sr_upscale.errors import NetworkError, ShapeError, UsageError
from sr_upscale.formatting import needing
from sr_upscale.functional.color import rgb_to_y
from sr_upscale.models.features import DISTANCE_LAYER, VGG19Features
from sr_upscale.storage.remote import require_online


def psnr(sr: Tensor, hr: Tensor, *, data_range: float = 1.0, crop_border: int = 0, y_channel: bool = False) -> Tensor:
    """Computes the peak signal-to-noise ratio per image, in dB.

    Args:
        sr: Restored images, (N, C, H, W), in [0, data_range]. Quantise them to 8 bits first to match papers.
        hr: Reference images, same shape, range and device.
        data_range: Difference between white and black.
        crop_border: Pixels left out along each edge; papers use the scale.
        y_channel: Compare luma (`rgb_to_y`). It needs C = 3 and data_range 1.

    Returns:
        (N,) float64 (on MPS, which knows no float64, of the type of `sr`); inf where the images are equal.

    Raises:
        ShapeError: Shapes differ, the crop leaves no pixels, or Y is asked for without RGB in [0, 1].

    Source: the convention of the MATLAB evaluation used since SRCNN (Dong et al. 2014, arXiv:1501.00092).
    """
    sr, hr = prepared(sr, hr, "PSNR", data_range=data_range, crop_border=crop_border, y_channel=y_channel)
    mse = (sr - hr).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(data_range**2 / mse)


SSIM_WINDOW = 11
"""Pixels of a side of SSIM's window. Smaller pictures have no SSIM."""


def ssim(sr: Tensor, hr: Tensor, *, data_range: float = 1.0, crop_border: int = 0, y_channel: bool = False) -> Tensor:
    """Computes the structural similarity per image.

    The window is a Gaussian of 11x11 with sigma 1.5, taken only where it lies inside. K1 is 0.01, K2 is 0.03. The
    result is the mean over pixels and channels.

    Args:
        sr: Restored images, (N, C, H, W), in [0, data_range]. Quantise them to 8 bits first to match papers.
        hr: Reference images, same shape, range and device.
        data_range: Difference between white and black.
        crop_border: Pixels left out along each edge; papers use the scale.
        y_channel: Compare luma (`rgb_to_y`). It needs C = 3 and data_range 1.

    Returns:
        (N,) float64, at most 1.

    Raises:
        ShapeError: Shapes differ, the crop leaves less than 11x11 pixels, or Y is asked for without RGB in [0, 1].

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861, as its MATLAB code computes it.
    """
    sr, hr = prepared(sr, hr, "SSIM", data_range=data_range, crop_border=crop_border, y_channel=y_channel)
    if min(sr.shape[-2:]) < SSIM_WINDOW:
        raise ShapeError(
            f"SSIM needs {SSIM_WINDOW}x{SSIM_WINDOW} pixels; the crop leaves {sr.shape[-1]}x{sr.shape[-2]}"
        )
    taps = torch.arange(SSIM_WINDOW, dtype=torch.float64, device=sr.device) - SSIM_WINDOW // 2
    window = torch.exp(-(taps**2) / (2 * 1.5**2))
    window /= window.sum()

    def smooth(x: Tensor) -> Tensor:
        flat = x.reshape(-1, 1, *x.shape[-2:])
        return F.conv2d(F.conv2d(flat, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1)).view(*x.shape[:2], -1)

    mean_sr, mean_hr = smooth(sr), smooth(hr)
    var_sr, var_hr = smooth(sr * sr) - mean_sr**2, smooth(hr * hr) - mean_hr**2
    covariance = smooth(sr * hr) - mean_sr * mean_hr
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_sr * mean_hr + c1) / (mean_sr**2 + mean_hr**2 + c1)
    structure = (2 * covariance + c2) / (var_sr + var_hr + c2)
    index: Tensor = (luminance * structure).mean(dim=(1, 2))
    return index


def vgg19_distance(
    sr: Tensor, hr: Tensor, features: VGG19Features, *, layer: str = DISTANCE_LAYER, crop_border: int = 0
) -> Tensor:
    """Computes the mean absolute difference of VGG19 features per image.

    It says how different two pictures look, texture included.

    Args:
        sr, hr: (N, 3, H, W), RGB in [0, 1], of equal shape and on the device of `features`.
        features: The network; `layer` must be among its layers. Values depend on its weights, so compare only values
            of one file of weights.
        layer: Where to compare, before activation.
        crop_border: Pixels left out along each edge.

    Returns:
        (N,) float32; 0 for equal images.

    Raises:
        ShapeError: Shapes differ, or the crop leaves no pixels.
    """
    sr, hr = prepared(sr, hr, "VGG19 distance", data_range=1.0, crop_border=crop_border, y_channel=False)
    with torch.inference_mode():
        ours, theirs = features(sr.float())[layer], features(hr.float())[layer]
    distance: Tensor = (ours - theirs).abs().mean(dim=(1, 2, 3))
    return distance


LPIPS_BACKBONES = ("alex", "vgg")


def lpips_model(backbone: str) -> nn.Module:
    """Loads the LPIPS network of the extra ``lpips``.

    Scores of two backbones do not compare. The trunk comes from torchvision, downloaded once.

    Args:
        backbone: One of `LPIPS_BACKBONES`.

    Returns:
        The network, frozen, on the CPU, for `lpips_distance`.

    Raises:
        UsageError: There is no such backbone, or the extra is not installed.
        NetworkError: The trunk cannot be downloaded.

    Source: Zhang et al. 2018, arXiv:1801.03924.
    """
    if backbone not in LPIPS_BACKBONES:
        raise UsageError(f"LPIPS backbone is {backbone!r}; expected {' or '.join(LPIPS_BACKBONES)}")
    with needing("lpips", "LPIPS needs an extra"):
        import lpips
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    trunk = {"alex": AlexNet_Weights.IMAGENET1K_V1, "vgg": VGG16_Weights.IMAGENET1K_V1}[backbone]
    require_online(trunk.url, "run it once online, or leave out --metric lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torchvision's old names, which lpips uses
        try:
            model: nn.Module = lpips.LPIPS(net=backbone, verbose=False)
        except OSError as error:
            raise NetworkError(f"LPIPS: the weights of its {backbone} trunk cannot be had ({error})") from error
    return model.requires_grad_(False).eval()


def lpips_distance(sr: Tensor, hr: Tensor, model: nn.Module, *, crop_border: int = 0) -> Tensor:
    """Computes the learned perceptual distance (LPIPS) per image.

    Args:
        sr, hr: (N, 3, H, W), RGB in [0, 1], of equal shape and on the device of `model`.
        model: The network of `lpips_model`.
        crop_border: Pixels left out along each edge; some papers leave out none.

    Returns:
        (N,) float32; 0 for equal images.

    Raises:
        ShapeError: Shapes differ, or the crop leaves no pixels.
    """
    sr, hr = prepared(sr, hr, "LPIPS", data_range=1.0, crop_border=crop_border, y_channel=False)
    with torch.inference_mode():
        distance: Tensor = model(sr.float() * 2 - 1, hr.float() * 2 - 1).flatten()
    return distance


def lattice_energy(image: Tensor, period: int, *, window: int = 32) -> Tensor:
    """Measures how much of an image's fine detail repeats with a period: the grid that a sub-pixel tail can leave.

    The image is cut into windows of `window` pixels, Hann-weighted and half overlapping. In each, the power at the
    frequencies k/period of either axis, without the mean, is divided by the power at their neighbours between the
    harmonics. Real texture fills both alike, a lattice fills the harmonics alone. Only the flattest quarter of the
    windows counts, where a lattice is seen. Of them the median is taken, so that one railing does not count.

    Args:
        image: (N, C, H, W), in [0, 1]. It is converted to its mean over channels.
        period: Pixels between the lines, the factor of the tail.
        window: Side of a window in pixels, a multiple of 2 * `period`.

    Returns:
        (N,) float64, a ratio: about 1 for real texture, more for a lattice.

    Raises:
        ShapeError: The image is not (N, C, H, W), it is smaller than a window, or `window` is no such multiple.
    """
    if image.dim() != 4 or min(image.shape[-2:]) < window or window % (2 * period):
        raise ShapeError(
            f"lattice energy of {tuple(image.shape)} in windows of {window}; expected (N, C, H, W) of at least that"
        )
    gray = image.double().mean(dim=1)
    parts = gray.unfold(1, window, window // 2).unfold(2, window, window // 2).flatten(1, 2)
    hann = torch.hann_window(window, periodic=True, dtype=torch.float64, device=image.device)
    parts = (parts - parts.mean(dim=(-2, -1), keepdim=True)) * hann[:, None] * hann
    power = torch.fft.fft2(parts).abs().square()
    step = window // period
    harmonic = torch.zeros(window, window, dtype=torch.bool, device=image.device)
    harmonic[::step, ::step] = True
    harmonic[0, 0] = False
    between = torch.roll(harmonic, (step // 2, step // 2), (0, 1)) & ~harmonic
    between[step // 2, step // 2] = False  # too near to the mean, where pictures have most of their power
    ratio = power[..., harmonic].mean(dim=-1) / power[..., between].mean(dim=-1).clamp_min(1e-12)
    flattest = power.sum(dim=(-2, -1)).argsort(dim=1)[:, : max(1, ratio.shape[1] // 4)]
    typical: Tensor = ratio.gather(1, flattest).median(dim=1).values
    return typical


def prepared(
    sr: Tensor, hr: Tensor, name: str, *, data_range: float, crop_border: int, y_channel: bool
) -> tuple[Tensor, Tensor]:
    """Checks both images and returns them in float64, as Y if wanted, without their border."""
    if sr.shape != hr.shape or sr.dim() != 4:
        raise ShapeError(
            f"{name} of {tuple(sr.shape)} against {tuple(hr.shape)}; expected two equal shapes (N, C, H, W)"
        )
    if min(sr.shape[-2:]) <= 2 * crop_border:
        raise ShapeError(f"crop_border {crop_border} leaves no pixels of {sr.shape[-1]}x{sr.shape[-2]}")
    if y_channel and (sr.shape[1] != 3 or data_range != 1.0):
        raise ShapeError(f"Y needs 3 channels in [0, 1]; got {sr.shape[1]} channels and data_range {data_range}")
    if sr.device.type != "mps":  # which knows no float64
        sr, hr = sr.double(), hr.double()
    if y_channel:
        sr, hr = rgb_to_y(sr), rgb_to_y(hr)
    if crop_border:
        inner = (..., slice(crop_border, -crop_border), slice(crop_border, -crop_border))
        sr, hr = sr[inner], hr[inner]
    return sr, hr
