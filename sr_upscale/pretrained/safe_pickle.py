"""Third-party weights, read safely: tensors out of a pickle and nothing else, and networks no larger than their file.

A pickle is a program. Before anything of it runs, its opcodes are read. Every global that it would call is looked up in
a short list, and the file is refused for one that is not in it. What passes is then loaded by torch's own restricted
unpickler (`weights_only`). So two barriers of different make stand behind each other. There is no way around them.

Libraries take a network's sizes from the names and shapes of tensors, and trust them. So a file of a few kilobytes can
ask for a network of gigabytes, or for a hundred thousand layers. What a network is made of goes through torch. There it
is counted, tensor by tensor, before memory is taken for it.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from sr_upscale.errors import ModelError
from sr_upscale.formatting import mebibytes

ALLOWED = frozenset(
    {
        "collections.OrderedDict",
        "typing.OrderedDict",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch.Size",
        *(
            f"torch.{kind}Storage"
            for kind in ("Float", "Half", "BFloat16", "Double", "Int", "Long", "Short", "Char", "Byte", "Bool")
        ),
        *(f"torch.{kind}" for kind in ("float32", "float16", "bfloat16", "float64", "int64", "int32", "uint8", "bool")),
    }
)
"""Globals that a file of plain tensors needs."""

MOST_PARTS, MOST_STEPS = 20_000, 1_000_000
"""Most files in an archive, and instructions of a pickle; networks have far fewer."""

_LEGACY_PICKLES = 5
"""Pickles of a file in torch's format before 1.6: magic number, protocol, system, object and storage keys."""

_PUSHES_TEXT = re.compile("UNICODE|STRING")
"""Names of instructions that put text on the stack."""


def load_tensors(path: Path) -> dict[str, Any]:
    """Loads the dictionary in a ``.pth`` or ``.ckpt`` file.

    Args:
        path: A file as `torch.save` writes it.

    Returns:
        Tensors on the CPU, and dictionaries of them, by name.

    Raises:
        ModelError: The file is missing or damaged, or it is TorchScript or another program, or its pickle refers to
            anything but tensors. Nothing of a refused file has run.
    """
    try:
        with path.open("rb") as file:
            for found in _globals(file, path):
                if found not in ALLOWED:
                    raise ModelError(
                        f"{path}: refused: references {found}; expected tensors alone: a file that calls code can take "
                        "over the computer, get a .safetensors version of it"
                    )
        content = torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such weights file") from error
    except Exception as error:  # damaged pickles and archives fail in every way there is
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path}: not a readable PyTorch file ({reason[:200]}); get the file again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: holds a {type(content).__name__}; expected a dictionary of tensors")
    return content


def _globals(file: BinaryIO, path: Path) -> Iterator[str]:
    """Yields ``module.name`` of everything that the pickles of a file would look up.

    Raises:
        ModelError: The file is not one of `torch.save`, or is a program.
    """
    start = file.read(4)
    file.seek(0)
    if start != b"PK\x03\x04":  # as torch tells them apart
        if start[:1] != b"\x80":
            raise ModelError(f"{path}: not a PyTorch file; expected .pth as torch.save writes it, or .safetensors")
        for _ in range(_LEGACY_PICKLES):
            yield from _globals_of_pickle(file)
        return
    with zipfile.ZipFile(file) as archive:
        for name in _pickles_of(archive, path):
            yield from _globals_of_pickle(io.BytesIO(archive.read(name)))


