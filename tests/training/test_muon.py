"""The optimiser Muon, against a singular value decomposition and torch's own optimisers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sr_upscale.models.generator import Generator, GeneratorConfig
from sr_upscale.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(32, 288), (64, 32), (7, 7), (1, 9)])
def test_orthogonal_keeps_the_directions_and_evens_out_the_sizes(shape: tuple[int, int]) -> None:
    """For M = U S V^T the result is U S' V^T with every S' near 1, though S spans three decades."""
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(3, *shape, dtype=torch.float64), full_matrices=False)
    sizes = torch.logspace(0, -2.5, min(shape), dtype=torch.float64)
    found = orthogonal((left * sizes @ right).float()).double()
    inner = left.mT @ found @ right.mT
    evened = inner.diagonal(dim1=1, dim2=2)
    assert evened.min() > 0.65
    assert evened.max() < 1.25
    torch.testing.assert_close(inner, torch.diag_embed(evened), atol=2e-3, rtol=0)
    torch.testing.assert_close(left @ inner @ right, found, atol=2e-3, rtol=0)  # and nothing in other directions


def taught(make: object, start: list[torch.Tensor], steps: int = 4) -> list[torch.Tensor]:
    """Parameters after some steps along gradients that are the same for everyone."""
    parameters = [nn.Parameter(each.clone()) for each in start]
    optimizer = make(parameters)  # type: ignore[operator]
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.numel(), generator=generator).view_as(parameter)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def test_conv_weights_move_as_torch_s_muon_moves_their_matrices() -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("needs torch.optim.Muon (torch 2.9)")
    torch.manual_seed(0)
    start = [torch.zeros(8, 4, 3, 3), torch.zeros(8, 4, 3, 3), torch.zeros(6, 16, 1, 1)]
    ours = taught(lambda parameters: Muon(parameters, 0.1), start)
    theirs = taught(
        lambda parameters: torch.optim.Muon(parameters, 0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        [each.flatten(1) for each in start],
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.flatten(1), other, atol=0.02 * float(other.abs().max()), rtol=0)  # theirs: bf16


def test_biases_and_the_head_move_as_adam_moves_them() -> None:
    start = [torch.ones(5), torch.zeros(8, 3, 3, 3), torch.ones(5)]
    ours = taught(lambda parameters: Muon(parameters, 0.1, betas=(0.8, 0.95)), start)
    theirs = taught(lambda parameters: torch.optim.Adam(parameters, 0.1, betas=(0.8, 0.95)), start)
    torch.testing.assert_close(ours, theirs)


def test_it_finds_what_adam_misses_when_inputs_are_alike() -> None:
    """Channels that differ little, as neighbouring features do: the same steps, the loss several times smaller."""
    losses = {}
    for name, make in (("muon", lambda p: Muon(p, 0.02)), ("adam", lambda p: torch.optim.Adam(p, 0.02))):
        torch.manual_seed(0)
        conv, target = (nn.Conv2d(16, 16, 1, bias=False) for _ in range(2))
        x = torch.randn(1, 1, 32, 32) + 0.05 * torch.randn(4, 16, 32, 32)
        optimizer = make(conv.parameters())
        for number in range(200):
            for group in optimizer.param_groups:
                group["lr"] = 0.02 * (1 - number / 200)
            optimizer.zero_grad()
            loss = (conv(x) - target(x)).abs().mean()
            loss.backward()
            optimizer.step()
        losses[name] = loss.item()
    assert losses["muon"] < losses["adam"] / 3, losses


def test_its_memory_is_saved_and_loaded() -> None:
    """A run cut in two by state_dict ends in the same bits."""
    torch.manual_seed(0)
    model = Generator(GeneratorConfig(scale=2, num_feat=8, num_blocks=1))
    x = torch.rand(2, 3, 6, 6)

    def steps(model: Generator, optimizer: Muon, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    optimizer = Muon(model.parameters(), 1e-2)
    steps(model, optimizer, 2)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    memory = copy.deepcopy(optimizer.state_dict())
    twin = Generator(model.config)
    twin.load_state_dict(weights)
    again = Muon(twin.parameters(), 1e-2)
    again.load_state_dict(memory)
    steps(model, optimizer, 2)
    steps(twin, again, 2)
    assert all(torch.equal(value, twin.state_dict()[key]) for key, value in model.state_dict().items())
