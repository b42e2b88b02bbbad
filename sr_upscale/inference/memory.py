"""How much memory a plan takes: every estimate, in one place and in bytes."""

from __future__ import annotations

from collections.abc import Sequence

from sr_upscale.inference.tiling import Pass, StripPlan, TilePlan, plan_columns
from sr_upscale.models.descriptor import INNER_ROWS, TAIL_TRAITS, GeneratorConfig, Traits

MEMORY_SHARE = 0.5
"""Share of the free memory that a strip or tile may take."""

MAPS, NCNN_MAPS = 6, 15
"""Maps of the generator's channels that a tile takes at its widest point, with torch (`bytes_per_pixel`) and with ncnn,
which pads and transforms what convs read (measured: 3600 to 4100 bytes a pixel with 64 channels)."""

PROGRAM_BYTES = 16 << 20
"""What a run adds to the loaded program: threads, and scratch memory of the libraries.

A small picture that runs whole in half precision on a CPU needs none of it. The check of the loaded network has left as
much free."""

DECODER_ROWS, ENCODER_ROWS = 3000, 1250
"""Rows of pixels that libvips holds while it reads, and while it writes, by rows (docs/images.md)."""

QUEUE_BYTES = 64 << 20
"""Bands of a batch's picture that wait to be written. Small pictures fit, so that the next one can be computed while
one is written."""

HALF_BYTES_PER_OUTPUT_PIXEL = 1024
"""Guess: a few maps of 64 channels at the output's size."""
HALF_BYTES_PER_INPUT_PIXEL = 16_384
"""Guess: windows of attention over some hundred channels."""

FILL_BYTES = 48
"""What `extend_colour` takes for each pixel while it fills: colours, weights and the coarser level as float32, and the
result."""


# --- networks ---------------------------------------------------------------------------------------


def bytes_per_pixel(traits: Traits, *, half: bool, maps: int = MAPS) -> int:
    """Estimates what a network takes for one LR pixel of a tile.

    A block of ours needs five maps of `num_feat` channels at its widest point: its input, the long skip, both branches,
    their concatenation and the sum. What is freed between layers takes about one more. The output is float32.

    Args:
        traits: The network.
        half: Whether it runs in half precision.
        maps: `MAPS` or `NCNN_MAPS`.

    Returns:
        Bytes.
    """
    if traits.config is None:
        per_pixel = HALF_BYTES_PER_INPUT_PIXEL + HALF_BYTES_PER_OUTPUT_PIXEL * traits.scale**2
        return per_pixel if half else 2 * per_pixel
    config, size = traits.config, 2 if half else 4
    return maps * config.num_feat * size + TAIL_TRAITS[config.upsampler].tile_bytes(config, size)


def stream_bytes(config: GeneratorConfig, width: int, rows: int, *, column: int = 0, half: bool = False) -> int:
    """Estimates what `strips.stream_rows` takes: what it keeps, what it works in, and what a conv makes.

    Args:
        config: The generator.
        width: Columns of the picture, in LR pixels.
        rows: Rows of a strip.
        column: Columns to work on at a time; 0 for the whole width.
        half: Whether the generator runs in half precision.

    Returns:
        Bytes.
    """
    size, feat = (2 if half else 4), config.num_feat
    widths = [read.stop - read.start for read, _keep in plan_columns(width, column, config.halo)]
    inner = INNER_ROWS[config.block]
    of_block = 2 * feat + sum(inner) * feat // 2
    late = config.trunk_reach if config.block == "inception" else 0
    kept = config.num_blocks * of_block + (late + rows) * feat
    work = (rows + 3) * (3 * feat + len(inner) * feat // 2)
    image = 4 * 3 * (2 * config.halo + 2 * rows)
    fresh = 3 * rows * size * feat  # outputs of convs, and what the library packs for them
    tail = rows * TAIL_TRAITS[config.upsampler].strip_bytes(config, size)
    return int(sum(widths) * ((kept + work) * size + image) + max(widths) * (fresh + tail))


def cut_bytes(cut: StripPlan | TilePlan, traits: Traits, *, half: bool, maps: int = MAPS) -> int:
    """Estimates what a network takes for a cut.

    Args:
        cut: How the picture is cut.
        traits: The network.
        half: Whether it runs in half precision.
        maps: `MAPS` or `NCNN_MAPS`.

    Returns:
        Bytes.
    """
    if isinstance(cut, StripPlan):
        assert traits.config is not None
        if cut.whole:
            return cut.height * cut.width * bytes_per_pixel(traits, half=half)
        return stream_bytes(traits.config, cut.width, cut.rows, column=cut.column, half=half)
    return cut.largest_tile_pixels * bytes_per_pixel(traits, half=half, maps=maps)


# --- around them ------------------------------------------------------------------------------------


def plan_host_bytes(
    *,
    input_bytes: int,
    output_bytes: int,
    row_bytes: tuple[int, int],
    channels: int,
    passes: Sequence[Pass],
    resample: bool,
    filled_pixels: int,
    on_cpu: bool,
    queued: bool = False,
) -> int:
    """Estimates what is held on the host around the networks.

    Args:
        input_bytes: Size of the decoded picture if it is held as a whole, else 0.
        output_bytes: Size of the enlarged picture if it is held as a whole, else 0.
        row_bytes: Size of a row of the input, and of a row of the output.
        channels: Channels of the picture, 1 to 4.
        passes: Networks, in order.
        resample: Whether a Lanczos step follows.
        filled_pixels: Pixels of the input if colour must be filled in under transparent parts, else 0.
        on_cpu: Whether the networks run in the same memory.
        queued: Whether rows wait in a queue to be written (`QUEUE_BYTES`).

    Returns:
        Bytes.
    """
    bands = filled_pixels * FILL_BYTES
    # a network that takes the picture in one piece has freed more than its bands take by the time they are made
    beside = [step for step in passes if not (on_cpu and isinstance(step.cut, StripPlan) and step.cut.whole)]
    program = PROGRAM_BYTES if beside or not all(step.half for step in passes) else 0
    for step in beside:
        cut = step.cut
        rows = (
            cut.rows if isinstance(cut, StripPlan) else 2 * max(span.read_stop - span.read_start for span in cut.rows)
        )
        bands += cut.width * rows * 4 * max(channels, 3)  # what goes in, as float
        bands += cut.width * rows * step.scale**2 * 4 * max(channels, 3) * 2  # what comes out, and a copy of it
    last = passes[-1]
    if resample:
        bands += 12 * last.cut.width * last.scale * 16  # rows under the kernel
    held_in = input_bytes or DECODER_ROWS * row_bytes[0]
    held_out = output_bytes or min(ENCODER_ROWS, passes[-1].cut.height * passes[-1].scale) * row_bytes[1]
    whole_output = passes[-1].cut.height * passes[-1].scale * row_bytes[1]
    queue = min(QUEUE_BYTES, whole_output) if queued else 0
    return program + held_in + held_out + bands + queue
