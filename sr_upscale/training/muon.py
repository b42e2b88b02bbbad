"""Muon: momentum whose matrices are made orthogonal, so that every direction learns at the same speed.

Neighbouring pixels and channels are alike, so gradients of convs have few large singular values and many small ones.
Adam scales each weight by itself and hardly learns along the small ones. What Muon is worth on this generator stands in
docs/training.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that pulls all singular values towards 1 (Jordan et al. 2024)."""

ITERATIONS = 5

MIN_INPUTS = 4
"""Convs of fewer input channels (the head, which reads RGB) are left to Adam."""


class Muon(torch.optim.Optimizer):
    """Muon for conv weights, Adam for all else (biases, the head), at one learning rate.

    A conv's weight (out, in, kh, kw) counts as a matrix (out, in * kh * kw). Its update has the root mean square that
    Adam's usually has, 0.2, so that rates and schedules carry over (Liu et al. 2025, arXiv:2502.16982).

    Args:
        params: Parameters; those of one shape are worked on together.
        lr: Learning rate.
        betas: Decay rates of Adam.
        momentum: Decay rate of Muon's momentum, used in Nesterov's form.
        eps: Adam's guard against a division by 0.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        momentum: float = 0.95,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "momentum": momentum, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Takes one step, along the gradients that are there.

        Args:
            closure: Must be None; only torch's signature has it.
        """
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for shape, parameters in alike.items():
                update = self._muon if len(shape) == 4 and shape[1] >= MIN_INPUTS else self._adam
                torch._foreach_add_(parameters, update(parameters, group), alpha=-group["lr"])

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        gradients = _gradients(parameters)
        averages = self._kept("momentum", parameters)
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
        matrices = torch.stack([each.flatten(1) for each in ahead])
        updates = orthogonal(matrices) * (0.2 * max(matrices.shape[1:]) ** 0.5)
        return [update.view(parameters[0].shape) for update in updates]

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        gradients, (first, second) = _gradients(parameters), group["betas"]
        counts = self._kept("step", parameters, counts=True)
        torch._foreach_add_(counts, 1)
        done = counts[0].item()
        means, squares = self._kept("exp_avg", parameters), self._kept("exp_avg_sq", parameters)
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        return [
            mean / (1 - first**done) / ((square / (1 - second**done)).sqrt() + group["eps"])
            for mean, square in zip(means, squares, strict=True)
        ]

    def _kept(self, name: str, parameters: list[Tensor], *, counts: bool = False) -> list[Tensor]:
        """Returns what is remembered of each parameter; zero at first."""
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros(()) if counts else torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]


def _gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def orthogonal(matrices: Tensor) -> Tensor:
    """Finds matrices near the nearest ones with orthonormal rows (or columns, where those are fewer).

    It is the polynomial of Newton and Schulz, worked out on the small Gram matrices: all steps together are one product
    with the matrices themselves.

    Args:
        matrices: (N, H, W) float32.

    Returns:
        (N, H, W) float32, with singular values between about 0.65 and 1.25. Those that were below a thousandth of the
        largest stay smaller.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    unit = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = unit @ unit.mT
    identity = torch.eye(gram.shape[1], device=gram.device)
    product = identity.expand_as(gram)
    linear, cubic, quintic = COEFFICIENTS
    for _ in range(ITERATIONS):
        factor = linear * identity + cubic * gram + quintic * gram @ gram
        product, gram = factor @ product, factor @ gram @ factor
    return cast("Tensor", product @ unit)
