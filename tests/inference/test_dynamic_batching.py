"""Pictures that several threads bring at the same time run as one batch, and come out as if alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from sr_upscale.inference.strips import StreamNetwork, Together
from sr_upscale.models.generator import Generator, GeneratorConfig


class Slow:
    """Doubles its input; the first batch goes on until the test lets it end."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []
        self.entered, self.go_on = threading.Event(), threading.Event()

    def __call__(self, images: Tensor) -> Tensor:
        self.batches.append(tuple(images.shape))
        self.entered.set()
        assert self.go_on.wait(10)
        return 2 * images


def run_behind_one(network: Slow, together: Together, images: list[Tensor]) -> list[Tensor | BaseException]:
    """The first image alone, all others while it is computed."""

    def call(image: Tensor) -> Tensor | BaseException:
        try:
            return together(image)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(images)) as pool:
        futures = [pool.submit(call, images[0])]
        assert network.entered.wait(10)
        futures += [pool.submit(call, image) for image in images[1:]]
        end = time.monotonic() + 10
        while len(together._waiting) < len(images) - 1:
            assert time.monotonic() < end, "not all of them wait"
        network.go_on.set()
        return [future.result(10) for future in futures]


def test_equal_sizes_that_wait_run_as_one_batch_and_each_gets_its_own() -> None:
    network = Slow()
    together = Together(network, max_pixels=1000)
    images = [torch.full((1, 3, 4, 5), float(number)) for number in range(5)]
    outs = run_behind_one(network, together, images)
    assert network.batches == [(1, 3, 4, 5), (4, 3, 4, 5)]
    for image, out in zip(images, outs, strict=True):
        assert isinstance(out, Tensor)
        assert torch.equal(out, 2 * image)


def test_other_sizes_and_what_is_too_much_wait_for_another_batch() -> None:
    network = Slow()
    together = Together(network, max_pixels=40)  # two of 4x5
    images = [torch.rand(1, 3, *size) for size in ((4, 5), (4, 5), (5, 4), (4, 5), (4, 5), (9, 9))]
    outs = run_behind_one(network, together, images)
    sizes = sorted(network.batches)
    assert sizes == [(1, 3, 4, 5), (1, 3, 4, 5), (1, 3, 5, 4), (1, 3, 9, 9), (2, 3, 4, 5)]
    for image, out in zip(images, outs, strict=True):
        assert isinstance(out, Tensor)
        assert torch.equal(out, 2 * image)


def test_a_failure_reaches_everyone_of_its_batch_and_nobody_else() -> None:
    class Breaks(Slow):
        def __call__(self, images: Tensor) -> Tensor:
            out = super().__call__(images)
            if len(images) > 1:
                raise MemoryError
            return out

    network = Breaks()
    together = Together(network, max_pixels=1000)
    first, *others = run_behind_one(network, together, [torch.rand(1, 3, 4, 5) for _ in range(4)])
    assert isinstance(first, Tensor)
    assert [type(each) for each in others] == [MemoryError] * 3
    assert isinstance(together(torch.rand(1, 3, 4, 5)), Tensor), "it goes on after a failure"


def test_a_batch_of_the_generator_equals_its_pictures_alone() -> None:
    torch.manual_seed(0)
    model = Generator(GeneratorConfig(scale=2, num_feat=8, num_blocks=2)).eval()
    network = StreamNetwork(model)
    images = torch.rand(3, 3, 9, 11)
    with torch.no_grad():
        torch.testing.assert_close(
            network._whole(images), torch.cat([model(image[None]) for image in images]), atol=1e-6, rtol=0
        )


def test_only_the_picture_that_is_not_finite_is_done_again() -> None:
    torch.manual_seed(0)
    model = Generator(GeneratorConfig(scale=2, num_feat=8, num_blocks=2)).eval()
    network = StreamNetwork(model, torch.bfloat16)
    images = torch.rand(3, 3, 9, 11)
    plain = network._whole(images)

    class Overflows(torch.nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            out: Tensor = model(batch).float()
            if len(batch) > 1:
                out[1, 0, 0, 0] = float("inf")
            return out

    network.model = Overflows()  # type: ignore[assignment]
    again = network._whole(images)
    assert network.redone == 1
    assert torch.equal(again[0], plain[0])
    assert torch.equal(again[2], plain[2])
    with torch.no_grad():
        torch.testing.assert_close(again[1], model(images[1:2])[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_batches_equal_the_cpu() -> None:
    torch.manual_seed(0)
    model = Generator(GeneratorConfig(scale=2, num_feat=8, num_blocks=2)).eval()
    images = torch.rand(6, 1, 3, 9, 11)
    with torch.no_grad():
        expected = [model(image) for image in images]
    network = StreamNetwork(model.cuda())
    with ThreadPoolExecutor(6) as pool:
        for out, wanted in zip(pool.map(network.whole, images), expected, strict=True):
            torch.testing.assert_close(out.cpu(), wanted, atol=1e-3, rtol=0)
