"""PNG, also animated: chunks and what they hold; pixels by libvips, frames of an animation compressed one by one.

Libvips could write most of the head, but rewrites EXIF and refuses profiles that it finds odd. So what it puts before
the pixels is replaced.

Source: Portable Network Graphics, third edition; of animations sections 4.9 and 11.3.5.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import MAX_TEXT_CHUNK, PngInfo

from sr_upscale.errors import InputError
from sr_upscale.images.codecs.animation import Animation, Blend, Disposal, Place
from sr_upscale.images.codecs.codec import Codec, Header, InputFile, Output, aspect_of
from sr_upscale.images.codecs.pillow import image_of
from sr_upscale.images.codecs.row_writer import COMPRESSION, write_rows
from sr_upscale.images.codecs.vips import decode_still, pyvips
from sr_upscale.images.color_tags import chunks_of, tags_of_png
from sr_upscale.images.metadata import info_of, read_exif
from sr_upscale.images.picture import Frame, Metadata

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ALPHA, _COLOUR = 4, 2  # bits of the colour type
_TABLES = (b"PLTE", b"tRNS")  # what else decoding needs
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels
_DISPOSALS = {1: Disposal.CLEAR, 2: Disposal.RESTORE}
_LONG_TEXT = 1000  # bytes, from which on compressing pays


class Png(Codec):
    """PNG of all depths, still or animated."""

    counts_frames = False

    def read_header(self, file: InputFile) -> Header:
        """Reads where frames lie, before any library looks at the file, then its header. See `Codec.read_header`."""
        file.intact = up_to_damage(file.data)
        if not file.allow_truncated:
            file.data = file.intact
        try:
            animation = read_apng(file.data)
        except (EOFError, ValueError) as error:
            raise InputError(f"{file.name}: damaged PNG ({error}); get the file again") from error
        if animation is None:
            return super().read_header(file)
        file.check_pixels(animation.pixels if animation.width and animation.height else 0)
        header = super().read_header(file)
        header.animation, header.animated = animation, True
        header.frames, header.loop = animation.frames, animation.loop
        return header

    def header_of(self, file: InputFile, image: Image.Image) -> Header:
        """Adds colours, texts, and the shape of pixels. See `Codec.header_of`."""
        header = super().header_of(file, image)
        before = itertools.takewhile(lambda chunk: chunk[0] != b"IDAT", png_chunks(file.data))
        contents = ((kind, file.data[at + 8 : end - 4]) for kind, at, end in before)
        header.color = tags_of_png(contents, has_profile=header.icc is not None)
        header.aspect = aspect_of(*(info_of(image, "aspect", tuple) or (1, 1)))
        header.text = _texts_of(image)
        return header

    def read_exif(self, file: InputFile, image: Image.Image) -> Image.Exif | None:
        """Looks behind the pixels, for which Pillow decodes them all, only where there is something."""
        return read_exif(image, to_the_end=_text_follows(file.data))

    def decode(self, file: InputFile, header: Header, numbers: Sequence[int]) -> Sequence[Frame]:
        """Decodes the picture, or frames of the animation. See `Codec.decode`."""
        if header.animated:
            return self.decode_frames(file, header, numbers)
        return (Frame(pixels_hwc=decode_still(file, header, fail_on="truncated")),)

    def write(self, output: Output, path: Path) -> None:
        """Writes rows as they come, those of an animation frame by frame. See `Codec.write`."""
        if output.animated:
            with path.open("wb") as file:
                file.writelines(_apng(output))
            return
        level = COMPRESSION if output.compression is None else output.compression
        options = {"compression": level, "filter": "paeth" if level else "none", "keep": "none"}
        write_rows(output, path, "pngsave_target", options, make_head=png_head)


# --- chunks -----------------------------------------------------------------------------------------


def up_to_damage(png: bytes) -> bytes:
    """Cuts a PNG off at the first chunk of its pixels or frames with a wrong checksum. Decoders overlook some of them.

    Args:
        png: The bytes of the file.

    Returns:
        The file up to the damage, or the file itself where there is none.
    """
    view = memoryview(png)
    for kind, at, end in png_chunks(png):
        critical = kind[:1].isupper() or kind in (b"acTL", b"fcTL", b"fdAT")
        if critical and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            return png[: max(at + 8, end - 12)]  # the decoder then stops in this chunk, and says at which row
    return png


def _text_follows(png: bytes) -> bool:
    """Says whether text or EXIF stands behind the pixels."""
    kinds = [kind for kind, _at, _end in png_chunks(png)]
    behind = kinds[kinds.index(b"IDAT") :] if b"IDAT" in kinds else []
    return not {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}.isdisjoint(behind)


def png_chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields (kind, start, end) of the chunks of a PNG. The last one may end beyond the file."""
    at = 8
    while at + 12 <= len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        yield png[at + 4 : at + 8], at, end
        at = end


