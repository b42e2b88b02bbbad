"""Weights of others: faults 54 to 60 by the number of their row, and architectures that must come out right."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import spandrel
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from sr_upscale.errors import ModelError, UsageError
from sr_upscale.pretrained import safe_pickle
from sr_upscale.pretrained.load import module_of, traits_of
from sr_upscale.pretrained.safe_pickle import load_tensors
from sr_upscale.pretrained.spandrel_adapter import load_foreign
from sr_upscale.pretrained.weights_file import load_generator
from sr_upscale.upscaler import Upscaler
from tests.helpers import Cli, pattern


def with_random_weights(module: nn.Module) -> nn.Module:
    """Small random weights, so that the output is far from constant and from overflow."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.7 / fan_in**0.5))
    return module.eval()


@pytest.fixture(scope="session")
def esrgan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A small RRDBNet x4 in the layout of Real-ESRGAN's files, and the module itself."""
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    module = with_random_weights(RRDBNet(in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=4))
    path = tmp_path_factory.mktemp("foreign") / "small-esrgan.pth"
    torch.save({"params_ema": module.state_dict()}, path)
    return path, module


@pytest.fixture(scope="session")
def compact(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A small SRVGGNet x2 as safetensors."""
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact

    module = with_random_weights(SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=3, upscale=2))
    path = tmp_path_factory.mktemp("foreign") / "small-compact.safetensors"
    save_file(module.state_dict(), path)
    return path, module


@pytest.fixture(scope="session")
def span(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A SPAN x4."""
    from spandrel.architectures.SPAN.__arch.span import SPAN

    torch.manual_seed(0)
    module = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=4).eval()
    path = tmp_path_factory.mktemp("foreign") / "small-span.pth"
    torch.save(module.state_dict(), path)
    return path, module


def save_pickle(path: Path, content: object) -> None:
    """As torch.save does, without its checks."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
        archive.writestr("archive/version", "3\n")


# --- faults -----------------------------------------------------------------------------------------


class Calls:
    """Pickles to a call of `function`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize("layout", ["zip", "legacy", "protocol 4"])
def test_row_54_malicious_pickles_are_refused_by_name(cli: Cli, photo: Path, tmp_path: Path, layout: str) -> None:
    """The global is named, the canary's file never appears, and there is no second try with less care."""
    canary = tmp_path / "canary"
    bad = tmp_path / "bad.pth"
    content = {"params": Calls(os.system, f"touch {canary}")}
    if layout == "legacy":
        torch.save(content, bad, _use_new_zipfile_serialization=False)
    elif layout == "zip":
        save_pickle(bad, content)
    else:
        with zipfile.ZipFile(bad, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=4))
    ran = cli(photo, "-n", bad, "-o", tmp_path / "out.png", code=7)
    assert "refused: references posix.system" in ran.err or "refused: references os.system" in ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert not canary.exists()
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    "function", [eval, exec, builtins.__import__, getattr, torch.load, torch.hub.load, open], ids=lambda f: f.__name__
)
def test_row_54_whatever_it_calls(tmp_path: Path, function: Callable[..., object]) -> None:
    save_pickle(tmp_path / "bad.pth", {"x": Calls(function, "1")})
    with pytest.raises(ModelError, match="refused: references"):
        load_tensors(tmp_path / "bad.pth")


def test_row_54_names_made_on_the_way_are_refused(tmp_path: Path) -> None:
    """A pickle that computes the name it looks up, or hides it in the memo."""
    hidden = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94" + b"00" + b"h\x00h\x01\x93" + b"\x8c\x04true\x85R."
    for number, program in enumerate((hidden, b"\x80\x04)\x8c\x06system\x93.", b"\x80\x02\x82\x01.")):
        path = tmp_path / f"{number}.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", program)
        with pytest.raises(ModelError, match="refused: references (names behind|a name that is made|an extension)"):
            load_tensors(path)


