"""A guard on what networks give: enlarging keeps a picture's mean colours, and makes nothing one colour that was not.

A piece of a picture that breaks this in half precision is computed again in fp32 (`doubtful`). A whole picture that
breaks it gets a warning, or fails (`Drift`).
"""

from __future__ import annotations

import math
from typing import TypeVar

from sr_upscale.errors import ModelError, SrUpscaleError
from sr_upscale.functional.planes import Planes, on_host

Some = TypeVar("Some", bound=Planes)

MAX_DRIFT = 8.0
"""Levels of 255. Our weights stay at 6 and below: so far photo-x4 darkens sunlit bricks, other pictures by less than 5.
Swapped channels or black go far beyond."""

FAR_DRIFT = 16.0
"""Levels of 255. A piece of eight rows may change more than a picture: with our weights by 6."""

VARIED, CONSTANT = 8.0, 0.5
"""Levels of 255. A piece with a standard deviation above the first is varied, and one whose values all lie within twice
the second is constant. Faint noise on black may come out black, as some models clean."""


def doubtful(before_nchw: Planes, after_nchw: Planes) -> bool:
    """Says whether a network's answer cannot be right.

    It is not finite, its mean colour is far from the input's (`FAR_DRIFT`), or it is one colour and the input is not.

    Args:
        before_nchw: Input, (N, C, h, w) in [0, 1].
        after_nchw: Answer, (N, C, h * s, w * s), on the same device.
    """
    drift = abs(after_nchw.mean(axis=(2, 3)) - before_nchw.mean(axis=(2, 3))).max()
    if not 255 * float(drift) <= FAR_DRIFT:  # NaN, too
        return True
    colour = after_nchw[:, :, :1, :1]
    some = after_nchw[:, :, ::8, ::8]
    return _is_constant(some, colour) and _is_constant(after_nchw, colour) and _is_varied(before_nchw)


def finite(out: Some) -> Some:
    """Returns what a network gave in float32, of any shape, if it is finite.

    Raises:
        SrUpscaleError: It is not finite.
    """
    if not math.isfinite(float(out.sum())):
        msg = "the network's output is not finite even in fp32; the weights are damaged, get them again"
        raise SrUpscaleError(msg)
    return out


def _is_constant(rows_nchw: Planes, colour: Planes) -> bool:
    return bool((abs(rows_nchw.clip(0, 1) - colour.clip(0, 1)) <= CONSTANT / 255).all())


def _is_varied(rows_nchw: Planes) -> bool:
    off = rows_nchw - rows_nchw.mean(axis=(2, 3), keepdims=True)
    return 255 * math.sqrt(float((off * off).mean(axis=(2, 3)).max())) > VARIED


class Drift:
    """The colours of a picture before and after enlarging, gathered strip by strip. It costs a sum.

    Whether the picture varies is looked at until a strip does.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets all, for another attempt."""
        self._sums: dict[str, Planes] = {}
        self._pixels = {"before": 0, "after": 0}
        self._varied = False
        self._colour: Planes | None = None
        self._constant = True

    def before(self, strip_nchw: Planes) -> None:
        """Adds rows of the input, (1, C, n, W) in [0, 1]."""
        self._add("before", strip_nchw)
        self._varied = self._varied or _is_varied(strip_nchw)

    def after(self, band_nchw: Planes) -> None:
        """Adds rows of the output, (1, C, m, W), nominally in [0, 1] and clamped to it."""
        clamped = band_nchw.clip(0, 1)
        self._add("after", clamped)
        if self._constant:
            self._colour = clamped[:, :, :1, :1] + 0 if self._colour is None else self._colour
            self._constant = _is_constant(clamped, self._colour)

    def check(self) -> None:
        """Refuses an output of one colour where the input has more, after the last row.

        Raises:
            ModelError: It is so.
        """
        if self._varied and self._constant and self._colour is not None:
            levels = ", ".join(f"{255 * float(value):.0f}" for value in self._colour.flatten())
            raise ModelError(
                f"the network makes one colour ({levels} of 255) of a picture that has more; "
                "the weights are damaged: get them again, or try another model"
            )

    def levels(self) -> list[float]:
        """Computes how much brighter each channel became.

        Returns:
            A difference for each channel, in levels of 255. Empty before rows of both sides have come.
        """
        if len(self._sums) < 2:
            return []
        before, after = (on_host(self._sums[side]) / self._pixels[side] for side in ("before", "after"))
        return [255 * float(value) for value in after - before]

    def warnings(self) -> list[str]:
        """Warns where the output's colours are not the input's.

        Returns:
            One sentence if a channel's mean changed by more than `MAX_DRIFT`, else none.
        """
        levels = self.levels()
        names = ("red", "green", "blue") if len(levels) == 3 else ("brightness",)
        off = [f"{name} {value:+.0f}" for name, value in zip(names, levels, strict=False) if abs(value) > MAX_DRIFT]
        if not off:
            return []
        return [
            f"the output's mean colour is not the input's ({', '.join(off)} of 255); "
            "look at it, and try --fp32 or another model"
        ]

    def _add(self, side: str, rows: Planes) -> None:
        total = rows.mean(axis=(0, 2, 3)) * (rows.shape[2] * rows.shape[3])
        self._sums[side] = self._sums[side] + total if side in self._sums else total
        self._pixels[side] += rows.shape[2] * rows.shape[3]