def _texts_of(image: Image.Image) -> tuple[tuple[str, str], ...]:
    """Reads the keywords and texts of an opened PNG, without those that hold EXIF or XMP."""
    texts = [(str(key), value) for key, value in image.info.items() if isinstance(value, str)]
    return tuple((key, text) for key, text in texts if not key.startswith(("XML:com.adobe.xmp", "Raw profile type ")))


def png_head(start: bytes, metadata: Metadata) -> bytes | None:
    """Makes a PNG's head, up to its pixels, with iCCP, pHYs, eXIf, colours and texts of `metadata`.

    See `row_writer.MakeHead`.
    """
    at = len(_SIGNATURE)
    while (kind := start[at + 4 : at + 8]) != b"IDAT":
        if len(kind) < 4:
            return None
        at += 12 + int.from_bytes(start[at : at + 4], "big")
    return start[: len(_SIGNATURE) + 25] + _before_pixels(metadata) + start[at:]


def _before_pixels(metadata: Metadata) -> bytes:
    """Makes the chunks of metadata."""
    chunks: list[tuple[bytes, bytes]] = []
    if metadata.icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi:
        across, down = (min(round(value / 0.0254), 2**31 - 1) for value in metadata.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", across, down, 1)))
    elif metadata.aspect:
        chunks.append((b"pHYs", struct.pack(">IIB", *metadata.aspect, 0)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif))
    chunks += chunks_of(metadata.color)
    texts = PngInfo()
    if metadata.xmp:
        texts.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode())
    for keyword, text in metadata.text:
        size = len(text.encode())
        texts.add_text(keyword, text, zip=_LONG_TEXT < size <= MAX_TEXT_CHUNK)  # Pillow reads no longer compressed ones
    chunks += [(kind, data) for kind, data, *_after in texts.chunks]
    return b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# --- animations -------------------------------------------------------------------------------------


def _apng(output: Output) -> Iterator[bytes]:
    """Makes an animated PNG piece by piece. Of a frame, what differs from the one before is compressed."""
    yield _SIGNATURE
    yield _chunk(b"IHDR", struct.pack(">II5B", *output.size, 8, _COLOUR_TYPES[output.channels], 0, 0, 0))
    yield _before_pixels(output.metadata)
    yield _chunk(b"acTL", struct.pack(">II", len(output.delays_ms), output.plays))
    level = {} if output.compression is None else {"compress_level": output.compression}
    sequence = itertools.count()
    before: NDArray[Any] | None = None
    for pixels_hwc, delay_ms in zip(output.frames(), output.delays_ms, strict=True):
        left, top, right, bottom = _changed(before, pixels_hwc)
        step = next(each for each in (1, 10, 100, 1000) if delay_ms <= 65535 * each)
        place = right - left, bottom - top, left, top, round(delay_ms / step), 1000 // step, 0, 0
        yield _chunk(b"fcTL", struct.pack(">5I2H2B", next(sequence), *place))
        buffer = io.BytesIO()
        image_of(pixels_hwc[top:bottom, left:right]).save(buffer, "PNG", **level)
        data = buffer.getvalue()
        for kind, at, end in png_chunks(data):
            if kind == b"IDAT" and before is None:
                yield data[at:end]
            elif kind == b"IDAT":
                yield _chunk(b"fdAT", struct.pack(">I", next(sequence)) + data[at + 8 : end - 4])
        before = pixels_hwc
    yield _chunk(b"IEND", b"")


