"""sr-upscale: enlarge, measure and train with one package.

    from sr_upscale import Upscaler

    Upscaler()("photo.jpg", scale=2).save("large.png")

Public names are imported when first used: ``import sr_upscale`` alone loads neither torch nor Pillow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from sr_upscale.errors import ShapeError, SrUpscaleError
    from sr_upscale.images import Picture, load_image, save_image
    from sr_upscale.upscaler import Upscaler

__all__ = ["Picture", "ShapeError", "SrUpscaleError", "Upscaler", "__version__", "load_image", "save_image"]

_HOMES = {
    "Picture": "sr_upscale.images",
    "ShapeError": "sr_upscale.errors",
    "SrUpscaleError": "sr_upscale.errors",
    "Upscaler": "sr_upscale.upscaler",
    "load_image": "sr_upscale.images",
    "save_image": "sr_upscale.images",
}


if not TYPE_CHECKING:  # a checker would take any name for one that is there

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
        msg = f"module 'sr_upscale' has no attribute {name!r}"
        raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
