"""The package as Python code calls it: paths, PIL images, notebooks, progress."""

import doctest
import importlib
import io
import pydoc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sr_upscale
from sr_upscale.errors import OutputError, ShapeError, SrUpscaleError, UsageError
from sr_upscale.images import Frame, Metadata, Picture, load_image, save_image
from sr_upscale.upscaler import Upscaler
from tests.helpers import doubled, p3_profile, pattern


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
    image.save(file, "JPEG", exif=exif, icc_profile=p3_profile(), dpi=(300, 300))
    large = Upscaler(nearest)(Image.open(file))
    assert large.size == (10, 18)
    out = io.BytesIO()
    large.save(out, "JPEG", exif=large.info["exif"])
    read = Image.open(out).getexif()
    assert (read[0x0112], read[0x010F]) == (1, "A maker")
    assert dict(read.get_ifd(0x8769)) == {0xA002: 10, 0xA003: 18}
    assert (large.info["icc_profile"], large.info["dpi"]) == (p3_profile(), (300, 300))


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


def test_help_shows_the_public_face_alone_with_examples() -> None:
    public = {name: each for name, each in vars(Upscaler).items() if name == "__call__" or not name.startswith("_")}
    assert set(public) == {"__call__", "video"}
    assert all(">>> " in (each.__doc__ or "") for each in (Upscaler, *public.values()))
    assert " at 0x" not in pydoc.render_doc(Upscaler)
    examples = doctest.testmod(importlib.import_module("sr_upscale.upscaler"))
    assert (examples.failed, examples.attempted > 2) == (0, True)


@pytest.fixture
def deep() -> Picture:
    """16-bit RGB of 7x6, with a profile."""
    return Picture(frames=(Frame(pixels_hwc=pattern(6, 7, 3, np.uint16)),), metadata=Metadata(icc=p3_profile()))


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "file", "picture"])
def test_whatever_holds_a_picture_becomes_a_picture(nearest: Path, tmp_path: Path, deep: Picture, kind: str) -> None:
    path = tmp_path / "a.png"
    deep.save(path)
    given: dict[str, Any] = {
        "path": path,
        "text": str(path),
        "bytes": path.read_bytes(),
        "file": path.open("rb"),
        "picture": deep,
    }
    large = Upscaler(nearest, device=torch.device("cpu"))(given[kind])
    assert isinstance(large, Picture)
    assert (large.size, np.asarray(large).dtype.name) == ((14, 12), "uint16")
    assert np.array_equal(np.asarray(large), doubled(np.asarray(deep)))
    given["file"].close()


def test_a_list_becomes_a_list_of_the_same_kinds(nearest: Path, deep: Picture) -> None:
    array, image = pattern(4, 5), Image.fromarray(pattern(3, 9))
    kinds: list[Any] = [array, image, deep]
    one, two, three = list[Any](Upscaler(nearest)(kinds))
    assert np.array_equal(one, doubled(array))
    assert isinstance(two, Image.Image)
    assert (two.size, three.size) == ((18, 6), (14, 12))


def test_a_picture_is_an_array_and_a_pil_image(deep: Picture) -> None:
    array = np.asarray(deep)
    assert (array.shape, array.dtype.name) == ((6, 7, 3), "uint16")
    assert np.asarray(deep, dtype=np.float32).dtype == np.float32
    image = deep.to_pil()
    assert (image.mode, image.size, image.info["icc_profile"]) == ("RGB", (7, 6), p3_profile())
    assert np.abs(np.asarray(image) * 257.0 - array).max() <= 128.5
    film = Picture(frames=tuple(Frame(pixels_hwc=pattern(6, 7, 1), duration_ms=9) for _ in range(3)))
    assert np.asarray(film).shape == (3, 6, 7, 1)
    assert film.to_pil().mode == "L"


def test_a_picture_is_saved_by_names_and_over_nothing(tmp_path: Path) -> None:
    picture = Picture(frames=(Frame(pixels_hwc=pattern(60, 70)),))
    sizes = []
    for quality in (30, 95):
        picture.save(tmp_path / f"{quality}.jpg", quality=quality)
        sizes.append((tmp_path / f"{quality}.jpg").stat().st_size)
    assert sizes[0] < sizes[1]
    with pytest.raises(OutputError, match="exists; give overwrite=True"):
        picture.save(tmp_path / "30.jpg")
    picture.save(tmp_path / "30.jpg", quality=95, overwrite=True)
    assert (tmp_path / "30.jpg").read_bytes() == (tmp_path / "95.jpg").read_bytes()
    file = io.BytesIO()
    picture.save(file, format="webp", quality=100)
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(picture))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda upscaler: upscaler(3), r"image is a int; expected a path, bytes, .* or a list of them"),
        (lambda upscaler: upscaler(torch.zeros(3, 4, 5)), r"image is a Tensor; expected"),
        (lambda upscaler: upscaler([None]), r"image is a NoneType; expected"),
        (lambda upscaler: upscaler("a.png", scale="2"), r"scale is '2'; expected a number"),
        (lambda upscaler: upscaler("a.png", width="900"), r"width is '900'; expected a number"),
        (lambda upscaler: upscaler(io.StringIO()), r"opened as text; open it for reading bytes"),
        (lambda _: save_image(np.zeros((4, 4)), "a.png"), r"picture is a ndarray; expected a Picture"),
        (lambda upscaler: upscaler("a.png", scal=2), r"Upscaler\(\)\(\) takes no 'scal'; did you mean scale\?"),
        (lambda _: sr_upscale.Upscaler(**{"scale": 2}), r"Upscaler\(\) takes no 'scale'; expected some of device"),
    ],
)
def test_what_is_not_taken_is_refused_in_one_line(nearest: Path, call: Callable[[Any], object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        call(Upscaler(nearest))
    assert "\n" not in str(caught.value)


SNIPPET = """
from typing import assert_type

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_upscale import Picture, Upscaler

upscaler = Upscaler("psnr", device="cpu")
array: NDArray[np.uint8] = np.zeros((8, 9, 3), np.uint8)
assert_type(upscaler("photo.jpg", scale=2), Picture)
assert_type(upscaler(b""), Picture)
assert_type(upscaler(Image.new("L", (3, 4))), Image.Image)
assert_type(upscaler(["a.png", "b.png"]), list[Picture])
assert_type(upscaler([Image.new("L", (3, 4))]), list[Image.Image])
assert_type(upscaler("photo.jpg").size, tuple[int, int])
upscaler(array).mean()
upscaler("photo.jpg", factor=2)
upscaler(3)
from sr_upscale import Downscaler
"""


@pytest.mark.slow
def test_a_checker_sees_what_comes_back_and_what_is_not_taken(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    (tmp_path / "snippet.py").write_text(SNIPPET)
    said, errors, _code = api.run(["--strict", "--follow-imports=silent", str(tmp_path / "snippet.py")])
    found = [line.split(": ", 1) for line in said.splitlines() if ": error: " in line]
    assert {int(place.split(":")[-1]) for place, _text in found} == {19, 20, 21}, said + errors
