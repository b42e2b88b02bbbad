"""The product, as a function: ``Upscaler()(image, scale=2)``."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ParamSpec, TypedDict, TypeVar, Unpack, overload

import numpy as np
from PIL import Image

from sr_upscale.device import CPU
from sr_upscale.errors import ModelError, UsageError
from sr_upscale.functional.pil_arrays import ImageKind, like, pixels_of
from sr_upscale.images.decode import load_image
from sr_upscale.images.metadata import enlarged_exif
from sr_upscale.images.picture import Frame, Picture
from sr_upscale.inference.backends.choice import choose_backend
from sr_upscale.inference.engine import Engine
from sr_upscale.inference.planning import Cutting, Planner
from sr_upscale.inference.sizing import Target
from sr_upscale.pretrained.blend import blended
from sr_upscale.pretrained.load import traits_of
from sr_upscale.pretrained.ncnn_export import runs_on_ncnn
from sr_upscale.pretrained.registry import DEFAULT_MODEL, TABLE, noisy_of, resolve_family, resolve_weights, twin_of
from sr_upscale.storage.atomic import refuse_existing
from sr_upscale.video.containers import VideoOptions, check_video, container_of_path

if TYPE_CHECKING:
    import torch

Made = TypeVar("Made")
Given = ParamSpec("Given")
File = TypeVar("File", bound=str | Path | bytes | BinaryIO | Picture)
"""What becomes a `Picture`."""
OnStep = Callable[[int, int], None]
"""Called with (strips or tiles done, in all)."""


class Options(TypedDict, total=False):
    """Keywords of `Upscaler.__call__`, for type checkers."""

    scale: float | None
    width: int | None
    height: int | None
    fit: str
    progress: OnStep | None


def _silent(_done: int, _total: int) -> None:
    pass


def _by_known_names(function: Callable[Given, Made]) -> Callable[Given, Made]:
    """Refuses keywords that the function does not have in one line that says which it has."""
    signature = inspect.signature(function)
    known = [each.name for each in signature.parameters.values() if each.kind == each.KEYWORD_ONLY]

    @functools.wraps(function)
    def call(*args: Given.args, **options: Given.kwargs) -> Made:
        for name in options:
            if name not in signature.parameters:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"expected some of {', '.join(known)}"
                who = function.__qualname__.replace(".__init__", "()").replace(".__call__", "()()")
                raise UsageError(f"{who} takes no {name!r}; {hint}")
        return function(*args, **options)

    return call


class Upscaler:
    """Enlarges pictures. Weights are loaded when first needed and kept.

    >>> upscaler = Upscaler()  # or Upscaler("psnr"), Upscaler("mine.safetensors", device="cpu")
    >>> upscaler("photo.jpg", scale=2).save("large.png", quality=90)  # doctest: +SKIP
    >>> array = upscaler(np.zeros((8, 9, 3), np.uint8))  # an array becomes an array, a PIL image a PIL image
    >>> array.shape
    (32, 36, 3)

    Args:
        model: Name of a family (``psnr``: the trained factor is chosen by the scale), of one model (``psnr-x4``), or a
            path of weights.
        device: A `torch.device`, or ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``vulkan``, ``vulkan:1``.
        dtype: ``auto``, ``fp32``, ``bf16``, ``fp16``. Auto takes half precision where the hardware has it and the
            pixels agree, and always fp32 for 16-bit pictures.
        tile_size: Core of a tile in LR pixels. With None and 0 our networks stream, which equals the whole picture. For
            others None chooses by free memory, and 0 takes the whole picture.
        overlap: LR pixels that neighbouring tiles blend, even; asks for tiles.
        halo: LR pixels of context around a tile, and never more than the receptive field; asks for tiles.
        denoise: How much of the noise is taken away: 1 is the model itself, 0 keeps noise. For models that have such a
            sibling, which is downloaded when it is first used.
        fidelity: Blend towards the model's PSNR-trained counterpart: 0 none, 1 fully.
        before: Models of factor 1 that clean the picture first (names or paths), in order.
        backend: ``auto`` (`backends.choice.choose_backend`), ``torch``, ``ncnn`` (on the CPU or by Vulkan), or on the
            CPU ``onnxruntime`` or ``openvino``. All but torch are extras.
        tta: Self-ensemble: the average over 8 flips and rotations of each tile; 8 times the work.
        max_memory: Bytes that a picture may take beyond the loaded program; None takes what is free.
        pixels: LR pixels of the one picture that there is to do, which ``auto`` takes into account; None for others.

    Attributes:
        engine: What computes; other modules of this package plan and run by it.
        warnings: Sentences for the user, of a device that is not there or was lost.

    Raises:
        ModelError: No such model, or one of `before` enlarges.
        UsageError: No such device, type or backend here, impossible tile sizes, or a fidelity that cannot be.
    """

    @_by_known_names
    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        *,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        tile_size: int | None = None,
        overlap: int | None = None,
        halo: int | None = None,
        fidelity: float | None = None,
        denoise: float | None = None,
        before: Sequence[str | Path] = (),
        tta: bool = False,
        backend: str = "auto",
        max_memory: int | None = None,
        pixels: int | None = None,
    ) -> None:
        device = str(device)
        weights = resolve_family(str(model))
        if denoise is not None:
            weights = {factor: _with_noise(path, denoise) for factor, path in weights.items()}
        if fidelity is not None:
            weights = {factor: _towards_twin(path, fidelity) for factor, path in weights.items()}
        cleaning = [resolve_weights(str(name)) for name in before]
        traits = {path: traits_of(path) for path in (*weights.values(), *cleaning)}
        for path in cleaning:
            if traits[path].scale != 1:
                raise ModelError(
                    f"{path}: enlarges x{traits[path].scale}; expected a model of factor 1 to run before the other"
                )
        chosen = choose_backend(
            backend,
            device,
            dtype,
            ncnn_runs=lambda card: all(runs_on_ncnn(path, convert=card) for path in traits),
            pixels=pixels,
        )
        planner = Planner(
            weights=weights,
            before=cleaning,
            traits=traits,
            choice=chosen.choice,
            automatic_dtype=dtype == "auto",
            cutting=Cutting(
                device_type=chosen.choice.device.type,
                tile_size=tile_size,
                overlap=overlap,
                halo=halo,
                streams=chosen.backend == "torch" and not tta,
                ncnn=chosen.backend == "ncnn",
            ),
            max_memory=max_memory,
        )
        self.engine = Engine(planner, chosen, tta=tta)
        self.warnings = self.engine.warnings
        if device.startswith("vulkan") and chosen.choice.device == CPU:
            self.warnings.append(
                "no device here speaks Vulkan, or `ulimit -v` leaves its driver no room; computed on the CPU "
                "(see `sr-upscale doctor`)"
            )

    @overload
    def __call__(self, image: str | Path | bytes | BinaryIO | Picture, **options: Unpack[Options]) -> Picture: ...

    @overload
    def __call__(self, image: ImageKind, **options: Unpack[Options]) -> ImageKind: ...

    @overload
    def __call__(self, image: list[File] | tuple[File, ...], **options: Unpack[Options]) -> list[Picture]: ...

    @overload
    def __call__(
        self, image: list[ImageKind] | tuple[ImageKind, ...], **options: Unpack[Options]
    ) -> list[ImageKind]: ...

    @_by_known_names
    def __call__(
        self,
        image: Any,
        *,
        scale: float | None = None,
        width: int | None = None,
        height: int | None = None,
        fit: str = "inside",
        progress: OnStep | None = None,
    ) -> Any:
        """Enlarges an image, or each of a list.

        >>> large = Upscaler()(Image.open("photo.jpg"), width=1920)  # doctest: +SKIP
        >>> one, two = Upscaler("anime")(["one.png", "two.png"], scale=2)  # doctest: +SKIP

        Args:
            image: Path or bytes of a picture, an open file, or a `Picture`. Or a PIL image. Or an array (H, W) or
                (H, W, C) of uint8, uint16, or floats in [0, 1], with C of 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA. Or a
                list of them.
            scale: Any factor from 1 to 64; by default the model's own.
            width, height: Target size in pixels instead of a scale; one alone keeps the proportions.
            fit: What both mean for an image of another shape: ``inside``, ``cover`` or ``stretch`` (`sizing.Target`).
            progress: Called with (strips or tiles done, in all), of each image anew; the number in all may grow.

        Returns:
            The same kind and type, enlarged; of a path, bytes and a file a `Picture`, which has ``save``. PIL images
            keep EXIF, profile and resolution in ``info``; those of palette, 1-bit or CMYK come back as L, RGB or RGBA.

        Raises:
            ShapeError: Not such an image.
            InputError: The file cannot be used.
            UsageError: An impossible scale or size, or no kind of image.
            OutOfMemoryError: Not even the smallest tile fits.
        """
        if isinstance(image, list | tuple):
            options: dict[str, Any] = {"scale": scale, "width": width, "height": height, "fit": fit}
            return [self(each, **options, progress=progress) for each in image]
        target = Target(scale=scale, width=width, height=height, fit=fit)
        if isinstance(image, str | Path | bytes) or hasattr(image, "read"):
            image = load_image(image)
        if isinstance(image, Picture):
            return self.engine.enlarged(image, target, on_step=progress or _silent)
        if not isinstance(image, Image.Image) and not hasattr(image, "__array_interface__"):
            raise UsageError(
                f"image is a {type(image).__qualname__}; "
                "expected a path, bytes, an open file, a Picture, a PIL image, an array, or a list of them"
            )
        picture = Picture(frames=(Frame(pixels_hwc=pixels_of(image)),))
        large = self.engine.enlarged(picture, target, on_step=progress or _silent)
        out = like(image, np.asarray(large.frames[0].pixels_hwc))
        if isinstance(image, Image.Image) and (exif := enlarged_exif(image, large.width, large.height)):
            out.info["exif"] = exif
        return out

    def video(
        self,
        source: str | Path,
        target: str | Path,
        *,
        scale: float | None = None,
        width: int | None = None,
        height: int | None = None,
        fit: str = "inside",
        start: float = 0.0,
        duration: float | None = None,
        codec: str | None = None,
        crf: int | None = None,
        preset: str | None = None,
        deinterlace: bool = False,
        overwrite: bool = False,
        progress: OnStep | None = None,
    ) -> dict[str, Any]:
        """Enlarges a clip (extra ``video``), with all that belongs to it; goes on with what a killed run has left.

        >>> Upscaler().video("clip.mp4", "large.mkv", scale=2)["damaged"]  # doctest: +SKIP
        0

        Args:
            source: The clip.
            target: The output; its ending chooses the container: ``.mkv``, ``.mp4``, ``.mov``, ``.webm``.
            scale, width, height, fit: Size of the output, as for an image.
            start, duration: Part of the clip, in seconds; None is to its end.
            codec: ``x264``, ``x265``, ``av1``, ``ffv1``, ``prores``; None is x264, for 10 bits and HDR x265.
            crf, preset: Quality and effort of the encoder.
            deinterlace: Make whole frames of an interlaced clip.
            overwrite: Whether the output may take the place of a file.
            progress: Called with (frames done, in all).

        Returns:
            What was done: ``busy_seconds`` of the network, ``resumed_frames``, ``reused_frames``, ``warnings``, and as
            ``damaged`` how often something could not be decoded.

        Raises:
            InputError: The clip cannot be read, or the extra is missing.
            UsageError: The container does not hold all of it, or an option cannot be.
            OutputError: The output is there, or cannot be written.
        """
        source, target = Path(source), Path(target)
        container = container_of_path(target)
        if container is None or not container.codecs:
            raise UsageError(f"{target}: no container that can be written; end the name in .mkv, .mp4, .mov or .webm")
        check_video(str(source))
        refuse_existing(target, force=overwrite)
        from sr_upscale.video.run import enlarge_clip, plan_clip
        from sr_upscale.video.source import Clip

        options = VideoOptions(codec=codec, crf=crf, preset=preset)
        clip = Clip(source, start=start, duration=duration, deinterlace=deinterlace)
        size = Target(scale=scale, width=width, height=height, fit=fit)
        plan = plan_clip(clip, container, self.engine, size, options)
        done = enlarge_clip(plan, target, self.engine, on_step=progress or _silent, overwrite=overwrite)
        return done | {"warnings": [*plan.warnings, *done["warnings"]]}

    def __repr__(self) -> str:
        engine = self.engine
        names = ", ".join(path.stem for path in engine.planner.weights.values())
        return f"<Upscaler {names} by {engine.backend} on {engine.choice.device}, {engine.choice.dtype}>"


def _towards_twin(path: Path, fidelity: float) -> Path:
    """Returns the weights at a place of the dial between a model and its faithful twin."""
    if not 0 <= fidelity <= 1:
        raise UsageError(f"fidelity is {fidelity:g}; expected 0 to 1")
    twin = twin_of(path)
    if twin is None:
        raise UsageError(
            f"--fidelity is not available for {path.stem}: it has no PSNR-trained counterpart; "
            "`sr-upscale models blend` takes any two files of one scale"
        )
    if fidelity in (0, 1):
        return twin if fidelity else path
    return blended(path, twin, fidelity)


def _with_noise(path: Path, denoise: float) -> Path:
    """Returns the weights at a place of the dial between weights that keep noise and the model itself."""
    if not 0 <= denoise <= 1:
        raise UsageError(f"denoise is {denoise:g}; expected 0 to 1")
    if denoise == 1:
        return path
    if (noisy := noisy_of(path)) is None:
        having = ", ".join(row.name for row in TABLE if row.noisy)
        raise UsageError(
            f"--denoise is not available for {path.stem}: it has no counterpart that keeps noise, as {having} has"
        )
    return blended(path, noisy, 1 - denoise)
