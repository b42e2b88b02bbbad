"""How scores are measured, the options of `benchmark`, and the names that they take. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sr_upscale.benchmark.metrics import OPTIONAL, parse_metrics
from sr_upscale.errors import UsageError
from sr_upscale.flags import DATA, PROTOCOL, option
from sr_upscale.pretrained.registry import known_names

if TYPE_CHECKING:
    from sr_upscale.functional.resize import Kernel

FOLDERS = {"set5": "Set5", "set14": "Set14", "bsd100": "BSD100", "urban100": "Urban100"}
"""Data sets of SelfExSR, and their folders there."""

NAMES = (*FOLDERS, "div2k-val")
"""Data sets that are fetched by name."""

KERNELS: dict[str, Kernel] = {"bicubic": "bicubic", "lanczos": "lanczos3"}
"""Methods without a network."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How scores are measured. They compare only within one protocol.

    Attributes:
        scale: Factor.
        channel: ``y`` (BT.601 luma, as papers do) or ``rgb``.
        crop_border: HR pixels left out along each edge; papers take the scale.
        gray_as_rgb: Whether gray pictures get three equal channels before Y, as the networks' test codes do. Else they
            stay gray, as the MATLAB scripts do.
        own_lr: Whether LR is made here by MATLAB's bicubic, even where there are LR files.
        metrics: What is measured besides PSNR, SSIM and NIQE, as `parse_metrics` returns it.
        limit: Most pictures of each set that are measured, from its first; None for all of them, as papers do.
    """

    scale: int
    channel: str = "y"
    crop_border: int
    gray_as_rgb: bool = True
    own_lr: bool = False
    metrics: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None

    def __str__(self) -> str:
        channel = "Y (BT.601, 16-235)" if self.channel == "y" else "RGB"
        gray = "read as RGB" if self.gray_as_rgb else "left gray"
        lr = "made here by MATLAB's bicubic" if self.own_lr else "the data set's own where it has them"
        return (
            f"x{self.scale}; PSNR and SSIM on {channel} of 8-bit output, border of {self.crop_border} left out, "
            f"mean over pictures; SSIM with an 11x11 Gaussian of 1.5; gray pictures {gray}; LR files: {lr}"
            + "".join(f"; {OPTIONAL[name].protocol.format(given)}" for name, given in self.metrics.items())
            + (f"; --limit {self.limit}: at most the first {self.limit} of each set" if self.limit is not None else "")
        )


_data, _protocol = partial(option, panel=DATA), partial(option, panel=PROTOCOL)


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What is measured on what, and where it goes. The help of each option says what it means.

    Raises:
        UsageError: An option is missing or has no such value.
    """

    dataset: tuple[str, ...] = _data(
        (),
        "--dataset",
        help=f"{', '.join(NAMES)}, or a folder of HR pictures; several by comma.",
        choices=lambda: NAMES,
    )
    model: tuple[str, ...] = option(
        (),
        "-n",
        "--model",
        help="A model, a file, bicubic or lanczos; several by comma. Default: bicubic and photo.",
        choices=lambda: [*KERNELS, *known_names()],
    )
    scale: int = option(4, "-s", "--scale", help="Factor.", lowest=2, highest=8)
    lr: Path | None = _data(None, "--lr", help="Folder with the LR pictures of a --dataset folder.", parse=Path)
    root: Path | None = _data(
        None, "--root", help="Folder with the data sets, instead of downloading them.", parse=Path
    )
    limit: int | None = _data(None, "--limit", help="Use only the first N pictures of each set.", lowest=1)
    channel: str = _protocol("y", "--channel", help="y (as in papers) or rgb.", choices=lambda: ("y", "rgb"))
    border: int | None = _protocol(
        None, "--border", help="HR pixels cropped at the edges. Default: the scale.", lowest=0
    )
    gray: str = _protocol(
        "rgb",
        "--gray",
        help="Gray pictures: rgb (as network test codes) or gray (as MATLAB code).",
        choices=lambda: ("rgb", "gray"),
    )
    own_lr: bool = _protocol(False, "--own-lr", help="Make LR pictures here, even if the data set has them.")
    metric: tuple[str, ...] = _protocol(
        (),
        "--metric",
        help=f"Also measure {', '.join(each.usage for each in OPTIONAL.values())}; several by comma.",
        choices=lambda: OPTIONAL,
    )
    published: bool = option(False, "--published", help="Add published scores to the table, marked.")
    out: Path | None = option(
        None, "-o", "--out", help="Folder for report.html, pictures.csv and results.json, .md and .tex.", parse=Path
    )
    plots: bool = option(False, "--plots", help="Also plot quality against speed in --out, as SVG and PNG (an extra).")

    def __post_init__(self) -> None:
        if not self.dataset:
            raise UsageError(f"--dataset is missing; expected {', '.join(NAMES)}, or a folder of HR pictures")
        if self.channel not in ("y", "rgb") or self.gray not in ("rgb", "gray"):
            raise UsageError(
                f"--channel is {self.channel!r} and --gray {self.gray!r}; expected y or rgb, and rgb or gray"
            )
        self.protocol  # noqa: B018 (an unknown metric is refused here)
        if self.plots and self.out is None:
            raise UsageError("--plots are files of --out; give -o a folder")

    @property
    def protocol(self) -> Protocol:
        """Returns how scores are measured."""
        return Protocol(
            scale=self.scale,
            channel=self.channel,
            crop_border=self.scale if self.border is None else self.border,
            gray_as_rgb=self.gray == "rgb",
            own_lr=self.own_lr,
            metrics=parse_metrics(self.metric),
            limit=self.limit,
        )