def test_row_55_programs_and_sparse_tensors_are_refused(cli: Cli, photo: Path, tmp_path: Path) -> None:
    script, exported, sparse = (tmp_path / name for name in ("script.pt", "exported.pt2.pth", "sparse.pth"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Conv2d(3, 3, 1)).save(str(script))
    with zipfile.ZipFile(exported, "w") as archive:
        archive.writestr("exported/archive_format", "pt2")
        archive.writestr("exported/models/model.json", "{}")
    torch.save({"w": torch.eye(3).to_sparse()}, sparse)
    for path, words in ((script, "a TorchScript program"), (exported, "a torch.export program"), (sparse, "_sparse")):
        ran = cli(photo, "-n", path, "-o", tmp_path / "out.png", code=7)
        assert "refused" in ran.err
        assert words in ran.err


def test_row_56_wrong_keys_name_the_first_five(tmp_path: Path) -> None:
    torch.save({f"layer{number}.odd": torch.zeros(2) for number in range(9)}, tmp_path / "odd.pth")
    with pytest.raises(
        ModelError, match=r"first keys: layer0\.odd, layer1\.odd, layer2\.odd, layer3\.odd, layer4\.odd\)"
    ):
        load_foreign(tmp_path / "odd.pth")


def test_row_57_wrong_shapes_name_key_and_both_shapes(esrgan: tuple[Path, nn.Module], tmp_path: Path) -> None:
    state = dict(esrgan[1].state_dict())
    key = next(name for name in state if name.endswith("weight") and "RDB2" in name)
    state[key] = torch.zeros(7, 5, 3, 3)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ModelError) as caught:
        load_foreign(tmp_path / "odd.pth")
    message = str(caught.value)
    assert key in message
    assert "[7, 5, 3, 3]" in message
    assert str(list(esrgan[1].state_dict()[key].shape)) in message


def test_row_58_truncated_and_overlapping_safetensors(
    compact: tuple[Path, nn.Module], tmp_path: Path, cli: Cli, photo: Path
) -> None:
    whole = compact[0].read_bytes()
    (tmp_path / "short.safetensors").write_bytes(whole[:-100])
    (tmp_path / "shorter.safetensors").write_bytes(whole[:30])
    header = (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
    )
    (tmp_path / "over.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 12)
    huge = b'{"a":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,399999999996]}}'
    (tmp_path / "huge.safetensors").write_bytes(struct.pack("<Q", len(huge)) + huge)
    for path in sorted(tmp_path.glob("*.safetensors")):
        ran = cli(photo, "-n", path, "-o", tmp_path / "out.png", code=7)
        assert "not a readable safetensors file" in ran.err


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_row_59_weights_that_are_not_finite_are_refused(
    compact: tuple[Path, nn.Module], tmp_path: Path, ending: str
) -> None:
    state = {key: value.clone() for key, value in compact[1].state_dict().items()}
    state["body.2.weight"][0, 0, 0, 0] = float("nan")
    path = tmp_path / f"bad.{ending}"
    torch.save(state, path) if ending == "pth" else save_file(state, path)
    with pytest.raises(ModelError, match=r"body\.2\.weight holds values that are not finite"):
        load_foreign(path)


def test_damaged_and_odd_files(tmp_path: Path) -> None:
    files = {
        "empty.pth": b"",
        "text.pth": b"hello",
        "torn.pth": b"\x80\x02}q\x00X",
        "zip.pth": zip_of({"readme.txt": b"x"}),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=name):
            load_tensors(tmp_path / name)
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="holds a list; expected a dictionary"):
        load_tensors(tmp_path / "list.pth")


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_without_spandrel_the_extra_is_named(esrgan: tuple[Path, nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from sr_upscale.pretrained import spandrel_adapter as foreign

    foreign._load.cache_clear()
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ModelError, match=r"pip install '\.\[models\]'"):
        load_foreign(esrgan[0])


# --- right pictures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "scale", "tile_size"), [("esrgan", 4, 0), ("esrgan", 4, 32), ("compact", 2, 0), ("span", 4, 0)]
)
def test_others_networks_give_their_own_output(
    kind: str, scale: int, tile_size: int, request: pytest.FixtureRequest
) -> None:
    """The same pixels as the module itself on the whole picture, within rounding; its halo is within the default."""
    path, module = request.getfixturevalue(kind)
    pixels = pattern(70, 83)
    assert traits_of(path).scale == scale
    image = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)[None]
    with torch.no_grad():
        expected = module(image).clamp(0, 1).mul(255).round()[0].permute(1, 2, 0).numpy()
    ours = Upscaler(path, dtype="fp32", tile_size=tile_size)(pixels)
    assert np.abs(ours - expected).max() <= 1
    assert ours.std() > 1


def test_sizes_are_padded_and_cropped_again(shared: Path) -> None:
    """CRAFT takes multiples of 16: any size comes out at exactly its factor."""
    craft = Upscaler(shared / "models" / "craft-x4.pth", dtype="fp32")
    for height, width in ((5, 7), (16, 17)):
        assert craft(pattern(height, width)).shape == (4 * height, 4 * width, 3)


