"""Discriminators and VGG19 features against published sizes and torchvision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sr_upscale.errors import ModelError, NetworkError
from sr_upscale.models import features as features_module
from sr_upscale.models.discriminator import (
    DISCRIMINATORS,
    UNetDiscriminator,
    VGGDiscriminator,
    beside,
    build_discriminator,
)
from sr_upscale.models.features import LAYERS, VGG19Features, layers_held, read_vgg19
from tests.helpers import vgg19_state


def test_published_discriminator_has_its_layers() -> None:
    d = VGGDiscriminator(64)
    convs = [module for module in d.features if isinstance(module, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [conv.stride[0] for conv in convs] == [1, 2] * 4
    assert sum(isinstance(module, nn.BatchNorm2d) for module in d.features) == 7
    assert (d.hidden.in_features, d.hidden.out_features, d.logit.out_features) == (18_432, 1024, 1)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (17, 33)])
def test_vgg_discriminator_gives_one_logit_a_picture(height: int, width: int) -> None:
    assert VGGDiscriminator(4)(torch.rand(2, 3, height, width)).shape == (2, 1)


def test_unet_discriminator_gives_one_logit_a_pixel_and_is_real_esrgans_size() -> None:
    d = UNetDiscriminator(64)
    assert d(torch.rand(1, 3, 24, 40)).shape == (1, 1, 24, 40)
    # 3x3 and 4x4 convs of Wang et al. 2021: 64-128-256-512-256-128-64-64-64-1
    expected = 3 * 64 * 9 + 64 + 16 * (64 * 128 + 128 * 256 + 256 * 512)
    expected += 9 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 64 + 64 * 64 + 64) + 1
    assert sum(parameter.numel() for parameter in d.parameters()) == expected


@pytest.mark.parametrize("name", sorted(DISCRIMINATORS))
def test_lr_beside_the_picture_adds_its_channels_to_the_first_conv(name: str) -> None:
    plain, seeing = (build_discriminator(name, 4, sees_lr=sees) for sees in (False, True))
    count = [sum(parameter.numel() for parameter in each.parameters()) for each in (plain, seeing)]
    assert count[1] - count[0] == 3 * 4 * 9
    image, lr = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    assert beside(image, None) is image
    assert seeing(beside(image, lr)).shape == plain(image).shape
    assert not torch.equal(seeing.eval()(beside(image, lr)), seeing(beside(image, lr.flip(0))))


def test_spectral_norm_holds_every_inner_conv_at_one() -> None:
    d = UNetDiscriminator(4).train()
    with torch.no_grad():
        d.down[0].parametrizations.weight.original.mul_(7)  # type: ignore[union-attr]
    for _ in range(50):  # power iterations
        d(torch.rand(1, 3, 16, 16))
    for conv in (*d.down, *d.up, d.tail[0], d.tail[2]):
        assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


# --- VGG19 ------------------------------------------------------------------------------------------


def test_features_equal_torchvisions_network() -> None:
    """The same weights in torchvision's VGG19 up to conv5_4 (features[:35]) and up to conv2_2 (features[:8])."""
    from torchvision.models import vgg19

    torch.manual_seed(0)
    theirs = vgg19(weights=None).eval()
    state = {key: value for key, value in theirs.state_dict().items() if key.startswith("features.")}
    ours = VGG19Features(state, ["conv2_2", "conv5_4"])
    image = torch.rand(1, 3, 40, 48)
    normalised = (image - torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)) / torch.tensor(
        (0.229, 0.224, 0.225)
    ).view(1, 3, 1, 1)
    with torch.no_grad():
        found = ours(image)
        torch.testing.assert_close(found["conv2_2"], theirs.features[:8](normalised))
        torch.testing.assert_close(found["conv5_4"], theirs.features[:35](normalised))
    assert LAYERS["conv5_4"] == 34


def test_gradient_reaches_the_picture_and_not_the_weights() -> None:
    features = VGG19Features(vgg19_state("conv2_1"), ["conv1_2", "conv2_1"])
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    sum(value.sum() for value in features(image).values()).backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in features.parameters())


def test_files_of_both_kinds_are_read(tmp_path: Path) -> None:
    state = vgg19_state("conv1_2")
    save_file(state, tmp_path / "v.safetensors")
    torch.save(state, tmp_path / "v.pth")
    for name in ("v.safetensors", "v.pth"):
        read = read_vgg19(tmp_path / name)
        assert layers_held(read) == ("conv1_1", "conv1_2")
        assert torch.equal(read["features.0.weight"], state["features.0.weight"])


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_vgg19(tmp_path / "none.pth")
    for name in ("torn.safetensors", "torn.pth"):
        (tmp_path / name).write_bytes(b"torn")
        with pytest.raises(ModelError, match=name):
            read_vgg19(tmp_path / name)
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"no features\.0\.weight in it"):
        read_vgg19(tmp_path / "other.safetensors")
    state = vgg19_state("conv1_2")
    with pytest.raises(ModelError, match=r"features\.5 \(conv2_1\) is missing"):
        VGG19Features(state, ["conv2_1"])
    with pytest.raises(
        ModelError, match=r"features\.2 \(conv1_2\) has shape \(64, 3, 3, 3\); expected \(64, 64, 3, 3\)"
    ):
        VGG19Features({**state, "features.2.weight": torch.zeros(64, 3, 3, 3)}, ["conv1_2"])
    with pytest.raises(ModelError, match="no layer conv9_9"):
        VGG19Features(state, ["conv9_9"])


def test_pickles_that_want_more_than_tensors_are_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (open, (str(canary), "w"))

    torch.save({"features.0.weight": Hostile()}, tmp_path / "bad.pth")
    with pytest.raises(ModelError, match=r"bad.pth: refused"):
        read_vgg19(tmp_path / "bad.pth")
    assert not canary.exists()


def test_without_a_file_torchvisions_weights_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import VGG19_Weights

    state = vgg19_state("conv1_2")
    kind = type(VGG19_Weights.IMAGENET1K_V1)
    monkeypatch.setattr(kind, "get_state_dict", lambda *_arguments, **_named: state)
    assert read_vgg19(None) is state

    def fail(*_arguments: object, **_named: object) -> None:
        raise OSError("unreachable")

    monkeypatch.setattr(kind, "get_state_dict", fail)
    with pytest.raises(NetworkError, match="--vgg-weights"):
        features_module.read_vgg19(None)


def test_rescaled_layers_answer_one_on_the_mean_and_mean_the_same() -> None:
    plain, rescaled = (VGG19Features(vgg19_state("conv3_2"), ["conv1_2", "conv2_1", "conv3_2"]) for _ in range(2))
    pictures = [torch.rand(1, 3, 40, 32), torch.rand(1, 3, 24, 24) ** 3]
    rescaled.rescale(pictures)
    other = torch.rand(1, 3, 48, 48)
    for layer in plain.layers:
        means = [torch.relu(rescaled(picture)[layer]).mean().item() for picture in pictures]
        assert sum(means) / 2 == pytest.approx(1, rel=1e-4)
        before, after = plain(other)[layer], rescaled(other)[layer]
        factor = (before * after).sum() / before.square().sum()
        torch.testing.assert_close(after, before * factor, rtol=1e-3, atol=1e-3 * after.abs().max().item())
