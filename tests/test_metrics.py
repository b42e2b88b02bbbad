import math

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

from sr_upscale.color import rgb_to_y, to_pixels, to_tensor
from sr_upscale.errors import ShapeError
from sr_upscale.metrics import psnr
from tests.conftest import pattern


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