def test_the_dial_of_scales_works_with_others(
    esrgan: tuple[Path, nn.Module], cli: Cli, photo: Path, tmp_path: Path
) -> None:
    assert cli(photo, "-n", esrgan[0], "-s", "2.5", "-o", tmp_path / "out.png").code == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == (52, 32)


@pytest.fixture
def cleaner(tmp_path: Path) -> Path:
    """A network of factor 1: a compact one."""
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact

    module = with_random_weights(SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=1))
    path = tmp_path / "cleaner.pth"
    torch.save({"params": module.state_dict()}, path)
    return path


def test_cleaning_first_and_enlarging_then(cleaner: Path, nearest: Path, cli: Cli, photo: Path, tmp_path: Path) -> None:
    """The chain equals the two steps one after the other."""
    pixels = np.asarray(Image.open(photo))
    clean = Upscaler(cleaner, dtype="fp32")(pixels)
    assert clean.shape == pixels.shape
    assert (clean != pixels).any()
    both = Upscaler(nearest, dtype="fp32", before=[cleaner])(pixels)
    expected = clean.repeat(2, 0).repeat(2, 1)
    assert np.abs(both.astype(int) - expected).max() <= 1
    assert cli(photo, "-n", nearest, "--before", cleaner, "-o", tmp_path / "o.png", "--fp32").code == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "o.png")), both)
    with pytest.raises(ModelError, match="enlarges x2; expected a model of factor 1"):
        Upscaler(nearest, before=[nearest])


def test_ours_are_recognised_among_safetensors(micro: Path, compact: tuple[Path, nn.Module]) -> None:
    assert traits_of(micro).architecture == "sr-upscale/inception-residual"
    assert traits_of(compact[0]).architecture == "RealESRGAN Compact"
    assert type(module_of(micro)) is type(load_generator(micro)[0])


def test_half_precision_only_where_it_is_supported(esrgan: tuple[Path, nn.Module]) -> None:
    upscaler = Upscaler(esrgan[0], dtype="bf16")
    assert upscaler.engine.networks.get(esrgan[0], "bfloat16").dtype is torch.bfloat16
    import dataclasses

    upscaler.engine.planner.traits[esrgan[0]] = dataclasses.replace(upscaler.engine.planner.traits[esrgan[0]], half=())
    assert upscaler.engine.networks.get(esrgan[0], "bfloat16").dtype is torch.float32


@pytest.mark.slow
def test_craft_scores_on_set5_what_it_scores_elsewhere(shared: Path) -> None:
    """32.39 dB through our own tiles (the checkpoint of the NTIRE 2024 entries)."""
    from sr_upscale.functional.color import to_tensor
    from sr_upscale.metrics.reference import psnr

    upscaler = Upscaler(shared / "models" / "craft-x4.pth", dtype="fp32", tile_size=64)
    scores = []
    for path in sorted((shared / "benchmarks").glob("**/Set5/image_SRF_4/*_HR.png")):
        hr, lr = (np.asarray(Image.open(each).convert("RGB")) for each in (path, str(path).replace("_HR", "_LR")))
        scores.append(psnr(to_tensor(upscaler(lr)), to_tensor(hr), crop_border=4, y_channel=True).item())
    assert np.mean(scores) == pytest.approx(32.39, abs=0.02)


# --- the dial ---------------------------------------------------------------------------------------


def test_models_without_a_twin_have_no_dial(cli: Cli, photo: Path, tmp_path: Path) -> None:
    ran = cli(photo, "-n", "psnr-x4", "--fidelity", "0.5", "-o", tmp_path / "o.png", code=2)
    assert "--fidelity is not available for psnr-x4" in ran.err
    with pytest.raises(UsageError, match="fidelity is 1.5; expected 0 to 1"):
        Upscaler("psnr-x4", fidelity=1.5)


def test_each_caller_gets_a_network_of_its_own(esrgan: tuple[Path, nn.Module]) -> None:
    """One moves it to a GPU while another runs it on the CPU."""
    first, second = module_of(esrgan[0]), module_of(esrgan[0])
    before = first(torch.ones(1, 3, 8, 8))
    second.to("meta")
    assert torch.equal(first(torch.ones(1, 3, 8, 8)), before)


