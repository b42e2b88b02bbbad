"""How scores are measured, and the options of `benchmark`. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sr_upscale.benchmark.names import KERNELS, NAMES
from sr_upscale.errors import UsageError
from sr_upscale.flags import DATA, PROTOCOL, option
from sr_upscale.pretrained.registry import known_names


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
        lpips: Backbone of LPIPS; empty if it is not measured.
        cer: Language of the text whose character error rate is measured; empty if it is not.
        limit: Most pictures of each set that are measured, from its first; None for all of them, as papers do.
    """

    scale: int
    channel: str = "y"
    crop_border: int
    gray_as_rgb: bool = True
    own_lr: bool = False
    lpips: str = ""
    cer: str = ""
    limit: int | None = None

    def __str__(self) -> str:
        channel = "Y (BT.601, 16-235)" if self.channel == "y" else "RGB"
        gray = "read as RGB" if self.gray_as_rgb else "left gray"
        lr = "made here by MATLAB's bicubic" if self.own_lr else "the data set's own where it has them"
        return (
            f"x{self.scale}; PSNR and SSIM on {channel} of 8-bit output, border of {self.crop_border} left out, "
            f"mean over pictures; SSIM with an 11x11 Gaussian of 1.5; gray pictures {gray}; LR files: {lr}"
            + (f"; LPIPS with {self.lpips}, RGB, the same border" if self.lpips else "")
            + (f"; CER of tesseract in {self.cer} against its reading of HR" if self.cer else "")
            + (f"; --limit {self.limit}: at most the first {self.limit} of each set" if self.limit is not None else "")
        )


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What is measured on what, and where it goes. The help of each option says what it means.

    Raises:
        UsageError: An option is missing or has no such value.
    """

    dataset: tuple[str, ...] = option(
        (),
        "--dataset",
        help=f"{', '.join(NAMES)}, or a folder of HR pictures; several by comma.",
        panel=DATA,
        choices=lambda: NAMES,
    )
    model: tuple[str, ...] = option(
        (),
        "-n",
        "--model",
        help="A model, a file, bicubic or lanczos; several by comma. Default: bicubic and ours.",
        choices=lambda: [*KERNELS, *known_names()],
    )
    scale: int = option(4, "-s", "--scale", help="Factor.", lowest=2, highest=8)
    lr: Path | None = option(
        None, "--lr", help="Folder of LR pictures that belong to a folder of HR ones.", panel=DATA, parse=Path
    )
    root: Path | None = option(
        None, "--root", help="Folder that holds the data sets, in place of the network.", panel=DATA, parse=Path
    )
    limit: int | None = option(None, "--limit", help="Only so many pictures of each set.", panel=DATA, lowest=1)
    channel: str = option("y", "--channel", help="y (as papers) or rgb.", panel=PROTOCOL, choices=lambda: ("y", "rgb"))
    border: int | None = option(
        None, "--border", help="HR pixels left out at the edges. Default: the scale.", panel=PROTOCOL, lowest=0
    )
    gray: str = option(
        "rgb",
        "--gray",
        help="Gray pictures: rgb (as networks' test codes) or gray (as MATLAB's).",
        panel=PROTOCOL,
        choices=lambda: ("rgb", "gray"),
    )
    own_lr: bool = option(False, "--own-lr", help="Make LR here, even where there are LR files.", panel=PROTOCOL)
    vgg_weights: Path | None = option(
        None, "--vgg-weights", help="VGG19 (.safetensors or .pth): measures the VGG19 distance, too.", parse=Path
    )
    lpips: str | None = option(None, "--lpips", help="Measure LPIPS with this backbone: alex or vgg (an extra).")
    cer: str | None = option(
        None, "--cer", help="Measure how well tesseract reads text in this language (eng), as in HR."
    )
    published: bool = option(False, "--published", help="Show published scores beside the measured ones, marked.")
    out: Path | None = option(
        None, "-o", "--out", help="Folder for report.html, pictures.csv and results.json, .md and .tex.", parse=Path
    )
    plots: bool = option(False, "--plots", help="In --out also quality against speed, as SVG and PNG (an extra).")

    def __post_init__(self) -> None:
        if not self.dataset:
            raise UsageError(f"--dataset is missing; expected {', '.join(NAMES)}, or a folder of HR pictures")
        if self.channel not in ("y", "rgb") or self.gray not in ("rgb", "gray"):
            raise UsageError(
                f"--channel is {self.channel!r} and --gray {self.gray!r}; expected y or rgb, and rgb or gray"
            )
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
            lpips=self.lpips or "",
            cer=self.cer or "",
            limit=self.limit,
        )
