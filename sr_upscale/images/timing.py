"""Delays and plays of an animation, as the output's format holds them."""

from __future__ import annotations

import dataclasses

from sr_upscale.errors import OutputError
from sr_upscale.images.formats import Format
from sr_upscale.images.picture import Frame, Picture


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
    cut = sum(frame.duration_ms > longest for frame in picture.frames)
    if cut:
        notes.append(f"{name}: {upper} shows a frame for at most {longest / 1000:g} s; {cut} frames are shown longer")
    frames = tuple(_fit_delay(frame, fmt) for frame in picture.frames)
    seconds = sum(frame.duration_ms for frame in frames) / 1000
    if fmt.max_total_ms is not None and seconds * 1000 > fmt.max_total_ms:
        raise OutputError(
            f"{name}: its frames last {seconds:.0f} s together, and {upper} ends at {fmt.max_total_ms / 1000:.0f} s; "
            "use --format png"
        )
    return dataclasses.replace(picture, frames=frames), notes


def _fit_delay(frame: Frame, fmt: Format) -> Frame:
    for step in fmt.delay_steps_ms:
        if frame.duration_ms <= fmt.max_delay_steps * step:
            fine = step == fmt.delay_steps_ms[0]  # the writer rounds to these by itself
            return frame if fine else dataclasses.replace(frame, duration_ms=round(frame.duration_ms / step) * step)
    return dataclasses.replace(frame, duration_ms=fmt.max_delay_steps * fmt.delay_steps_ms[-1])
