"""Delays and plays of an animation, as the output's format holds them."""

from __future__ import annotations

import dataclasses

from sr_upscale.errors import OutputError
from sr_upscale.images.formats import Format
from sr_upscale.images.picture import Picture


def fit_timing(picture: Picture, fmt: Format, *, name: str) -> tuple[Picture, list[str]]:
    """Changes delays and plays that the format cannot hold into the nearest that it can.

    Args:
        picture: An animation.
        fmt: Of the output.
        name: Of the picture, for the notes.

    Returns:
        The animation, and sentences about delays and plays that are cut.

    Raises:
        OutputError: All frames together last longer than the format's encoder counts.
    """
    notes: list[str] = []
    upper = fmt.name.upper()
    if picture.loop is not None and picture.loop > fmt.max_plays:
        notes.append(f"{name}: {upper} plays at most {fmt.max_plays} times; the input plays {picture.loop} times")
        picture = dataclasses.replace(picture, loop=fmt.max_plays)
    longest = fmt.delay_steps_ms[-1] * fmt.max_delay_steps
    cut = sum(each > longest for each in picture.durations_ms)
    if cut:
        notes.append(f"{name}: {upper} shows a frame for at most {longest / 1000:g} s; {cut} frames are shown longer")
    delays = [_fit_delay(each, fmt) for each in picture.durations_ms]
    if fmt.max_total_ms is not None and sum(delays) > fmt.max_total_ms:
        lasts, ends = (f"{each / 1000:.0f} s" for each in (sum(delays), fmt.max_total_ms))
        raise OutputError(f"{name}: its frames last {lasts} together, and {upper} ends at {ends}; use --format png")
    return picture.with_durations(delays), notes


def _fit_delay(delay_ms: int, fmt: Format) -> int:
    for step in fmt.delay_steps_ms:
        if delay_ms <= fmt.max_delay_steps * step:
            finest = step == fmt.delay_steps_ms[0]  # to which the writer rounds by itself
            return delay_ms if finest else round(delay_ms / step) * step
    return fmt.max_delay_steps * fmt.delay_steps_ms[-1]
