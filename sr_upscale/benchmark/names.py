"""Data sets and methods that go by a name. Does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sr_upscale.functional.resize import Kernel

FOLDERS = {"set5": "Set5", "set14": "Set14", "bsd100": "BSD100", "urban100": "Urban100"}
"""Data sets of SelfExSR, and their folders there."""

NAMES = (*FOLDERS, "div2k-val")
"""Data sets that are fetched by name."""

KERNELS: dict[str, Kernel] = {"bicubic": "bicubic", "lanczos": "lanczos3"}
"""Methods without a network."""
