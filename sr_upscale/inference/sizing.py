"""How large the output becomes, and which trained factors lead there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from numbers import Real
from typing import Any

from sr_upscale.errors import UsageError
from sr_upscale.formatting import shortened

MAX_SCALE = 64.0
FITS = ("inside", "cover", "stretch")
RESAMPLED = 1.2
"""Factor that is left to resampling, rather than run another network over a picture that is already large."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the user asked for: a scale, or a size, or neither.

    Attributes:
        scale: Any factor from 1 to 64.
        width, height: Output size in pixels. One alone keeps the proportions.
        fit: What both together mean for a picture of another shape. ``inside``: the largest picture in that box.
            ``cover``: the smallest that fills it, its middle. ``stretch``: exactly that size, distorted.
        one_pass: Whether one network runs, and a resize does the rest.

    Raises:
        UsageError: Both a scale and a size are given, one of them is out of range, or there is no such fit.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    fit: str = "inside"
    one_pass: bool = False

    def __post_init__(self) -> None:
        if self.scale is not None and (self.width is not None or self.height is not None):
            raise UsageError("a scale and a target size contradict each other; give one of them")
        given: dict[str, Any] = {"scale": self.scale, "width": self.width, "height": self.height}
        for name, value in given.items():
            if value is not None and not isinstance(value, Real):
                raise UsageError(f"{name} is {value!r}; expected a number")
        if self.scale is not None and not 1 <= self.scale <= MAX_SCALE:  # also refuses NaN
            raise UsageError(f"scale is {self.scale:g}; expected 1 to {MAX_SCALE:g}: this program only enlarges")
        for name, value in (("width", self.width), ("height", self.height)):
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; expected at least 1 pixel")
        if self.fit not in FITS:
            raise UsageError(f"--fit is {shortened(self.fit)!r}; expected {', '.join(FITS)}")

    def output_size(self, width: int, height: int, *, default_scale: int) -> tuple[int, int]:
        """Computes the output's (width, height) in pixels; see `enlarged_size`, of which it is the middle."""
        enlarged = self.enlarged_size(width, height, default_scale=default_scale)
        return (self.width, self.height) if self.width and self.height and self.fit == "cover" else enlarged

    def enlarged_size(self, width: int, height: int, *, default_scale: int) -> tuple[int, int]:
        """Computes the (width, height) in pixels to which the whole picture is enlarged.

        Args:
            width, height: Size of the input in pixels.
            default_scale: Factor where nothing was asked for.

        Raises:
            UsageError: The output would be smaller than the input, or more than 64 times larger.
        """
        if self.width is None and self.height is None:
            scale = self.scale or default_scale
            return max(1, round(width * scale)), max(1, round(height * scale))
        ratios = [wanted / have for wanted, have in ((self.width, width), (self.height, height)) if wanted]
        ratio = max(ratios) if self.fit == "cover" else min(ratios)
        out_width, out_height = max(1, round(width * ratio)), max(1, round(height * ratio))
        if self.width and self.height and self.fit == "stretch":
            out_width, out_height = self.width, self.height
        if out_width < width or out_height < height:
            raise UsageError(
                f"the target of {out_width}x{out_height} is smaller than the input of {width}x{height}; "
                "this program only enlarges"
            )
        if max(out_width / width, out_height / height) > MAX_SCALE:
            raise UsageError(
                f"the target of {out_width}x{out_height} is more than {MAX_SCALE:g} times the input of "
                f"{width}x{height}; choose a smaller one"
            )
        return out_width, out_height


def choose_factors(available: Collection[int], needed: float, *, one_pass: bool = False) -> tuple[int, ...]:
    """Chooses trained factors, in order, whose product is at least `needed`.

    The smallest factor that reaches it alone is taken. If none does, the largest comes first, and then what is still
    missing. Resampling makes up for what is missing at most by `RESAMPLED`.

    >>> choose_factors({2, 4}, 3.5), choose_factors({2, 4}, 8), choose_factors({4}, 2), choose_factors({2, 4}, 4.1)
    ((4,), (4, 2), (4,), (4,))

    Where there is nothing but 1, that is all: the rest is resampled.

    Args:
        available: Factors of the trained networks, at least one.
        needed: Factor by which to enlarge.
        one_pass: Take one factor, whatever is left to resampling.
    """
    reaching = [factor for factor in available if factor >= needed - 1e-9]
    if reaching:
        return (min(reaching),)
    largest = max(available)
    if one_pass or largest == 1 or needed / largest <= RESAMPLED:
        return (largest,)
    return (largest, *choose_factors(available, needed / largest))
