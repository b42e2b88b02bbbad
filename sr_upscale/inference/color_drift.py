"""A guard on colours: enlarging must not change a picture's mean, so a change of it means a fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MAX_DRIFT = 5.0
"""Levels of 255. Our weights stay at 3 and below (tint in their cards). Swapped channels or black go far beyond."""


class Drift:
    """The mean colours of a picture before and after enlarging, gathered strip by strip. It costs a sum."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets all, for another attempt."""
        self._sums: dict[str, Tensor] = {}
        self._pixels = {"before": 0, "after": 0}

    def before(self, strip_nchw: Tensor) -> None:
        """Adds rows of the input, (1, C, n, W) in [0, 1]."""
        self._add("before", strip_nchw)

    def after(self, band_nchw: Tensor) -> None:
        """Adds rows of the output, (1, C, m, W), nominally in [0, 1] and clamped to it."""
        self._add("after", band_nchw.clamp(0, 1))

    def levels(self) -> list[float]:
        """Computes how much brighter each channel became.

        Returns:
            A difference for each channel, in levels of 255. Empty before rows of both sides have come.
        """
        if len(self._sums) < 2:
            return []
        before, after = (self._sums[side].cpu() / self._pixels[side] for side in ("before", "after"))
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

    def _add(self, side: str, rows: Tensor) -> None:
        total = rows.mean(dim=(0, 2, 3)) * (rows.shape[2] * rows.shape[3])
        self._sums[side] = self._sums[side] + total if side in self._sums else total
        self._pixels[side] += rows.shape[2] * rows.shape[3]