def test_row_54_what_the_list_shows_is_what_the_stack_holds(tmp_path: Path) -> None:
    """Strings that are taken away again must not stand for those that a lookup uses; nor one archive for another."""
    text = lambda word: b"\x8c" + bytes((len(word),)) + word  # noqa: E731
    popped = b"\x80\x04" + b"".join(map(text, (b"os", b"system", b"collections", b"OrderedDict"))) + b"00\x93."
    path = tmp_path / "popped.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", popped)
    with pytest.raises(ModelError, match="refused: references names behind the instruction POP"):
        load_tensors(path)
    clean = io.BytesIO()
    with zipfile.ZipFile(clean, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
    legacy = io.BytesIO()
    torch.save({"x": Calls(os.system, "true")}, legacy, _use_new_zipfile_serialization=False)
    path.write_bytes(legacy.getvalue() + clean.getvalue())
    with pytest.raises(ModelError, match="refused: references (os|posix).system"):
        load_tensors(path)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
    with pytest.raises(ModelError, match="refused: a name stands twice in the archive"):
        load_tensors(path)


# --- files that only keep the computer busy ----------------------------------------------------------


def refused(path: Path, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        traits_of(path)


@pytest.mark.parametrize(
    ("shape", "claim"),
    [((60_000, 60_000), r"13\.4 GiB"), ((1 << 31, 1 << 31), r"17179869184\.0 GiB"), ((1 << 31, 1 << 30), "8589934592")],
    ids=["13 GiB", "2**64 bytes", "2**63 bytes"],
)
def test_row_57_tensors_that_repeat_one_number_are_refused(tmp_path: Path, shape: tuple[int, int], claim: str) -> None:
    """Their bytes are counted beyond 64 bits, where torch begins anew."""
    path = tmp_path / "repeated.pth"
    torch.save({"weight": torch.zeros(1).expand(shape)}, path)
    refused(path, f"its tensors claim {claim}.*, the file has 0 MiB")


@pytest.fixture
def never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a test fail where torch or spandrel are given the file that it refuses."""
    for module, name in ((torch, "load"), (spandrel.ModelLoader, "load_from_state_dict")):
        monkeypatch.setattr(module, name, lambda *_args, **_more: pytest.fail("it was loaded"))


@pytest.mark.usefixtures("never_loaded")
def test_a_zip_that_unpacks_to_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": bytes(64 << 20)}, protocol=2))
    refused(path, "refused: unpacks to 64 MiB, the file has ")


@pytest.mark.parametrize(
    ("layers", "most"), [([*range(6_000)], 10_000), ([0, 1, 1_025], 1_024)], ids=["very many", "numbered high"]
)
@pytest.mark.usefixtures("never_loaded")
def test_very_many_layers_are_refused(tmp_path: Path, layers: list[int], most: int) -> None:
    path = tmp_path / "deep.safetensors"
    state = {f"body.{number}.{name}": torch.zeros(4) for number in layers for name in ("weight", "bias")}
    save_file(state, path)
    refused(path, f"expected at most {most}")


@pytest.mark.usefixtures("never_loaded")
def test_archives_of_very_many_parts_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "parts.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        for number in range(20_000):
            archive.writestr(f"archive/data/{number}", b"")
    refused(path, "refused: 20001 parts; expected at most 20000")


@pytest.mark.usefixtures("never_loaded")
def test_pickles_of_very_many_instructions_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies behind the limit is not even read: those behind it are no instructions."""
    monkeypatch.setattr(safe_pickle, "MOST_STEPS", 1000)
    path = tmp_path / "long.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02]" + b"Na" * 500 + b"\xff" * 100_000)
    refused(path, "a pickle of more than 1000 instructions")


@pytest.mark.parametrize("name", [1, None, True, (1, 2), b"weight"], ids=repr)
def test_names_that_are_no_text_are_refused(tmp_path: Path, name: object) -> None:
    path = tmp_path / "named.pth"
    for content in ({name: torch.zeros(4)}, {"params": {name: torch.zeros(4), "x": torch.zeros(1)}}):
        torch.save(content, path)
        with pytest.raises(ModelError, match="name is not text|references _codecs"):
            traits_of(path)


ODD = [torch.zeros(0), torch.zeros(()), torch.zeros(1, 1, 1, 1, 1), torch.zeros(2, dtype=torch.bool), 1, None, "x", [1]]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: str(getattr(odd, "shape", odd)))
def test_odd_tensors_of_known_architectures_are_refused(
    compact: tuple[Path, nn.Module], esrgan: tuple[Path, nn.Module], tmp_path: Path, odd: object
) -> None:
    """Whatever spandrel makes of them; sizes are taken from the tensors, and divided by."""
    path = tmp_path / "odd.pth"
    for _, module in (compact, esrgan):
        for key in (name for name in module.state_dict() if name.endswith("weight")):
            torch.save({**module.state_dict(), key: odd}, path)
            with pytest.raises(ModelError):
                traits_of(path)
