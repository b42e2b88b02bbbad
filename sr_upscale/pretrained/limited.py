"""Networks are built under a limit: what a file of weights can fill, and no more.

Libraries take a network's sizes from the names and shapes of tensors, and trust them. So a file of a few kilobytes can
ask for a network of gigabytes, or for a hundred thousand layers. What a network is made of goes through torch. Here it
is counted, tensor by tensor, before memory is taken for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from sr_upscale.errors import ModelError

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
