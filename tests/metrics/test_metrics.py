import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr_upscale.errors import NetworkError, ShapeError, UsageError
from sr_upscale.functional.color import rgb_to_y, to_pixels, to_tensor
from sr_upscale.metrics.niqe import niqe
from sr_upscale.metrics.reference import lattice_energy, lpips_distance, lpips_model, psnr, ssim, vgg19_distance
from sr_upscale.models.features import VGG19Features, read_vgg19
from tests.helpers import ROOT, pattern, vgg19_state


def test_y_agrees_with_scikit_image() -> None:
    rgb = pattern(17, 23)
    ours = rgb_to_y(to_tensor(rgb).double())[0, 0].numpy() * 255
    np.testing.assert_allclose(ours, rgb2ycbcr(rgb)[:, :, 0], atol=1e-9)


@pytest.mark.parametrize("border", [0, 4])
@pytest.mark.parametrize("y_channel", [False, True])
def test_psnr_agrees_with_scikit_image(border: int, y_channel: bool) -> None:
    hr = pattern(31, 27)
    sr = np.clip(hr.astype(int) + np.random.default_rng(0).integers(-9, 10, hr.shape), 0, 255).astype(np.uint8)
    ours = psnr(to_tensor(sr), to_tensor(hr), crop_border=border, y_channel=y_channel)
    a, b = (rgb2ycbcr(x)[:, :, :1] if y_channel else x.astype(float) for x in (sr, hr))
    inner = (slice(border, -border or None), slice(border, -border or None))
    assert float(ours) == pytest.approx(peak_signal_noise_ratio(a[inner], b[inner], data_range=255), abs=1e-5)


def test_psnr_of_a_known_difference_and_of_none() -> None:
    x = torch.full((2, 3, 4, 4), 0.5)
    y = x.clone()
    y[1] += 0.1
    first, second = psnr(y, x).tolist()
    assert math.isinf(first)
    assert second == pytest.approx(20.0, abs=1e-5)
    assert psnr(x, y)[1] == psnr(y, x)[1]


def test_bad_calls_are_refused() -> None:
    x = torch.rand(1, 3, 8, 8)
    with pytest.raises(ShapeError, match="equal shapes"):
        psnr(x, x[:, :, 1:])
    with pytest.raises(ShapeError, match="leaves no pixels"):
        psnr(x, x, crop_border=4)
    with pytest.raises(ShapeError, match="Y needs 3 channels"):
        psnr(x[:, :1], x[:, :1], y_channel=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_survive_the_way_through_tensors(dtype: type[np.uint8] | type[np.uint16], channels: int) -> None:
    pixels = pattern(5, 7, channels, dtype)
    assert np.array_equal(to_pixels(to_tensor(pixels), pixels.dtype), pixels)


def test_values_beyond_the_range_are_clamped() -> None:
    tensor = torch.tensor([-0.2, 0.0, 1.0, 1.3]).view(1, 1, 1, 4)
    assert to_pixels(tensor, np.dtype(np.uint8)).ravel().tolist() == [0, 0, 255, 255]


# --- SSIM, VGG19 distance, NIQE, lattice ------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(31, 44), (11, 11)])
def test_ssim_agrees_with_scikit_image(height: int, width: int) -> None:
    """On Y and on RGB, with Wang's settings; scikit-image's mean leaves out the same border of the window."""
    rng = np.random.default_rng(0)
    hr = pattern(height, width).astype(np.float64) / 255
    sr = (hr + rng.normal(0, 0.05, hr.shape)).clip(0, 1)
    a, b = (torch.from_numpy(each.transpose(2, 0, 1))[None] for each in (sr, hr))
    settings = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(sr, hr, channel_axis=2, **settings)
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-6)
    ya, yb = (rgb_to_y(each)[0, 0].numpy() for each in (a, b))
    assert ssim(a, b, y_channel=True).item() == pytest.approx(structural_similarity(ya, yb, **settings), abs=1e-6)


def test_ssim_of_equal_images_is_one_and_small_ones_are_refused() -> None:
    image = torch.rand(2, 3, 20, 20)
    assert ssim(image, image, crop_border=4).tolist() == pytest.approx([1, 1])
    with pytest.raises(ShapeError, match="the crop leaves 10x12"):
        ssim(image[..., :20, :18], image[..., :20, :18], crop_border=4)


