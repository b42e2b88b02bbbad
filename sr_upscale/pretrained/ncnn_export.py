"""Weights -> ncnn's two files, a graph as text and its numbers: ours without torch and without ncnn, others by pnnx.

Source: the formats as ncnn's documentation describes them, "param and model file structure" and "operators".
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from sr_upscale.device import import_ncnn, silent_stderr
from sr_upscale.errors import ModelError, UsageError
from sr_upscale.formatting import extra
from sr_upscale.models.descriptor import NEGATIVE_SLOPE, GeneratorConfig, nearest_stages
from sr_upscale.pretrained.load import difference, module_of
from sr_upscale.pretrained.registry import cached_form
from sr_upscale.pretrained.weights_file import blend_of, config_of, is_ours, read_info, refuse_many
from sr_upscale.storage.atomic import replace_file

INPUT, OUTPUT = "lr", "sr"
"""Names of the two ends: (3, H, W) in [0, 1] -> (3, H * scale, W * scale), not clamped."""

TRACED, VARIED = (32, 48), (40, 24)
"""(height, width) of the picture that a network is traced with, and of another, by which pnnx knows what varies."""

TOLERANCE = 1e-3
"""Largest difference between torch and ncnn that a conversion may have, of a range of 1."""

PATIENCE = 300
"""Seconds after which a conversion counts as failed."""


@dataclass(frozen=True, kw_only=True)
class NcnnModel:
    """A network as ncnn loads it.

    Attributes:
        graph: Content of the ``.param`` file.
        numbers: Content of the ``.bin`` file.
    """

    graph: str
    numbers: bytes


def runs_on_ncnn(weights: Path, *, convert: bool) -> bool:
    """Says whether `ncnn_model` takes such weights.

    Args:
        weights: A weights file of any make.
        convert: Whether networks of others are converted to find out; else they count as not taken.
    """
    if is_ours(weights) or blend_of(weights) is not None:
        return True
    try:
        return convert and bool(ncnn_model(weights).numbers)
    except (ModelError, UsageError):
        return False


def ncnn_model(weights: Path) -> NcnnModel:
    """Writes a network as ncnn loads it: ours, a blend of the outputs of two, or, converted by pnnx, one of others.

    Args:
        weights: A weights file of any make.

    Raises:
        ModelError: The file is missing or damaged, or cannot be converted.
        UsageError: It is one of others, and the extra that converts is not installed.
    """
    if not runs_on_ncnn(weights, convert=False):
        with zipfile.ZipFile(cached_form(weights, ".ncnn", _convert)) as file:
            text, numbers = file.read("param").decode(), file.read("bin")
        return NcnnModel(graph=re.sub(r"\bout0\b", OUTPUT, re.sub(r"\bin0\b", INPUT, text)), numbers=numbers)
    state = _State(weights)
    graph = _Graph()
    if is_ours(weights):
        out = _generator(graph, state, "", config_of(read_info(weights), path=weights))
    else:
        blend = blend_of(weights)
        assert blend is not None
        outs = [
            _generator(graph, state, f"{name}.", config)
            for name, config in zip(("first", "second"), blend.configs, strict=True)
        ]
        (out,) = graph.add("Eltwise", outs, f"0=1 -23301=2,{1 - blend.share!r},{blend.share!r}")
    state.refuse_rest()
    graph.add("Noop", [out], "", outputs=[OUTPUT])
    return NcnnModel(graph=graph.text(), numbers=b"".join(graph.numbers))


class _State:
    """The tensors of a file. Each is taken once, and none may be left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, framework="numpy") as file:
                refuse_many(path, len(file.keys()))
                self.tensors: dict[str, NDArray[Any]] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, TypeError) as error:
            raise ModelError(f"{path}: not a readable safetensors file ({error}); get the file again") from error

    def take(self, key: str, *shape: int) -> NDArray[np.float32]:
        """Takes a tensor of a shape, as float32."""
        value = self.tensors.pop(key, None)
        if value is None or value.shape != shape or not np.isfinite(value).all():
            found = "missing" if value is None else f"of shape {value.shape}" if value.shape != shape else "not finite"
            raise ModelError(
                f"{self.path}: {key} is {found}; expected finite numbers of shape {shape}; get the file again"
            )
        return value.astype(np.float32)

    def drop_delta(self, name: str, channels: int) -> bool:
        """Drops a 3x3 conv that gives its input back. Says whether it is one."""
        delta = np.zeros((channels, channels, 3, 3), np.float32)
        delta[range(channels), range(channels), 1, 1] = 1
        weight, bias = (self.tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
        if (
            weight is None
            or bias is None
            or not np.array_equal(weight, delta)
            or bias.shape != (channels,)
            or bias.any()
        ):
            return False
        del self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return True

    def refuse_rest(self) -> None:
        if self.tensors:
            raise ModelError(
                f"{self.path}: unknown keys {sorted(self.tensors)[:5]}; the file does not fit its configuration"
            )


@dataclass
class _Graph:
    """Layers in the order in which they run: (kind, inputs, outputs, parameters); and what they need, as bytes."""

    layers: list[tuple[str, list[str], list[str], str]] = field(default_factory=lambda: [("Input", [], [INPUT], "")])
    numbers: list[bytes] = field(default_factory=list)

    def add(
        self, kind: str, inputs: list[str], params: str, *numbers: NDArray[np.float32], outputs: Any = 1
    ) -> list[str]:
        """Adds a layer, and returns the names of its outputs.

        Args:
            kind: As ncnn calls it.
            inputs: Names of outputs of other layers.
            params: ``number=value`` for each of its parameters.
            numbers: What it needs of the ``.bin`` file, in order.
            outputs: Their number, or their names.
        """
        names = [f"{len(self.layers)}_{each}" for each in range(outputs)] if isinstance(outputs, int) else outputs
        self.layers.append((kind, inputs, names, params))
        self.numbers += [each.tobytes() for each in numbers]
        return names

    def text(self) -> str:
        """Writes the ``.param`` file. What several layers read goes through a Split: each output is read once."""
        readers = Counter(name for _kind, inputs, _outputs, _params in self.layers for name in inputs)
        copies: dict[str, list[str]] = {}
        lines = []
        blobs = 0
        for number, (kind, inputs, outputs, params) in enumerate(self.layers):
            read = [copies[name].pop(0) if name in copies else name for name in inputs]
            lines.append(_line(kind, str(number), read, outputs, params))
            blobs += len(outputs)
            for name in outputs:
                if (times := readers[name]) > 1:
                    copies[name] = [f"{name}_{copy}" for copy in range(times)]
                    lines.append(_line("Split", f"split_{name}", [name], copies[name], ""))
                    blobs += times
        return "\n".join(["7767517", f"{len(lines)} {blobs}", *lines, ""])


def _line(kind: str, name: str, inputs: list[str], outputs: list[str], params: str) -> str:
    return " ".join([kind, name, str(len(inputs)), str(len(outputs)), *inputs, *outputs, params]).rstrip()


def _generator(graph: _Graph, state: _State, prefix: str, config: GeneratorConfig) -> str:
    """Adds a `models.generator.Generator`, and returns the name of its output."""
    feat, half, scale = config.num_feat, config.num_feat // 2, config.scale

    def conv(
        name: str, x: str, channels: int, out: int, *, size: int = 3, bias: bool = True, leaky: bool = False
    ) -> str:
        weight = state.take(f"{prefix}{name}.weight", out, channels, size, size)
        numbers = [np.zeros(1, np.float32), weight]  # 0: the weights follow as float32
        numbers += [state.take(f"{prefix}{name}.bias", out)] if bias else []
        params = f"0={out} 1={size} 4={size // 2} 5={int(bias)} 6={weight.size}"
        params += f" 9=2 -23310=1,{NEGATIVE_SLOPE}" if leaky else ""
        return graph.add("Convolution", [x], params, *numbers)[0]

    def enlarged(x: str, factor: int) -> str:
        return graph.add("Interp", [x], f"0=1 1={factor}.0 2={factor}.0")[0]

    def added(*parts: str) -> str:
        return graph.add("BinaryOp", list(parts), "0=0")[0]

    def inception(name: str, x: str) -> str:
        def plain(part: str, x: str, channels: int, *, size: int = 3) -> str:
            return conv(f"{name}.{part}", x, channels, half, size=size, bias=False, leaky=True)

        short = plain("conv1", plain("reduce1", x, feat, size=1), half)
        long = plain("conv2b", plain("conv2a", plain("reduce2", x, feat, size=1), half), half)
        return added(graph.add("Concat", [short, long], "0=0")[0], x)

    def gated(name: str, x: str) -> str:
        first = conv(f"{name}.first", x, feat, feat)
        slopes = state.take(f"{prefix}{name}.first_act.weight", feat)
        deeper = state.take(f"{prefix}{name}.second_act.weight", half)
        if (slopes[half:] > 0).all() and state.drop_delta(f"{prefix}{name}.second", half):
            slopes[half:] *= deeper  # one PReLU answers as two
            made = graph.add("PReLU", [first], f"0={feat}", slopes)[0]
        else:
            first = graph.add("PReLU", [first], f"0={feat}", slopes)[0]
            short, long = graph.add("Slice", [first], f"-23300=2,{half},{half} 1=0", outputs=2)
            long = graph.add("PReLU", [conv(f"{name}.second", long, half, half)], f"0={half}", deeper)[0]
            made = graph.add("Concat", [short, long], "0=0")[0]
        gain = state.take(f"{prefix}{name}.gain", feat)
        return added(made, graph.add("Scale", [x], f"0={feat} 1=0", gain)[0]) if gain.any() else made

    image = INPUT
    if config.block == "gated":
        slopes = state.take(f"{prefix}head_act.weight", feat)
        x = graph.add("PReLU", [conv("head", image, 3, feat)], f"0={feat}", slopes)[0]
        for number in range(config.num_blocks):
            x = gated(f"blocks.{number}", x)
    else:
        x = shallow = conv("head", image, 3, feat, leaky=True)
        for number in range(config.num_blocks):
            x = inception(f"blocks.{number}", x)
        x = added(conv("trunk", x, feat, feat, bias=False), shallow)
    if config.upsampler == "pixelshuffle":
        places = conv("tail.last", x, feat, 3 * scale**2)
        return added(graph.add("PixelShuffle", [places], f"0={scale}")[0], enlarged(image, scale))
    for number, factor in enumerate(nearest_stages(scale)):
        x = conv(f"tail.stages.{number}", enlarged(x, factor), feat, feat, leaky=True)
    return conv("tail.last", conv("tail.conv", x, feat, feat, leaky=True), feat, 3)


def _convert(weights: Path, out: Path) -> None:
    """Writes a network of others by pnnx, after comparing it with torch."""
    try:
        from pnnx import EXEC_PATH
    except ImportError as error:
        raise UsageError(
            f"ncnn runs networks of others after a conversion, which needs an extra; {extra('ncnn-convert')}, "
            "or use --backend torch"
        ) from error
    import torch

    shapes = [f"[1,3,{height},{width}]f32" for height, width in (TRACED, VARIED)]
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings(), torch.inference_mode():
        folder = Path(name)
        warnings.simplefilter("ignore")  # about tracing, and what networks of others do meanwhile
        module = module_of(weights)
        try:
            torch.jit.trace(module, torch.rand(1, 3, *TRACED), check_trace=False).save(str(folder / "network.pt"))  # type: ignore[no-untyped-call]
            command = [EXEC_PATH, "network.pt", f"inputshape={shapes[0]}", f"inputshape2={shapes[1]}", "fp16=0"]
            subprocess.run(command, cwd=folder, capture_output=True, timeout=PATIENCE, check=True)
            worst = difference(module, _runner(folder))
            graph, numbers = ((folder / f"network.ncnn.{part}").read_bytes() for part in ("param", "bin"))
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{weights}: pnnx cannot convert it for ncnn ({reason}); use --backend torch") from error
    if not worst <= TOLERANCE:
        raise ModelError(f"{weights}: ncnn differs from torch by {worst:.1e}; use --backend torch")
    with replace_file(out) as temporary, zipfile.ZipFile(temporary, "w") as file:
        file.writestr("param", graph)
        file.writestr("bin", numbers)


def _runner(folder: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Loads what pnnx wrote, by the names of its ends (``in0``, ``out0``): (1, 3, H, W) -> (1, 3, H * s, W * s)."""
    ncnn = import_ncnn()
    net = ncnn.Net()
    with silent_stderr():
        missing = net.load_param(str(folder / "network.ncnn.param"))
    if missing or net.load_model(str(folder / "network.ncnn.bin")):
        raise RuntimeError("ncnn lacks a layer of it")

    def run(picture: NDArray[np.float32]) -> NDArray[np.float32]:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(picture[0]).clone())
        status, out = extractor.extract("out0")
        return np.empty(0, np.float32) if status else np.array(out)[None]

    return run
