"""torch: our generators in strips, all other networks in tiles."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sr_upscale.device import Device
from sr_upscale.inference.network import Network
from sr_upscale.inference.strips import StreamNetwork
from sr_upscale.interrupts import STOP
from sr_upscale.models.generator import Generator
from sr_upscale.pretrained.load import module_of

if TYPE_CHECKING:
    from sr_upscale.inference.backends import Start


def starter(weights: Path, device: Device) -> Start:
    """See `backends.starter`."""
    module, place = STOP.check_layers(module_of(weights)), torch.device(str(device))
    if isinstance(module, Generator):
        stream = partial(StreamNetwork, module.to(place))
        return lambda dtype: stream(getattr(torch, dtype))
    return lambda dtype: Network(module, place, getattr(torch, dtype))
