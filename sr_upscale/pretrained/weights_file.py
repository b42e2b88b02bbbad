"""Weights as one safetensors file that rebuilds its model: configuration and provenance lie inside.

Reading the header needs neither torch nor the tensors. Loading refuses what it cannot trust.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from sr_upscale.errors import ModelError
from sr_upscale.formatting import shortened
from sr_upscale.models.descriptor import GeneratorConfig
from sr_upscale.storage.atomic import replace_file

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sr_upscale.models.generator import Generator

ARCHITECTURE = "sr-upscale/inception-residual"
BLEND_ARCHITECTURE = "sr-upscale/output-blend"
_TEXTS = {
    "name": "modelspec.title",
    "description": "modelspec.description",
    "license": "modelspec.license",
    "date": "modelspec.date",
    "data": "sr_upscale.data",
}
_TABLES = ("config", "recipe", "scores")
"""Where the header has the fields of `WeightsInfo`; tables are JSON under their own names."""

MAX_TENSORS = 10_000
"""Tensors of a weights file. No known network has more; a file of very many only keeps the computer busy."""


@dataclass(frozen=True, kw_only=True)
class WeightsInfo:
    """What a weights file says about itself.

    Attributes:
        name: Short name, such as ``psnr-x4``.
        description: One sentence: what it is for.
        license: SPDX identifier of the weights.
        data: What it was trained on, with licences.
        date: Day it was made, ISO 8601.
        config: Fields of `GeneratorConfig`.
        recipe: The training configuration and how long it ran.
        scores: Measured scores by data set, such as ``{"set5": {"psnr_y": 31.7}}``.
    """

    name: str
    description: str = ""
    license: str = ""
    data: str = ""
    date: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)

    def to_metadata(self, *, architecture: str = ARCHITECTURE) -> dict[str, str]:
        """Makes the strings for the header of the file.

        Keys are those of the modelspec.* standard where it has them.

        Args:
            architecture: What the header names.
        """
        return {
            "format": "pt",
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": architecture,
            **{key: getattr(self, name) for name, key in _TEXTS.items()},
            **{f"sr_upscale.{name}": json.dumps(dict(getattr(self, name)), sort_keys=True) for name in _TABLES},
        }

    @staticmethod
    def from_metadata(metadata: Mapping[str, str], *, path: Path) -> WeightsInfo:
        """Reads a header, as the inverse of `to_metadata`.

        Args:
            metadata: Strings of the header.
            path: The file, to be named in errors.

        Raises:
            ModelError: The header is not one of `sr-upscale train`, or is damaged.
        """
        if metadata.get("modelspec.architecture") != ARCHITECTURE:
            found = metadata.get("modelspec.architecture", "no architecture")
            raise ModelError(
                f"{path}: the header names {found}; expected {ARCHITECTURE}: this is not a file of `sr-upscale train`"
            )
        try:
            tables = {name: json.loads(metadata.get(f"sr_upscale.{name}", "{}")) for name in _TABLES}
        except (ValueError, RecursionError) as error:  # ValueError: no JSON, or a number of thousands of digits
            raise ModelError(f"{path}: the header is damaged ({error}); get the file again") from error
        if not all(isinstance(table, dict) for table in tables.values()):
            raise ModelError(f"{path}: the header is damaged (a list or value where names belong); get the file again")
        fields: dict[str, Any] = {name: metadata.get(key, "") for name, key in _TEXTS.items()} | tables
        return WeightsInfo(**fields | {"name": metadata.get(_TEXTS["name"], path.stem)})


def is_ours(path: Path) -> bool:
    """Says whether a file is one of `sr-upscale train`, by its header.

    A ``.safetensors`` file without a readable header counts as ours.
    """
    if path.suffix.lower() != ".safetensors":
        return False
    try:
        return _metadata(path).get("modelspec.architecture") == ARCHITECTURE
    except ModelError:
        return True  # `read_info` says what is wrong with it


def read_info(path: Path) -> WeightsInfo:
    """Reads the header of a weights file. Does not import torch, and does not read tensors.

    Raises:
        ModelError: The file is missing, damaged, or not one of ours.
    """
    return WeightsInfo.from_metadata(_metadata(path), path=path)


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except FileNotFoundError as error:
        raise ModelError(
            f"{path}: no such weights file; `sr-upscale models` lists the names that need no file"
        ) from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}); get the file again") from error


def save_generator(path: Path, model: Generator, info: WeightsInfo, *, half: bool = False) -> None:
    """Writes weights and header, whole or not at all. The same model and header make the same bytes.

    Args:
        path: Target, replaced if it exists.
        model: Any device and dtype.
        info: Header; its `config` is replaced by that of the model.
        half: Whether numbers are written as float16 and not as float32. They are float32 again when loaded.

    Raises:
        OutputError: The file cannot be written.
    """
    save_tensors(path, model, replace(info, config=asdict(model.config)).to_metadata(), half=half)


def save_tensors(path: Path, model: nn.Module, metadata: Mapping[str, str], *, half: bool = False) -> None:
    """Writes the tensors of a network, and a header, whole or not at all.

    Args:
        path: Target, replaced if it exists.
        model: Any device and dtype.
        metadata: Strings of the header.
        half: Whether numbers are written as float16 and not as float32.

    Raises:
        OutputError: The file cannot be written.
    """
    from safetensors.torch import save

    tensors = {key: value.detach().float().cpu().contiguous() for key, value in model.state_dict().items()}
    state = {key: value.half() for key, value in tensors.items()} if half else tensors
    content = _in_order(save(state, metadata=dict(metadata)))
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def _in_order(content: bytes) -> bytes:
    """Sorts the strings of a file's header, which safetensors writes in an order of chance."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]