def _pickles_of(archive: zipfile.ZipFile, path: Path) -> list[str]:
    """Names the pickles of an archive.

    Raises:
        ModelError: It is not one of `torch.save`, or is a program.
    """
    names = archive.namelist()
    unpacked = sum(entry.file_size for entry in archive.infolist())
    there = path.stat().st_size
    if unpacked > there:  # torch.save does not compress
        raise ModelError(
            f"{path}: refused: unpacks to {mebibytes(unpacked)}, the file has {mebibytes(there)}; "
            "expected .pth as torch.save writes it"
        )
    if len(names) > MOST_PARTS:
        raise ModelError(f"{path}: refused: {len(names)} parts; expected at most {MOST_PARTS}")
    if len(set(names)) < len(names):
        raise ModelError(f"{path}: refused: a name stands twice in the archive; get the file again")
    parts = [name.split("/", 1)[-1] for name in names]
    if "constants.pkl" in parts or any(part.startswith("code/") for part in parts):
        raise ModelError(f"{path}: refused: a TorchScript program; expected weights alone, get the .pth of it")
    if "archive_format" in parts or any(part.startswith("models/") for part in parts):
        raise ModelError(f"{path}: refused: a torch.export program; expected weights alone, get the .pth of it")
    pickles = [name for name, part in zip(names, parts, strict=True) if part.endswith(".pkl")]
    if not pickles:
        raise ModelError(f"{path}: a zip file without data.pkl; expected .pth as torch.save writes it")
    return pickles


def _globals_of_pickle(stream: BinaryIO) -> Iterator[str]:
    """Yields the globals of one pickle, without running it.

    Strings are followed through the memo. Doubt is a refusal: words that no list allows stand for a name that is not
    certain.
    """
    strings: list[str | None] = [None]  # what was pushed lately, as far as it is text
    memo: dict[int, str | None] = {}
    for number, (opcode, argument, _position) in enumerate(pickletools.genops(stream)):
        name = opcode.name
        if number >= MOST_STEPS:
            raise ValueError(f"a pickle of more than {MOST_STEPS} instructions")
        if name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
            strings.append(None)
        elif name == "STACK_GLOBAL":
            module, attribute = (strings[-2:] + [None, None])[:2]
            yield f"{module}.{attribute}" if module and attribute else "a name that is made on the way"
            strings.append(None)
        elif name.startswith("EXT"):
            yield "an extension code"
        elif name in ("POP", "POP_MARK", "DUP"):
            yield f"names behind the instruction {name}"  # what the list above holds is no longer the stack
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if name == "MEMOIZE" else cast("int", argument)] = strings[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            strings.append(memo.get(cast("int", argument)))
        elif _PUSHES_TEXT.search(name):
            strings.append(argument if isinstance(argument, str) else None)
        elif opcode.stack_after:
            strings.append(None)


SPARE_BYTES = 1 << 30
"""What may be made beside the weights: masks and tables of attention."""
SPARE_OPERATIONS = 10_000
OPERATIONS = 40
"""Operations that may be done for each tensor of the file; published networks take up to 8."""


class Limited(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses, while it is entered, more tensors than weights can fill.

    Args:
        state: The weights.
        name: Of their file, for errors.
    """

    def __init__(self, state: Mapping[str, Any], name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name = name
        self._bytes = SPARE_BYTES + 4 * sum(value.nbytes for value in state.values() if isinstance(value, Tensor))
        self._operations = SPARE_OPERATIONS + OPERATIONS * len(state)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._operations -= 1
        if all(result.alias_info is None for result in func._schema.returns):  # others use memory that is there
            self._bytes -= _new_bytes(func, args, kwargs)
        if min(self._operations, self._bytes) < 0:
            what = "layers" if self._operations < 0 else "memory"
            raise ModelError(
                f"{self._name}: its names and shapes ask for a network of more {what} than its tensors can fill; "
                "it is damaged, get it again"
            )
        return func(*args, **kwargs)


def _new_bytes(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Tells what the result of an operation will take, by one on tensors without memory."""
    makes = any(argument.name == "device" for argument in func._schema.arguments)
    device = {"device": torch.device("meta")} if makes else {}
    bare_args, bare_kwargs = tree_map_only(Tensor, _without_memory, (args, {**kwargs, **device}))
    try:
        made = func(*bare_args, **bare_kwargs)
    except Exception:  # results whose size depends on values, such as a number taken out, are small; errors come again
        return 0
    return sum(each.untyped_storage().nbytes() for each in tree_leaves(made) if isinstance(each, Tensor))


def _without_memory(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
