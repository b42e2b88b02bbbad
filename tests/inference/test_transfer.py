"""Pixels to the device and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sr_upscale.functional.planes import from_pixels, into_pixels, on_host
from sr_upscale.inference.backends.torch import _begin_download, one_late, to_device, to_host

DEVICES = [
    "cpu",  # arrays
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")),
]


def test_one_late_gives_everything_in_order_and_begins_the_next_before() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            yield number

    seen = [(item, len(made)) for item in one_late(items())]
    assert seen == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(one_late([])) == []


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_strips_go_to_the_device_and_come_back_as_they_were(device: str, dtype: type[np.unsignedinteger[Any]]) -> None:
    random = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    strips = [random.integers(0, top + 1, (rows, 70, 3)).astype(dtype) for rows in (5, 8, 1)]
    place, cuda = torch.device(device), device == "cuda"
    there = list(to_device(strips, place) if cuda else map(from_pixels, strips))
    for strip, planes in zip(strips, there, strict=True):
        np.testing.assert_allclose(on_host(planes)[0].transpose(1, 2, 0), strip / top, atol=1e-7)
    came = to_host(there, np.dtype(dtype), place) if cuda else (into_pixels(each, np.dtype(dtype)) for each in there)
    for strip, back in zip(strips, came, strict=True):
        assert back.dtype == dtype
        np.testing.assert_array_equal(back, strip)


def test_bands_that_are_on_the_host_already_need_no_stream() -> None:
    """Tiles are put together there, also when a GPU computes them."""
    band = np.random.default_rng(0).random((1, 3, 4, 5), np.float32)
    stream: torch.cuda.Stream = None  # type: ignore[assignment]
    expected = np.rint(band[0].transpose(1, 2, 0) * 255)
    assert np.array_equal(_begin_download(band, np.dtype(np.uint8), stream)(), expected)