def _changed(before: NDArray[Any] | None, pixels_hwc: NDArray[Any]) -> tuple[int, int, int, int]:
    """Returns left, top, right and bottom of what differs, at least one pixel."""
    if before is None:
        return 0, 0, pixels_hwc.shape[1], pixels_hwc.shape[0]
    differs = (before != pixels_hwc).any(axis=2)
    rows, columns = differs.any(axis=1).nonzero()[0], differs.any(axis=0).nonzero()[0]
    if not len(rows):
        return 0, 0, 1, 1
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True, kw_only=True)
class Apng(Animation):
    """An animated PNG. See `read_apng`.

    Attributes:
        form: The end of its IHDR, which all frames share: depth, colour type and so on.
        tables: Chunks that stand before the pixels of each frame.
        packed: Compressed pixels of each frame.
    """

    form: bytes
    tables: bytes
    packed: tuple[bytes, ...]

    def decoded(self, number: int, *, allow_truncated: bool) -> NDArray[Any]:
        """Decodes a frame: (h, w, 2 or 4) uint8 or uint16. See `Animation.decoded`."""
        place = self.places[number]
        header = _chunk(b"IHDR", struct.pack(">II", place.width, place.height) + self.form)
        data = _SIGNATURE + header + self.tables + _chunk(b"IDAT", self.packed[number]) + _chunk(b"IEND", b"")
        image = pyvips.Image.new_from_buffer(data, "", fail_on="none" if allow_truncated else "truncated")
        pixels: NDArray[Any] = image.numpy().reshape(image.height, image.width, image.bands)
        if image.bands == self.channels:
            return pixels
        opaque = np.full_like(pixels[:, :, :1], np.iinfo(self.dtype).max)
        return np.concatenate((pixels, opaque), axis=2)


def read_apng(data: bytes) -> Apng | None:
    """Reads the layout of a PNG's animation. It decodes nothing.

    Args:
        data: A PNG, at most as far as it is whole (`up_to_damage`).

    Returns:
        None for a still picture, to which belongs an animation of one frame that is the picture itself.

    Raises:
        ValueError: Its chunks contradict the specification.
    """
    if len(data) < 33 or b"acTL" not in data:
        return None
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    tables = _tables_of(data)
    promised, loop = 0, 0
    hidden = False  # whether the picture for programs that know no animation is none of its frames
    places: list[Place] = []
    packed: list[bytearray] = []
    for kind, body in _in_sequence(data):
        if kind == b"acTL" and len(body) == 8:
            promised, loop = struct.unpack(">II", body)
        elif kind == b"fcTL":
            places.append(_place(body, width, height))
            packed.append(bytearray())
        elif places and kind in (b"IDAT", b"fdAT"):
            packed[-1] += body
        elif kind == b"IDAT":
            hidden = True
            if not promised:
                return None
    if promised < 2 - hidden:
        return None
    whole = min(promised, len(places) - (packed[-1:] == [b""]))  # the last may be cut before its pixels
    return Apng(
        width=width,
        height=height,
        places=tuple(places[:whole]),
        frames=promised,
        loop=loop,
        channels=4 if colour & _COLOUR else 2,
        dtype=np.min_scalar_type(2**depth - 1),
        has_alpha=bool(colour & _ALPHA) or b"tRNS" in tables,
        form=data[24:29],
        tables=b"".join(tables.values()),
        packed=tuple(bytes(each) for each in packed[:whole]),
    )


def _tables_of(data: bytes) -> dict[bytes, bytes]:
    """Returns the chunks by which pixels are decoded, by their kinds."""
    return {kind: data[at:end] for kind, at, end in png_chunks(data) if kind in _TABLES}


def _in_sequence(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields kind and content of the chunks, those of fdAT without their numbers, as far as they are whole.

    Raises:
        ValueError: The chunks of frames are not in their order.
    """
    sequence = 0
    for kind, at, end in png_chunks(data):
        body = data[at + 8 : end - 4]
        if kind in (b"fcTL", b"fdAT"):
            if len(body) < (26 if kind == b"fcTL" else 4):
                return
            number = int.from_bytes(body[:4], "big")
            if number != sequence:
                raise ValueError(f"a chunk of a frame has number {number} and not {sequence}")
            sequence += 1
        yield kind, body[4:] if kind == b"fdAT" else body


def _place(body: bytes, width: int, height: int) -> Place:
    """Reads an fcTL chunk.

    Raises:
        ValueError: The frame is empty, or reaches beyond the canvas.
    """
    _sequence, w, h, left, top, delay, parts, disposal, blend = struct.unpack(">IIIIIHHBB", body[:26])
    if not w * h or left + w > width or top + h > height:
        raise ValueError(f"a frame of {w}x{h} pixels at ({left}, {top}) does not fit on {width}x{height}")
    return Place(
        left=left,
        top=top,
        width=w,
        height=h,
        blend=Blend.OVER if blend == 1 else Blend.SOURCE,
        disposal=_DISPOSALS.get(disposal, Disposal.KEEP),
        duration_ms=round(1000 * delay / (parts or 100)),
    )


CODEC = Png("png")