def test_vgg19_distance_is_zero_for_equal_images_and_grows() -> None:
    features = VGG19Features(vgg19_state("conv3_4"), ["conv3_4"])
    hr = torch.from_numpy(pattern(40, 48).transpose(2, 0, 1).astype(np.float32) / 255)[None]
    noise = torch.randn(hr.shape, generator=torch.Generator().manual_seed(0))
    distances = [vgg19_distance((hr + scale * noise).clamp(0, 1), hr, features).item() for scale in (0, 0.02, 0.1)]
    assert distances[0] == pytest.approx(0, abs=1e-5)
    assert distances == sorted(distances)
    with torch.inference_mode():
        expected = (features(hr)["conv3_4"] - features(hr * 0.5)["conv3_4"]).abs().mean().item()
    assert vgg19_distance(hr * 0.5, hr, features).item() == pytest.approx(expected, rel=1e-4)


def test_lattice_energy_finds_the_lattice_that_is_there() -> None:
    """Noise fills harmonics and the rest alike; one sub-pixel that is a little brighter stands out."""
    noise = torch.rand(1, 3, 128, 160, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    assert lattice_energy(noise, 4).item() == pytest.approx(1, abs=0.3)
    with_lattice = noise.clone()
    with_lattice[..., 1::4, 2::4] += 0.1
    assert lattice_energy(with_lattice, 4).item() > 3
    assert lattice_energy(with_lattice, 2).item() < lattice_energy(with_lattice, 4).item()
    with pytest.raises(ShapeError, match="expected"):
        lattice_energy(noise[..., :20], 4)


def test_niqe_of_baboon_is_the_published_one(shared: Path) -> None:
    """BasicSR and the authors' MATLAB code agree on 5.7296 for baboon.png."""
    (path,) = (shared / "benchmarks").glob("**/Set14/image_SRF_4/img_001_SRF_4_HR.png")
    baboon = to_tensor(np.asarray(Image.open(path).convert("RGB")))
    assert niqe(baboon) == pytest.approx(5.7296, abs=1e-4)


def test_niqe_rises_with_noise_and_blocks() -> None:
    chelsea = Image.open(ROOT / "examples" / "chelsea.png").convert("RGB")
    clean = to_tensor(np.asarray(chelsea))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    assert niqe((clean + noise).clamp(0, 1)) > niqe(clean) + 2
    with pytest.raises(ShapeError, match="needs two blocks of 96x96; got 100x120"):
        niqe(clean[..., :120, :100])
    with pytest.raises(ShapeError, match="expected one picture"):
        niqe(clean[0])


def test_lpips_passes_pictures_on_as_the_network_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra's own network with a random trunk (no download): -1 to 1, border left out, 0 for equal pictures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lpips

        torch.manual_seed(0)
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    hr = torch.rand(1, 3, 72, 80)
    sr = (hr + 0.1 * torch.randn(hr.shape)).clamp(0, 1)
    inner = (..., slice(4, -4), slice(4, -4))
    with torch.no_grad():
        expected = network(sr[inner] * 2 - 1, hr[inner] * 2 - 1).item()
    assert lpips_distance(sr, hr, network, crop_border=4).item() == pytest.approx(expected, rel=1e-5)
    assert lpips_distance(hr, hr, network).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(UsageError, match="expected alex or vgg"):
        lpips_model("squeeze")
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(UsageError, match=r"'\.\[lpips\]'"):
        lpips_model("alex")


def test_niqe_of_flat_pictures_is_refused() -> None:
    flat = torch.full((1, 3, 200, 300), 0.5)
    flat[..., 12:84, 12:84] = torch.rand(3, 72, 72, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ShapeError, match="two blocks with texture; 5 of 6 are flat"):
        niqe(flat)


def test_networks_that_judge_are_not_fetched_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SR_UPSCALE_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(NetworkError, match="vgg19-.*offline .*give a file with --vgg-weights"):
        read_vgg19(None)
    pytest.importorskip("lpips")
    with pytest.raises(NetworkError, match="alexnet-.*offline .*leave out --metric lpips"):
        lpips_model("alex")
