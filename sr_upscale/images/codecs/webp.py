"""WebP, by Pillow."""

from __future__ import annotations

from typing import Any

from sr_upscale.images.codecs.codec import Codec, Output


class WebP(Codec):
    """WebP, still or animated."""

    colour_only = True
    holds_xmp = True

    def settings(self, output: Output) -> dict[str, Any]:
        """Returns the quality; 100 is lossless. See `Codec.settings`."""
        return {"lossless": True, "exact": True} if output.quality == 100 else {"quality": output.quality, "method": 4}


CODEC = WebP("webp")
