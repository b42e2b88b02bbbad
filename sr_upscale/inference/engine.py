"""What runs plans, again in smaller parts where memory runs out, and on the CPU where a graphics card is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from numpy.typing import NDArray

from sr_upscale.device import CPU, Choice, DeviceLostError, is_out_of_memory
from sr_upscale.errors import OutOfMemoryError
from sr_upscale.images.picture import Picture
from sr_upscale.inference.backends.choice import BackendChoice
from sr_upscale.inference.color_drift import Drift
from sr_upscale.inference.loaded_networks import LoadedNetworks
from sr_upscale.inference.planning import Planner, UpscalePlan, smaller_plan
from sr_upscale.inference.rows import Rows, gathered
from sr_upscale.inference.sizing import Target

Made = TypeVar("Made")


class Engine:
    """Runs plans.

    Args:
        planner: Makes the plans.
        chosen: What computes, and why.
        tta: Whether tiles are enlarged by the self-ensemble.

    Attributes:
        planner: Of now: it plans for the CPU once a graphics card is lost.
        networks: The loaded networks of that planner.
        backend, backend_reason: What computes, and why.
        warnings: Sentences for the user, of a device that is not there or was lost.
    """

    def __init__(self, planner: Planner, chosen: BackendChoice, *, tta: bool) -> None:
        self.backend, self.backend_reason, self.tta = chosen.backend, chosen.reason, tta
        self.warnings: list[str] = []
        self._use(planner)

    @property
    def choice(self) -> Choice:
        """Returns device and number type, and why."""
        return self.planner.choice

    def _use(self, planner: Planner) -> None:
        self.planner = planner
        self.networks = LoadedNetworks(planner, self.backend)
        self._rows = Rows(self.networks, tta=self.tta)

    def move_to_cpu(self, error: Exception) -> None:
        """Goes on without the graphics card, in fp32."""
        self.warnings.append(f"{error}; computed on the CPU")
        reason = f"{self.choice.device} was lost"
        choice = Choice(device=CPU, dtype="float32", device_reason=reason, dtype_reason=reason)
        cutting = dataclasses.replace(self.planner.cutting, device_type=CPU.type)
        self._use(dataclasses.replace(self.planner, choice=choice, cutting=cutting))

    def feed(
        self,
        picture: Picture,
        plan: UpscalePlan,
        use: Callable[[Iterator[NDArray[Any]], UpscalePlan], Made],
        *,
        on_step: Callable[[int, int], None] = lambda _done, _all: None,
        drift: Drift | None = None,
    ) -> Made:
        """Returns what `use` makes of the rows of a picture and of their plan.

        Where memory runs out, it begins again with a plan that is cut smaller; where a graphics card is lost, on the
        CPU. Nothing of an attempt that failed is used.

        Args:
            picture: The picture.
            plan: Of `Planner.plan`.
            use: Takes the rows (`Rows.of_picture`) and the plan that they follow.
            on_step: Called with (strips or tiles done, in all); the number in all may grow when memory runs out.
            drift: Watches the colours, of the last attempt alone.

        Raises:
            OutOfMemoryError: It cannot be cut any smaller.
        """
        while True:
            if drift is not None:
                drift.clear()
            try:
                return use(self._rows.of_picture(picture, plan, on_step=on_step, drift=drift), plan)
            except DeviceLostError as error:
                self.move_to_cpu(error)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                try:
                    plan = smaller_plan(plan, self.choice.device)
                except OutOfMemoryError as full:
                    if self.choice.device.type != "vulkan":
                        raise
                    self.move_to_cpu(full)
            if self.choice.device.type == "cuda":
                import torch

                torch.cuda.empty_cache()

    def enlarged(
        self,
        picture: Picture,
        target: Target,
        *,
        on_step: Callable[[int, int], None] = lambda _done, _all: None,
        drift: Drift | None = None,
    ) -> Picture:
        """Enlarges every frame of a picture, which stands in memory as a whole; metadata stays.

        Args:
            picture: The picture, upright.
            target: Size of the output.
            on_step, drift: See `feed`.

        Raises:
            UsageError: An impossible size.
            OutOfMemoryError: Not even the smallest tile fits.
        """
        plan = self.planner.plan(picture, target)
        self.planner.check_memory(plan, picture)
        return self.feed(picture, plan, lambda rows, plan: gathered(rows, picture, plan), on_step=on_step, drift=drift)
