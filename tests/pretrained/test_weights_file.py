import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from sr_upscale.errors import ModelError
from sr_upscale.models.generator import Generator, GeneratorConfig
from sr_upscale.pretrained.weights_file import WeightsInfo, load_generator, read_info, save_generator
from tests.helpers import micro_generator


@pytest.fixture
def own(tmp_path: Path) -> Path:
    save_generator(tmp_path / "m.safetensors", micro_generator(), WeightsInfo(name="m"))
    return tmp_path / "m.safetensors"


def rewrite(path: Path, change: object, metadata: dict[str, str] | None = None) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    state = load_file(path)
    change(state)  # type: ignore[operator]
    save_file(state, path, metadata=metadata or header)


@pytest.mark.parametrize("config", [{"scale": 4}, {"scale": 3, "upsampler": "nearest_conv"}], ids=str)
def test_the_file_alone_rebuilds_the_model(tmp_path: Path, config: dict[str, object]) -> None:
    model = Generator(GeneratorConfig(num_feat=8, num_blocks=2, **config))  # type: ignore[arg-type]
    info = WeightsInfo(
        name="mine",
        description="for a test",
        license="CC0-1.0",
        data="made up",
        date="2026-01-02",
        recipe={"seed": 3},
        scores={"set5": {"psnr_y": 31.5}},
    )
    path = tmp_path / "mine.safetensors"
    save_generator(path, model, info)
    again, found = load_generator(path)
    assert again.config == model.config
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    for name in ("name", "description", "license", "data", "date", "recipe", "scores"):
        assert getattr(found, name) == getattr(info, name)
    x = torch.rand(1, 3, 5, 6)
    with torch.inference_mode():
        assert torch.equal(again(x), model.eval()(x))


def test_header_is_read_without_torch(micro: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sr_upscale.pretrained.weights_file import read_info; "
        f"print(read_info(Path({str(micro)!r})).config['scale'], 'torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "2 False\n"
    )


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such weights file"):
        read_info(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.update({"extra": state.pop("head.bias")}),
            r"missing keys \['head.bias'\], unknown keys \['extra'\]",
        ),
        (
            lambda state: state.update({"head.bias": torch.zeros(9)}),
            r"head.bias has shape \(9,\); its configuration needs \(8,\)",
        ),
        (lambda state: state["head.bias"].fill_(float("nan")), "head.bias holds values that are not finite"),
        (lambda state: state.update({f"x{each}": torch.zeros(1) for each in range(10_001)}), "expected at most 10000"),
    ],
    ids=["keys", "shape", "nan", "many"],
)
def test_tensors_that_are_not_the_models_are_named(own: Path, change: object, message: str) -> None:
    rewrite(own, change)
    with pytest.raises(ModelError, match=message):
        load_generator(own)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda micro: micro[:-100], "get the file again"),
        (lambda _micro: struct.pack("<Q", 1 << 40) + b"{}", "not a readable safetensors file"),
        (
            lambda _micro: save({"w": torch.zeros(1)}, {"modelspec.architecture": "esrgan"}),
            "names esrgan; expected",
        ),
    ],
    ids=["cut", "header", "other"],
)
def test_other_files_are_refused(tmp_path: Path, micro: Path, content: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content(micro.read_bytes()))
    with pytest.raises(ModelError, match=message):
        load_generator(path)


def test_the_same_weights_make_the_same_bytes(tmp_path: Path) -> None:
    """A batch knows weights by their hash: a blend that is made again must not make all outputs anew."""
    info = WeightsInfo(name="mine", license="CC0-1.0", recipe={"b": 1, "a": 2})
    made = set()
    for number in range(4):
        save_generator(tmp_path / f"{number}.safetensors", micro_generator(2), info)
        made.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(made) == 1


ODD = [2.0, True, "2", None, [2], {}, 0, -1, 10**30, float("nan"), float("inf"), 1_000_000]


@pytest.mark.parametrize("value", ODD, ids=repr)
@pytest.mark.parametrize("key", ["scale", "num_feat", "num_blocks", "upsampler"])
def test_odd_configurations_are_refused_at_once(
    own: Path, key: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of a network that would take minutes to build."""
    metadata = WeightsInfo(name="m", config={**asdict(micro_generator().config), key: value}).to_metadata()
    rewrite(own, lambda _state: None, metadata)
    made: list[torch.nn.Module] = []
    begin = torch.nn.Module.__init__

    def counted(self: torch.nn.Module, *args: object, **more: object) -> None:
        made.append(self)
        begin(self, *args, **more)

    monkeypatch.setattr(torch.nn.Module, "__init__", counted)
    with pytest.raises(ModelError):
        load_generator(own)
    assert len(made) < 500


@pytest.mark.parametrize("part", ["config", "recipe", "scores"])
@pytest.mark.parametrize("text", ["null", "[]", "3", "{", "[" * 100_000, '{"scale": ' + "9" * 5000 + "}"])
def test_odd_headers_are_refused(own: Path, part: str, text: str) -> None:
    rewrite(own, lambda _state: None, WeightsInfo(name="m").to_metadata() | {f"sr_upscale.{part}": text})
    with pytest.raises(ModelError, match="the header is damaged"):
        read_info(own)
