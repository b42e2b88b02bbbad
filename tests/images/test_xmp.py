"""XMP, IPTC and texts: what was there arrives, true for the new picture, with a line about what made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, IptcImagePlugin
from PIL.PngImagePlugin import PngInfo

from sr_upscale.images import FORMATS, Frame, Metadata, Picture, SaveOptions, load_image, save_image, xmp
from sr_upscale.images.adapt import adapt
from sr_upscale.images.xmp import Change, renewed_xmp, upright_xmp
from tests.helpers import Cli, pattern

SPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "x": "adobe:ns:meta/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "stEvt": "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
}
IPTC = b"\x1c\x02\x05\x00\x06A catx\x1c\x02\x50\x00\x03Ann"
"""Two records: object name, byline."""


def packet(attributes: str = "", children: str = "") -> bytes:
    spaces = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in SPACES.items())
    return (
        f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta {spaces}><rdf:RDF>'
        f'<rdf:Description rdf:about="" {attributes}>{children}</rdf:Description></rdf:RDF></x:xmpmeta>'
        '\n   <?xpacket end="w"?>'
    ).encode()


def values(data: bytes, name: str) -> list[str | None]:
    """Values of a property, as attribute or element, wherever it stands."""
    prefix, _, local = name.partition(":")
    key = f"{{{SPACES[prefix]}}}{local}"
    root = ElementTree.fromstring(data)
    return [each.get(key) for each in root.iter() if key in each.attrib] + [each.text for each in root.iter(key)]


CHANGE = Change(software="sr-upscale 1", parameters="6x7 to 24x28 pixels by <psnr-x4> & more", before=(6, 7))


@pytest.mark.parametrize("element", [False, True])
def test_sizes_and_orientation_become_those_of_the_output(element: bool) -> None:
    pairs = {
        "tiff:Orientation": "6",
        "tiff:ImageWidth": "7",
        "tiff:ImageLength": "6",
        "exif:PixelXDimension": "7",
        "exif:PixelYDimension": "6",
        "GPano:FullPanoWidthPixels": "60",
        "GPano:CroppedAreaTopPixels": "3",
        "xmp:Rating": "5",
    }
    if element:
        data = packet(children="".join(f"<{key}>{value}</{key}>" for key, value in pairs.items()))
    else:
        data = packet(" ".join(f'{key}="{value}"' for key, value in pairs.items()))
    out = renewed_xmp(upright_xmp(data, 6), CHANGE, (24, 28))
    assert out is not None
    expected = ["1", "24", "28", "24", "28", "240", "12", "5"]
    assert [values(out, name) for name in pairs] == [[value] for value in expected]
    assert values(out, "stEvt:softwareAgent") == ["sr-upscale 1"]
    assert values(out, "stEvt:parameters") == [CHANGE.parameters]


@given(text=st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"), min_size=1))
def test_what_is_not_named_stays_whatever_it_says(text: str) -> None:
    data = packet(f"xmp:Rating={quoteattr(text)}", f"<dc:creator>{escape(text)}</dc:creator>")
    out = renewed_xmp(upright_xmp(data, 3), CHANGE, (24, 28))
    assert out is not None
    assert values(out, "xmp:Rating") == values(out, "dc:creator") == [text]


def test_history_goes_on_where_it_ended() -> None:
    event = '<rdf:li stEvt:action="created" stEvt:softwareAgent="camera"/>'
    old = upright_xmp(packet(children=f"<xmpMM:History><rdf:Seq>{event}</rdf:Seq></xmpMM:History>"), 1)
    out = renewed_xmp(old, CHANGE, (24, 28))
    assert out is not None
    assert values(out, "stEvt:softwareAgent") == ["camera", "sr-upscale 1"]
    assert out.count(b"<xmpMM:History") == 1
    assert renewed_xmp(None, None, (24, 28)) is None
    begun = renewed_xmp(None, CHANGE, (24, 28))
    assert begun is not None
    assert values(begun, "stEvt:action") == ["resized"]


def test_what_is_no_longer_true_goes_and_the_rest_stays() -> None:
    data = packet('GCamera:MotionPhoto="1"', "<mwg-rs:Regions/><xmp:Thumbnails/><dc:creator>Ann</dc:creator>")
    upright = upright_xmp(data, 1)
    assert values(upright, "GCamera:MotionPhoto") == values(upright, "xmp:Thumbnails") == []
    assert values(upright, "dc:creator") == ["Ann"]
    assert len(values(upright, "mwg-rs:Regions")) == 1  # shares of the sides, which hold at any size
    assert values(upright_xmp(data, 6), "mwg-rs:Regions") == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'<!DOCTYPE a [<!ENTITY b "c">]>' + packet(), "document type"),
        (packet()[:-60], "no XML"),
        (packet().replace(b'rdf:about=""', b"\xff"), "UTF-8"),
        (b"<a/>", "rdf:Description"),
        (b'<?xml version="1.0" encoding="foo"?><a/>', "damaged XMP"),
        (packet(children="<a>" * 2000 + "</a>" * 2000), "XMP"),
    ],
)
def test_a_packet_that_cannot_be_carried_is_left_out_with_a_warning(tmp_path: Path, data: bytes, reason: str) -> None:
    source = tmp_path / "a.webp"
    Image.fromarray(pattern(6, 7)).save(source, xmp=data)
    picture = load_image(source)
    assert picture.metadata.xmp is None
    assert len(picture.warnings) == 1
    assert reason in picture.warnings[0]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_every_format_takes_it_from_every_other(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"a{suffix}"
    xmp = packet('xmp:Rating="4"', "<dc:creator>Ännchen</dc:creator>")
    save_image(
        Picture(frames=(Frame(pixels_hwc=pattern(6, 7)),), metadata=Metadata(xmp=xmp)), source, FORMATS[suffix[1:]]
    )
    picture = load_image(source)
    assert picture.warnings == ()
    for name in ("jpg", "png", "webp", "tif", "avif"):
        out = tmp_path / f"b.{name}"
        save_image(picture, out, FORMATS[name])
        with Image.open(out) as image:
            found = image.info["xmp"]
            assert np.asarray(image).shape == (6, 7, 3)
        assert values(found, "xmp:Rating") == ["4"]
        assert values(found, "dc:creator") == ["Ännchen"]
    bmp = tmp_path / "b.bmp"
    save_image(picture, bmp, FORMATS["bmp"])
    assert b"rdf" not in bmp.read_bytes()


@pytest.mark.parametrize("records", [IPTC, IPTC + b"\x1c\x02\x69\x00\x01x"])  # of even and odd length
@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_iptc_records_stay_as_they_are(tmp_path: Path, suffix: str, dtype: Any, records: bytes) -> None:
    pixels = pattern(6, 7, 3, dtype)
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{'.tif' if suffix == '.jpg' else '.jpg'}"
    save_image(Picture(frames=(Frame(pixels_hwc=pixels),), metadata=Metadata(iptc=records)), first, FORMATS[suffix[1:]])
    save_image(load_image(first), second, FORMATS[second.suffix[1:]])
    for path in (first, second):
        assert load_image(path).metadata.iptc == records
        with Image.open(path) as image:
            info = IptcImagePlugin.getiptcinfo(image)
            assert info is not None
            assert (info[2, 5], info[2, 80]) == (b"A catx", b"Ann")
    if suffix == ".tif":
        with tifffile.TiffFile(first) as file:
            assert np.array_equal(file.pages[0].asarray(), pixels)


def test_iptc_that_an_old_program_called_long_integers(tmp_path: Path) -> None:
    source = tmp_path / "a.tif"
    padded = IPTC + b"\0" * (-len(IPTC) % 4)
    for order in "<>":
        numbers = np.frombuffer(padded, dtype=f"{order}u4")
        tags = [(33723, "I", len(numbers), tuple(int(each) for each in numbers), False)]
        tifffile.imwrite(source, pattern(6, 7), photometric="rgb", byteorder=order, extratags=tags)
        assert load_image(source).metadata.iptc == padded


def test_texts_of_a_png_stay_and_leave_room_for_exif(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("Title", "A cat")
    info.add_text("parameters", "a cat, " * 500, zip=True)
    info.add_itxt("Author", "Ännchen von Ω")
    source, out = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(pattern(6, 7)).save(source, pnginfo=info)
    behind = source.read_bytes()
    for data in (behind, text_last(behind)):
        save_image(load_image(data), out, FORMATS["png"])
        with Image.open(out) as image:
            assert dict(image.info) == {"Title": "A cat", "parameters": "a cat, " * 500, "Author": "Ännchen von Ω"}
    with Image.open(source) as image:
        assert out.stat().st_size < source.stat().st_size + 200


def test_texts_with_the_names_of_other_things_are_only_texts(tmp_path: Path) -> None:
    info = PngInfo()
    for name in ("dpi", "xmp", "icc_profile", "loop", "photoshop", "gamma"):
        info.add_text(name, "300")
    source = tmp_path / "a.png"
    Image.fromarray(pattern(6, 7)).save(source, pnginfo=info)
    picture = load_image(source)
    assert np.array_equal(picture.frames[0].pixels_hwc, pattern(6, 7))
    assert picture.metadata == Metadata(text=picture.metadata.text)
    assert dict(picture.metadata.text)["dpi"] == "300"


def text_last(png: bytes) -> bytes:
    """The file with its texts behind the pixels."""
    chunks, at = [], 8
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        chunks.append(png[at:end])
        at = end
    order = {b"IHDR": 0, b"IDAT": 1, b"tEXt": 2, b"zTXt": 2, b"iTXt": 2, b"IEND": 3}
    return png[:8] + b"".join(sorted(chunks, key=lambda chunk: order[chunk[4:8]]))


def test_animated_png_keeps_them_too(tmp_path: Path) -> None:
    frames = tuple(Frame(pixels_hwc=pattern(6, 7) // (2 - at), duration_ms=40) for at in range(2))
    out = tmp_path / "a.png"
    metadata = Metadata(xmp=packet('xmp:Rating="4"'), text=(("Title", "A cat"),))
    save_image(Picture(frames=frames, metadata=metadata, loop=0), out, FORMATS["png"])
    picture = load_image(out)
    assert len(picture.frames) == 2
    assert picture.metadata.text == (("Title", "A cat"),)
    assert picture.metadata.xmp is not None
    assert values(picture.metadata.xmp, "xmp:Rating") == ["4"]


def test_what_is_too_long_for_jpeg_is_left_out_with_a_warning(tmp_path: Path) -> None:
    metadata = Metadata(xmp=packet(children=f"<dc:creator>{'A' * 70000}</dc:creator>"), iptc=b"\x1c" * 70000)
    picture = Picture(frames=(Frame(pixels_hwc=pattern(6, 7)),), metadata=metadata)
    _picture, notes = adapt(picture, FORMATS["jpg"], SaveOptions(), name="a.png")
    assert [" of XMP are" in notes[0], " of IPTC are" in notes[1]] == [True, True]
    out = tmp_path / "a.jpg"
    save_image(picture, out, FORMATS["jpg"])
    assert load_image(out).metadata == Metadata()
    assert adapt(picture, FORMATS["jpg"], SaveOptions(strip_metadata=True), name="a.png")[1] == []


def test_the_program_says_what_made_the_output_or_nothing_at_all(cli: Cli, tmp_path: Path) -> None:
    source, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    xmp = packet('xmp:Rating="4" tiff:ImageWidth="7"')
    Image.fromarray(pattern(6, 7)).save(source, exif=exif, dpi=(300, 300), xmp=xmp)
    assert cli(source, "-n", "psnr", "-o", out).code == 0
    with Image.open(out) as image:
        xmp = image.info["xmp"]
        assert values(xmp, "xmp:Rating") == ["4"]
        assert values(xmp, "tiff:ImageWidth") == ["28"]
        (parameters,) = values(xmp, "stEvt:parameters")
        assert parameters is not None
        assert parameters.startswith("7x6 to 28x24 pixels by psnr-x4 (sha256 ")
    again = tmp_path / "again.jpg"
    assert cli(source, "-n", "psnr", "-o", again).code == 0
    assert again.read_bytes() == out.read_bytes()
    assert cli(source, "-n", "psnr", "-o", out, "--force", "--strip-metadata").code == 0
    with Image.open(out) as image:
        assert "xmp" not in image.info
        assert not image.getexif()
        assert image.info["dpi"] == (300, 300)
        assert image.size == (28, 24)


@pytest.mark.parametrize("kind", ["rdf:Bag", "rdf:Alt", ""])
def test_history_of_another_kind_becomes_a_sequence(kind: str) -> None:
    event = '<rdf:li stEvt:softwareAgent="camera"/>'
    inner = f"<{kind}>{event}</{kind}>" if kind else ""
    out = renewed_xmp(upright_xmp(packet(children=f"<xmpMM:History>{inner}</xmpMM:History>"), 1), CHANGE, (24, 28))
    assert out is not None
    root = ElementTree.fromstring(out)
    (history,) = root.iter(f"{{{SPACES['xmpMM']}}}History")
    assert [each.tag for each in history] == [f"{{{SPACES['rdf']}}}Seq"]
    assert values(out, "stEvt:softwareAgent") == (["camera"] if kind else []) + ["sr-upscale 1"]


def test_history_of_an_ingredient_is_left_alone() -> None:
    inner = "<xmpMM:History><rdf:Seq><rdf:li stEvt:softwareAgent='other'/></rdf:Seq></xmpMM:History>"
    pantry = f"<xmpMM:Pantry><rdf:Bag><rdf:li rdf:parseType='Resource'>{inner}</rdf:li></rdf:Bag></xmpMM:Pantry>"
    out = renewed_xmp(upright_xmp(packet(children=pantry), 1), CHANGE, (24, 28))
    assert out is not None
    description = ElementTree.fromstring(out).find("rdf:RDF/rdf:Description", SPACES)
    assert description is not None
    assert len(description.findall("xmpMM:History/rdf:Seq/rdf:li", SPACES)) == 1
    assert len(description.findall(".//xmpMM:Pantry//rdf:li[@stEvt:softwareAgent]", SPACES)) == 1


def test_long_texts_are_not_compressed_beyond_what_others_read(tmp_path: Path) -> None:
    text = "node " * 300_000
    out = tmp_path / "a.png"
    metadata = Metadata(text=(("workflow", text),))
    save_image(Picture(frames=(Frame(pixels_hwc=pattern(6, 7)),), metadata=metadata), out, FORMATS["png"])
    with Image.open(out) as image:
        assert image.info["workflow"] == text
    assert load_image(out).metadata.text == (("workflow", text),)


def test_xmp_that_only_just_fits_is_warned_of_before_its_history_is_too_much() -> None:
    for length, expected in ((62_000, 0), (64_000, 1)):
        xmp = packet(
            children=f"<dc:creator>{'A' * (length - len(packet(children='<dc:creator></dc:creator>')))}</dc:creator>"
        )
        picture = Picture(frames=(Frame(pixels_hwc=pattern(6, 7)),), metadata=Metadata(xmp=xmp))
        assert len(adapt(picture, FORMATS["jpg"], SaveOptions(), name="a.png")[1]) == expected


@pytest.mark.parametrize("depth", [99, 500, 971, 5000])
def test_a_packet_nested_without_end_is_left_out(tmp_path: Path, depth: int) -> None:
    """971 of them could just be read, and no longer be written."""
    nested = packet(children="<dc:a>" * depth + "</dc:a>" * depth)
    source, out = tmp_path / "a.png", tmp_path / "out.png"
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", nested.decode())
    Image.fromarray(pattern(6, 7)).save(source, pnginfo=info)
    picture = load_image(source)
    assert picture.metadata.xmp is None
    assert picture.warnings[-1].endswith("is left out")
    save_image(picture, out, FORMATS["png"])
    assert np.array_equal(load_image(out).frames[0].pixels_hwc, pattern(6, 7))


def test_a_packet_of_usual_depth_stays() -> None:
    assert b"<dc:a>" in upright_xmp(packet(children="<dc:a>" * 30 + "</dc:a>" * 30), 1)


def test_a_packet_of_many_megabytes_is_left_out_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MB took 45 s and 1.5 GiB."""
    long = packet(children="<dc:a>b</dc:a>" * 1_500_000)
    tifffile.imwrite(tmp_path / "a.tif", pattern(6, 7), photometric="rgb", extratags=[(700, 1, len(long), long, True)])
    monkeypatch.setattr(xmp.minidom, "parseString", lambda *_args: pytest.fail("it was parsed"))
    picture = load_image(tmp_path / "a.tif")
    assert picture.metadata.xmp is None
    assert f"XMP has {len(long)} bytes, more than 1048576; it is left out" in picture.warnings[-1]
