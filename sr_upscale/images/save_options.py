"""How a picture is written. Light, as every start of the program reads it."""

from __future__ import annotations

from dataclasses import dataclass

from sr_upscale.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SaveOptions:
    """How to write.

    Attributes:
        quality: 1-100 for JPEG, WebP and AVIF; None takes the format's default. 100 is lossless in WebP.
        background: RGB colour (0-255) behind transparent pixels where the format has no alpha.
        compression: 0-9 for PNG and TIFF, from large and quick to small and slow; None takes the default.
        strip_metadata: Leave out EXIF, XMP, IPTC and texts. Colour profile and resolution stay.

    Raises:
        UsageError: `quality` or `compression` is outside its range.
    """

    quality: int | None = None
    background: tuple[int, int, int] | None = None
    compression: int | None = None
    strip_metadata: bool = False

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"quality is {self.quality}; expected 1 to 100")
        if self.compression is not None and not 0 <= self.compression <= 9:
            raise UsageError(f"compression is {self.compression}; expected 0 to 9; -q is the quality of JPEG and WebP")
