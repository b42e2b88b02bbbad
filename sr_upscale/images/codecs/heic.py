"""HEIC of phone cameras, read through libheif (extra ``heic``)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_upscale.errors import InputError
from sr_upscale.formatting import needing
from sr_upscale.images.codecs.avif import full_range, read_boxes
from sr_upscale.images.codecs.codec import Codec, Header, InputFile
from sr_upscale.images.color_tags import tags_of_nclx
from sr_upscale.images.metadata import info_of
from sr_upscale.images.picture import Frame


class Heic(Codec):
    """HEIC, one picture of it."""

    main_picture = "main one"

    def check_available(self, name: str) -> None:
        """Lets Pillow read the header of HEIC. See `Codec.check_available`."""
        with needing("heic", f"{name}: a HEIC picture, for which this program needs an extra", InputError):
            import pi_heif
        pi_heif.register_heif_opener()

    def header_of(self, file: InputFile, image: Image.Image) -> Header:
        """Goes to the wanted picture, as pictures differ; adds colours and the shape of pixels."""
        if file.frame is not None and 0 <= file.frame < int(getattr(image, "n_frames", 1)):
            image.seek(file.frame)
        header = super().header_of(file, image)
        header.color = None if header.icc else tags_of_nclx(info_of(image, "nclx_profile", dict))
        read_boxes(file, header)
        return header

    def decode(self, file: InputFile, _header: Header, _numbers: Sequence[int]) -> Sequence[Frame]:
        """Decodes the wanted picture, with all its bits. See `Codec.decode`."""
        return (Frame(pixels_hwc=decode_heic(file.data, file.frame)),)


def decode_heic(data: bytes, number: int | None) -> NDArray[Any]:
    """Decodes a picture of a HEIC file.

    Args:
        data: The file.
        number: Number of the picture in the file, from 0; None takes the main one.

    Returns:
        (H, W, C), already upright. uint8, or uint16 of the full range for 10 and 12 bits. Alpha is straight.

    Raises:
        OSError, ValueError, RuntimeError: The file is damaged.
    """
    import pi_heif

    file = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
    image = file[file.primary_index if number is None else number]
    pixels = np.array(image)  # a copy: what libheif gave is gone with `image`
    pixels = pixels.reshape(image.size[1], image.size[0], -1)
    if pixels.dtype == np.uint16:
        pixels = full_range(pixels, image.info["bit_depth"])
    return _straight(pixels) if image.premultiplied_alpha else pixels


def _straight(pixels: NDArray[Any]) -> NDArray[Any]:
    """Divides colours by the alpha that they were multiplied by."""
    top = np.iinfo(pixels.dtype).max
    alpha = np.maximum(pixels[:, :, -1:], 1).astype(np.float64)
    colour = np.rint(pixels[:, :, :-1] * (top / alpha)).clip(0, top).astype(pixels.dtype)
    return np.concatenate((colour, pixels[:, :, -1:]), axis=2)


CODEC = Heic("heic")