def load_generator(path: Path) -> tuple[Generator, WeightsInfo]:
    """Loads the model and the header of a weights file.

    Returns:
        The model (float32, CPU, evaluation mode) and the header.

    Raises:
        ModelError: The file is missing, damaged or foreign. Or keys or shapes differ from what its configuration says
            (the first five keys are named). Or a weight is not finite.
    """
    import torch

    from sr_upscale.models.generator import Generator

    info = read_info(path)
    config = config_of(info, path=path)
    state = load_safetensors(path)
    if config.num_blocks > len(state) or config.num_feat > sum(value.numel() for value in state.values()):
        raise ModelError(
            f"{path}: the header names {config.num_blocks} blocks of {config.num_feat} channels, more than the file's "
            f"{len(state)} tensors can be; the file is damaged, get it again"
        )
    with torch.device("meta"):
        model = Generator(config)
    wanted = model.state_dict()
    if state.keys() != wanted.keys():
        missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
        raise ModelError(
            f"{path}: missing keys {missing[:5]}, unknown keys {unknown[:5]}; the file does not fit its configuration"
        )
    for key, value in state.items():
        if value.shape != wanted[key].shape:
            raise ModelError(
                f"{path}: {key} has shape {tuple(value.shape)}; its configuration needs {tuple(wanted[key].shape)}"
            )
        if not torch.isfinite(value.float()).all():
            raise ModelError(f"{path}: {key} holds values that are not finite; the file is damaged, get it again")
    model.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    return model.requires_grad_(False).eval(), info


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Loads the tensors of a safetensors file, on the CPU.

    Raises:
        ModelError: It cannot be read, or holds more than `MAX_TENSORS`.
    """
    from safetensors.torch import load_file

    try:
        with safe_open(path, framework="pt") as file:
            refuse_many(path, len(file.keys()))
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}); get the file again") from error


def refuse_many(path: Path, count: int) -> None:
    """Refuses a file of more than `MAX_TENSORS` tensors.

    Raises:
        ModelError: It is one.
    """
    if count > MAX_TENSORS:
        raise ModelError(f"{path}: holds {count} tensors; expected at most {MAX_TENSORS}: no network has so many")


def scale_of(path: Path) -> int:
    """Reads the factor of a network of ours from the header of its file. Does not import torch.

    Raises:
        ModelError: The file is missing or damaged, or its header names no factor.
    """
    scale = read_info(path).config.get("scale")
    if type(scale) is not int:
        raise ModelError(f"{path}: the header's scale is {shortened(repr(scale))}; expected a whole number")
    return scale


def config_of(info: WeightsInfo, *, path: Path) -> GeneratorConfig:
    """Builds the generator's configuration from a header.

    Args:
        info: The header.
        path: Its file, to be named in errors.

    Raises:
        ModelError: The header's configuration does not build a generator.
    """
    try:
        return GeneratorConfig(**info.config)
    except (TypeError, ModelError) as error:
        raise ModelError(f"{path}: the header's configuration does not build a generator ({error})") from error


@dataclass(frozen=True, kw_only=True)
class BlendInfo:
    """What a file of `blend.OutputBlend` says about itself.

    Attributes:
        configs: Of the first network and of the second.
        share: Of the second network's output, 0 to 1.
    """

    configs: tuple[GeneratorConfig, GeneratorConfig]
    share: float


def blend_of(path: Path) -> BlendInfo | None:
    """Reads the header of a file that `blend.blend_files` wrote of two architectures; None where it is another file.

    Raises:
        ModelError: The header is damaged.
    """
    if path.suffix.lower() != ".safetensors":
        return None
    try:
        metadata = _metadata(path)
    except ModelError:  # whoever reads the file next says what is wrong with it
        return None
    if metadata.get("modelspec.architecture") != BLEND_ARCHITECTURE:
        return None
    try:
        first, second = (GeneratorConfig(**each) for each in json.loads(metadata["sr_upscale.configs"]))
        return BlendInfo(configs=(first, second), share=float(metadata["sr_upscale.share"]))
    except (KeyError, ValueError, TypeError, ModelError) as error:
        raise ModelError(f"{path}: the blend is damaged ({error}); remove it, and it is made again") from error
