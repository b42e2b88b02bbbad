from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr_upscale.errors import ShapeError
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.resize import Kernel, downscale_matlab, resize, resize_pixels, resize_rows
from tests.helpers import pattern


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_agrees_with_matlab_files(shared: Path, scale: int) -> None:
    """The LR files of Set5 and Set14 were made by MATLAB from the HR files beside them."""
    differing = total = 0
    for path in sorted(shared.glob(f"benchmarks/**/image_SRF_{scale}/*_HR.png")):
        hr, lr = (np.asarray(Image.open(name)) for name in (path, str(path).replace("_HR", "_LR")))
        hr, lr = (pixels[:, :, None] if pixels.ndim == 2 else pixels for pixels in (hr, lr))
        ours = to_pixels(downscale_matlab(to_tensor(hr).double(), scale), np.dtype(np.uint8))
        assert ours.shape == lr.shape, path.name
        differing += int((np.abs(ours.astype(int) - lr) > 1).sum())
        total += lr.size
    assert total > 0
    assert differing / total <= 1e-5


@pytest.mark.parametrize(
    ("kernel", "pillow"), [("bicubic", Image.Resampling.BICUBIC), ("lanczos3", Image.Resampling.LANCZOS)]
)
@pytest.mark.parametrize("size", [(31, 23), (11, 50), (90, 130)])
def test_interior_agrees_with_pillow(kernel: str, pillow: Image.Resampling, size: tuple[int, int]) -> None:
    """Pillow uses the same kernels and the same antialiasing; it only treats the border in another way."""
    values = pattern(61, 83, 1)[:, :, 0].astype(np.float32)
    ours = resize(torch.from_numpy(values), size, kernel=kernel).numpy()  # type: ignore[arg-type]
    theirs = np.asarray(Image.fromarray(values).resize(size[::-1], pillow))
    border = [max(1, -(-3 * side // source)) + 3 for side, source in zip(size, values.shape, strict=True)]
    inner = (slice(border[0], -border[0]), slice(border[1], -border[1]))
    if ours[inner].size:
        np.testing.assert_allclose(ours[inner], theirs[inner], atol=0.02)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(31, 23), (90, 130)])
def test_pixels_keep_their_type_and_are_rounded(dtype: type, size: tuple[int, int]) -> None:
    """Every second of the columns, so that rows of other pictures lie between them in memory."""
    most = np.iinfo(dtype).max
    pixels = (pattern(61, 166, 1).astype(float) / 255 * most).astype(dtype)[:, ::2]
    ours = resize_pixels(pixels, size)
    theirs = np.asarray(
        Image.fromarray(pixels[:, :, 0].astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC)
    )
    assert (ours.dtype, ours.shape) == (np.dtype(dtype), (*size, pixels.shape[2]))
    inner = (slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(ours[:, :, 0][inner], theirs.clip(0, most)[inner], atol=0.5 + 0.02 / 255 * most)


@pytest.mark.parametrize("kernel", ["bicubic", "lanczos3"])
@pytest.mark.parametrize("size", [(1, 1), (3, 40), (17, 9)])
def test_constant_stays_constant(kernel: str, size: tuple[int, int]) -> None:
    out = resize(torch.full((2, 7, 9), 0.37, dtype=torch.float64), size, kernel=kernel)  # type: ignore[arg-type]
    torch.testing.assert_close(out, torch.full((2, *size), 0.37, dtype=torch.float64))


def test_same_size_is_identity() -> None:
    x = torch.rand(3, 5, 6)
    assert torch.equal(resize(x, (5, 6)), x)


def test_borders_repeat_the_edge_pixel() -> None:
    """Resampling a picture equals the middle of resampling it with its edges drawn out."""
    x = torch.rand(1, 12, 12, dtype=torch.float64)
    wide = torch.nn.functional.pad(x[None], (12, 12, 12, 12), mode="replicate")[0]
    torch.testing.assert_close(resize(x, (3, 3)), resize(wide, (9, 9))[:, 3:6, 3:6])


def test_bad_calls_are_refused() -> None:
    with pytest.raises(ShapeError, match="at least 1"):
        resize(torch.rand(3, 4), (0, 2))
    with pytest.raises(ShapeError, match="floating point"):
        resize(torch.zeros(3, 4, dtype=torch.uint8), (2, 2))
    with pytest.raises(ShapeError, match="crop it"):
        downscale_matlab(torch.rand(3, 5, 8), 4)


@pytest.mark.parametrize("kernel", ["bicubic", "lanczos3"])
@pytest.mark.parametrize("size", [(31, 20), (20, 31), (77, 91), (26, 26), (1, 1), (26, 40)])
@pytest.mark.parametrize("heights", [[26], [1] * 26, [3, 10, 1, 12]])
def test_rows_one_strip_after_the_other_are_the_whole_pictures(
    kernel: Kernel, size: tuple[int, int], heights: list[int]
) -> None:
    image = torch.rand(2, 26, 33)
    expected = resize(image, size, kernel=kernel)
    found = torch.cat(list(resize_rows(image.split(heights, dim=1), 26, size, kernel=kernel)), dim=1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_rows_hold_only_what_the_kernel_sees() -> None:
    """Enlarging by 2 with a kernel of radius 3: an output row comes at most 4 input rows after its place."""
    asked = 0

    def strips() -> Iterator[torch.Tensor]:
        nonlocal asked
        for _ in range(200):
            asked += 1
            yield torch.rand(1, 1, 5)

    came = 0
    for band in resize_rows(strips(), 200, (400, 10), kernel="lanczos3"):
        came += band.shape[1]
        assert came / 2 >= asked - 4
    assert came == 400
