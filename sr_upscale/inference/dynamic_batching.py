"""Small pictures of equal size, from several threads, run as one batch: alone they leave a GPU half idle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

import torch
from torch import Tensor


class Together:
    """A network that several threads call at once.

    While it is busy, pictures wait. Those that have the same size then run together. Nobody waits for company: a
    picture that comes alone runs alone.

    Args:
        network: (N, 3, H, W) -> (N, 3, H * scale, W * scale).
        max_pixels: Most LR pixels of all the pictures of a batch together. A picture larger than that runs alone.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], max_pixels: int) -> None:
        self.network, self.max_pixels = network, max_pixels
        self._busy = False
        self._waiting: list[_Request] = []
        self._changed = threading.Condition()

    def __call__(self, image_nchw: Tensor) -> Tensor:
        """Runs `network` for one picture, (1, 3, H, W) -> (1, 3, H * scale, W * scale).

        If a batch raises an error, each of its callers gets it.
        """
        mine = _Request(image_nchw)
        with self._changed:
            self._waiting.append(mine)
            self._changed.wait_for(lambda: mine.out.done() or not self._busy)
            if mine.out.done():
                return mine.out.result()
            self._busy = True
            batch = self._take(mine)
        try:
            outs = self.network(torch.cat([each.image for each in batch]))
            for number, each in enumerate(batch):
                each.out.set_result(outs[number : number + 1])
        except BaseException as error:
            for each in batch:
                each.out.set_exception(error)
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
        return mine.out.result()

    def _take(self, first: _Request) -> list[_Request]:
        """Takes the first request and the oldest ones that fit with it; they wait no longer."""
        size = first.image.shape
        others = [each for each in self._waiting if each is not first and each.image.shape == size]
        batch = [first, *others[: max(0, self.max_pixels // (size[2] * size[3]) - 1)]]
        self._waiting = [each for each in self._waiting if each not in batch]
        return batch


class _Request:
    def __init__(self, image: Tensor) -> None:
        self.image = image
        self.out: Future[Tensor] = Future()
