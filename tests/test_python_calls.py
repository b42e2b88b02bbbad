"""The package as Python code calls it: paths, PIL images, notebooks, progress."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_upscale.errors import ShapeError, SrUpscaleError, UsageError
from sr_upscale.images import Frame, Metadata, Picture, load_image, save_image
from sr_upscale.upscaler import Upscaler
from tests.helpers import p3_profile, pattern


def doubled(pixels: np.ndarray) -> np.ndarray:
    return pixels.repeat(2, axis=0).repeat(2, axis=1)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_becomes_a_picture_with_all_that_belongs_to_it(
    nearest: Path, tmp_path: Path, kind: type[str] | type[Path]
) -> None:
    deep = pattern(6, 7, 3, np.uint16)
    save_image(Picture(frames=(Frame(pixels_hwc=deep),), metadata=Metadata(icc=p3_profile())), kind(tmp_path / "a.png"))
    seen: list[tuple[int, int]] = []
    large = Upscaler(nearest)(kind(tmp_path / "a.png"), progress=lambda done, total: seen.append((done, total)))
    assert np.array_equal(large.frames[0].pixels_hwc, doubled(deep))
    large.save(kind(tmp_path / "b.tif"))
    again = load_image(kind(tmp_path / "b.tif"))
    assert np.array_equal(again.frames[0].pixels_hwc, doubled(deep))
    assert again.metadata.icc == p3_profile()
    assert seen[-1][0] == seen[-1][1] >= 1
    with pytest.warns(UserWarning, match="8"):  # JPEG holds no more bits
        large.save(kind(tmp_path / "c.jpg"))
    with pytest.raises(UsageError, match="cannot write format"):
        large.save(kind(tmp_path / "c.doc"))


def test_exif_of_a_pil_image_survives_upright_and_with_the_new_size(nearest: Path) -> None:
    image = Image.fromarray(pattern(5, 9))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A maker"
    exif[0x8769] = {0xA002: 9, 0xA003: 5}
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, icc_profile=p3_profile())
    large = Upscaler(nearest)(Image.open(file))
    assert large.size == (10, 18)
    out = io.BytesIO()
    large.save(out, "JPEG", exif=large.info["exif"])
    read = Image.open(out).getexif()
    assert (read[0x0112], read[0x010F]) == (1, "A maker")
    assert dict(read.get_ifd(0x8769)) == {0xA002: 10, 0xA003: 18}
    assert large.info["icc_profile"] == p3_profile()


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (2, np.uint8), (3, np.uint16), (4, np.uint8)])
def test_a_notebook_shows_a_picture_and_says_what_it_is(channels: int, dtype: type[np.uint8]) -> None:
    picture = Picture(frames=(Frame(pixels_hwc=pattern(9, 2000, channels, dtype)),))
    with Image.open(io.BytesIO(picture._repr_png_())) as image:
        assert image.size == (1024, 5)
        assert len(image.getbands()) == channels
    small = Picture(frames=(Frame(pixels_hwc=pattern(9, 20, channels, dtype)),))
    shown = np.asarray(Image.open(io.BytesIO(small._repr_png_()))).reshape(9, 20, channels)
    scale = 257 if dtype == np.uint16 else 1
    assert np.abs(shown * np.float64(scale) - pattern(9, 20, channels, dtype)).max() <= scale / 2
    assert repr(picture) == f"<Picture 2000x9, {channels} channels of {np.iinfo(dtype).bits} bits>"


def test_an_upscaler_says_what_it_is_and_shape_errors_are_ours(micro: Path) -> None:
    upscaler = Upscaler(micro, device="cpu", dtype="fp32")
    assert repr(upscaler) == "<Upscaler micro-x2 by torch on cpu, float32>"
    with pytest.raises(SrUpscaleError) as caught:
        upscaler(np.zeros((2, 3, 4, 5)))
    assert isinstance(caught.value, ShapeError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.dtype(">u2")])
def test_an_array_comes_back_in_its_type_with_its_values(nearest: Path, dtype: type[np.float16]) -> None:
    """Half precision gave 0.0004 for 0.5."""
    top = 1 if np.dtype(dtype).kind == "f" else 65535
    values = (np.array([[0, 0.25], [0.5, 1]]) * top).astype(dtype)
    large = Upscaler(nearest)(values)
    assert large.dtype == values.dtype
    assert np.allclose(large.astype(np.float64), doubled(values).astype(np.float64), atol=1e-3)
