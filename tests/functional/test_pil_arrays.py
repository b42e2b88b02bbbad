"""Every type of NumPy and every mode of Pillow: the right pixels and the same kind back, or a refusal by name."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from sr_upscale.errors import ShapeError
from sr_upscale.functional.pil_arrays import like, pixels_of
from tests.helpers import p3_profile, pattern

FLOATS = ("e", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "g")
RAMP = np.linspace(0, 1, 12).reshape(3, 4)


@pytest.mark.parametrize("code", FLOATS)
def test_floats_of_every_width_come_back_as_they_went(code: str) -> None:
    """Truth: 65535 x as computed in float64. Half precision ended at infinity."""
    values = RAMP.astype(code)
    pixels = pixels_of(values)
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels[:, :, 0], np.rint(values.astype(np.float64) * 65535))
    back = like(values, pixels)
    assert back.dtype == values.dtype
    assert np.abs(back.astype(np.float64) - values.astype(np.float64)).max() <= max(np.finfo(code).eps, 1 / 65535)


@pytest.mark.parametrize("code", ["u1", "<u2", ">u2"])
def test_whole_numbers_of_either_byte_order(code: str) -> None:
    values = (RAMP * np.iinfo(code).max).astype(code)
    pixels = pixels_of(values)
    assert pixels.dtype.isnative
    assert np.array_equal(pixels[:, :, 0], values)
    back = like(values, pixels)
    assert back.dtype == values.dtype
    assert np.array_equal(back, values)


@pytest.mark.parametrize("code", sorted(set(np.typecodes["All"]) - set("BHefdg")))
def test_other_types_are_refused_by_name(code: str) -> None:
    with pytest.raises(ShapeError, match="expected uint8, uint16 or floats"):
        pixels_of(np.zeros((3, 4), code))


@pytest.mark.parametrize("code", FLOATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.1])
def test_floats_outside_their_range_are_refused(code: str, value: float) -> None:
    with pytest.raises(ShapeError, match=r"outside \[0, 1\]"):
        pixels_of(np.full((2, 2), value, code))


# --- Pillow -----------------------------------------------------------------------------------------

RGB = Image.fromarray(pattern(6, 9))
SEEN = Image.fromarray(pattern(6, 9, 4))


def with_transparency(mode: str, transparency: object) -> Image.Image:
    image = RGB.convert(mode)
    image.info["transparency"] = transparency
    return image


@pytest.mark.parametrize(
    ("image", "truth", "comes_back"),
    [
        (RGB.convert("1"), RGB.convert("1").convert("L"), "L"),
        (RGB.convert("L"), RGB.convert("L"), "L"),
        (RGB.quantize(9), RGB.quantize(9).convert("RGB"), "RGB"),
        (RGB, RGB, "RGB"),
        (SEEN, SEEN, "RGBA"),
        (RGB.convert("RGBX"), RGB, "RGB"),
        (SEEN.convert("RGBa"), SEEN.convert("RGBa").convert("RGBA"), "RGBA"),
        (SEEN.convert("LA"), SEEN.convert("LA"), "LA"),
        (SEEN.convert("LA").convert("La"), SEEN.convert("LA").convert("La").convert("LA"), "LA"),
        (SEEN.convert("PA"), SEEN.convert("PA").convert("RGBA"), "RGBA"),
        (RGB.convert("CMYK"), RGB.convert("CMYK").convert("RGB"), "RGB"),
        (RGB.convert("YCbCr"), RGB.convert("YCbCr").convert("RGB"), "RGB"),
        (RGB.convert("HSV"), RGB.convert("HSV").convert("RGB"), "RGB"),
        (with_transparency("L", 99), with_transparency("L", 99).convert("LA"), "LA"),
        (with_transparency("RGB", (1, 2, 3)), with_transparency("RGB", (1, 2, 3)).convert("RGBA"), "RGBA"),
        (with_transparency("P", 3), with_transparency("P", 3).convert("RGBA"), "RGBA"),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_modes_of_eight_bits(image: Image.Image, truth: Image.Image, comes_back: str) -> None:
    pixels = pixels_of(image)
    assert np.array_equal(pixels.squeeze(), np.asarray(truth))
    assert like(image, pixels).mode == comes_back


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N", "I"])
def test_modes_of_sixteen_bits(mode: str) -> None:
    values: NDArray[np.uint16] = pattern(6, 9, 1, np.uint16)[:, :, 0].astype(np.uint16)
    order = {"I;16B": ">u2", "I": "i4"}.get(mode, "<u2")
    image = Image.frombytes(mode, (9, 6), values.astype(order).tobytes())
    pixels = pixels_of(image)
    assert np.array_equal(pixels[:, :, 0], values)
    assert np.array_equal(np.asarray(like(image, pixels)), values)


def test_floats_of_pillow() -> None:
    image = Image.fromarray(RAMP.astype(np.float32))
    assert np.array_equal(pixels_of(image)[:, :, 0], np.rint(RAMP.astype(np.float32) * np.float32(65535)))
    assert np.allclose(np.asarray(like(image, pixels_of(image))), RAMP, atol=1 / 65535)
    whole = np.rint(RAMP * 65535).astype(np.int32)
    for wrong in (whole + 70_000, whole - 1, RAMP.astype(np.float32) * 2):
        with pytest.raises(ShapeError, match="expected"):
            pixels_of(Image.fromarray(wrong))


def test_cielab_becomes_srgb() -> None:
    """The way there and back by littleCMS; colours of sRGB lose no more than rounding of L, a and b."""
    there = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(RGB, there)
    assert lab is not None
    assert lab.mode == "LAB"
    assert np.abs(pixels_of(lab).astype(int) - np.asarray(RGB)).mean() < 2
    assert like(lab, pixels_of(lab)).mode == "RGB"


def test_a_profile_stays_with_the_colours_that_it_describes() -> None:
    file = io.BytesIO()
    RGB.save(file, "PNG", icc_profile=p3_profile(), dpi=(300, 300))
    wide = Image.open(file)
    assert like(wide, pixels_of(wide)).info["icc_profile"] == p3_profile()
    inked = RGB.convert("CMYK")
    inked.info["icc_profile"] = b"no profile at all"
    out = like(inked, pixels_of(inked))
    assert np.array_equal(np.asarray(out), np.asarray(inked.convert("RGB")))
    assert "icc_profile" not in out.info
