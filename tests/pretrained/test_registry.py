"""Names of models, the catalogue, and what `sr-upscale models` does with them."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sr_upscale import upscaler
from sr_upscale.errors import ModelError, UsageError
from sr_upscale.models.generator import Generator, GeneratorConfig, gated_from_compact
from sr_upscale.pretrained import registry as store
from sr_upscale.pretrained.blend import blend_files, blended
from sr_upscale.pretrained.inventory import format_details, format_rows, model_row, model_rows
from sr_upscale.pretrained.registry import (
    CATALOGUE,
    RemoteWeights,
    StoredWeights,
    added,
    catalogue_entry,
    models_folder,
    resolve_weights,
)
from sr_upscale.pretrained.weights_file import WeightsInfo, load_generator, save_generator
from sr_upscale.storage.remote import RemoteFile
from sr_upscale.upscaler import Upscaler
from tests.helpers import Cli, micro_generator, pattern, serving


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "the-cache"
    monkeypatch.setenv("SR_UPSCALE_CACHE", str(folder))
    return folder


@pytest.fixture
def remote(nearest: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteWeights]:
    """A catalogue with one entry, served on loopback: weights that enlarge by nearest neighbour."""
    content = nearest.read_bytes()

    entry = RemoteWeights(
        name="2x-near",
        architecture="ours",
        scale=2,
        license="CC0-1.0",
        purpose="a test",
        file=RemoteFile(
            url="https://example.org/weights/Near_x2.safetensors",
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        ),
    )
    for module in ("sr_upscale.pretrained.registry", "sr_upscale.pretrained.inventory"):
        monkeypatch.setattr(f"{module}.CATALOGUE", (entry,))
    with serving(content) as server:
        monkeypatch.setenv("SR_UPSCALE_MIRROR", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield entry


def test_catalogue_equals_the_database(shared: Path) -> None:
    """Address, bytes, hash, factor and licence of every row stand in the catalogue that they were taken from."""
    text = [line for line in (shared / "models" / "catalogue.tsv").read_text().splitlines() if not line.startswith("#")]
    known = {row["sha256"]: row for row in csv.DictReader(text, delimiter="\t")}
    for entry in CATALOGUE:
        row = known[entry.file.sha256]
        assert entry.file.url == row["url"]
        assert entry.file.size == int(row["bytes"])
        assert entry.scale == int(row["scale"])
        assert entry.license == row["licence"]
        assert ",".join(entry.tags) == row["tags"]


def test_catalogue_is_sound() -> None:
    names = [entry.name for entry in CATALOGUE]
    assert len(names) == len(set(names)) >= 80
    known = [store.squashed(name) for name in store.known_names()]
    assert len(set(known)) == len(known)
    for entry in CATALOGUE:
        assert entry.file.url.startswith("https://")
        assert "NC" not in entry.license
        assert entry.name == entry.name.lower().replace("_", "-")
        assert entry.filename.endswith((".pth", ".safetensors"))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        *((name, "4x-hfa2k") for name in ("4xHFA2k", "4x_hfa2k", "4x-HFA2k.pth", "4XHFA2K.safetensors")),
        ("RealESRGAN_x4plus", "realesrgan-x4plus"),
        ("RealESRGAN_x4plus_anime_6B", "realesrgan-x4plus-anime-6b"),
    ],
)
def test_case_dashes_and_endings_do_not_matter(name: str, wanted: str) -> None:
    entry = catalogue_entry(name)
    assert entry is not None
    assert entry.name == wanted
    assert catalogue_entry(f"./{name}") is None


def test_a_file_with_the_ending_of_weights_wins_over_a_name(
    micro: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_weights("PSNR_x4.safetensors").name == "psnr-x4.safetensors"
    (tmp_path / "PSNR_x4.safetensors").write_bytes(micro.read_bytes())
    assert resolve_weights("PSNR_x4.safetensors") == Path("PSNR_x4.safetensors")


def test_a_family_works_in_every_command(cli: Cli, tmp_path: Path) -> None:
    """Where one file is needed it is the larger factor's."""
    assert json.loads(cli("models", "info", "Photo", "--json").out)["name"] == "photo-x4"
    assert Path(cli("models", "path", "psnr").out.strip()).name == "psnr-x4.safetensors"
    assert Path(cli("models", "download", "psnr").out.strip()).name == "psnr-x4.safetensors"
    cli("models", "blend", "psnr", "gan", "-o", tmp_path / "mix.safetensors", code=0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("waifu2x", "use anime, or 2x-modernspanimationv1"),
        ("4x-UltraSharp", "is not openly licensed; use 4x-"),
        ("Remacri", "or give its file"),
        ("GFPGANv1.4", "faces are not repaired"),
    ],
)
def test_names_of_other_programs_are_answered_with_what_to_use_here(
    cli: Cli, photo: Path, name: str, words: str
) -> None:
    ran = cli(photo, "-n", name, code=7)
    assert words in ran.err
    for advised in (
        "realesrgan-x4plus-anime-6b",
        "4x-hfa2k",
        "4x-nomoswebphoto-esrgan",
        "4x-nomos8ksc",
        "4x-lsdirplus",
    ):
        assert catalogue_entry(advised) is not None


def test_search_finds_by_purpose_tag_factor_and_licence(cli: Cli) -> None:
    found = json.loads(cli("models", "search", "Anime", "x2", "--json").out)["models"]
    assert {"2x-hfa2kavccompact", "2x-modernspanimationv1"} <= {row["name"] for row in found}
    assert all(row["scale"] == 2 for row in found)
    assert "1x-dejpg-realplksr-otf" in cli("models", "search", "jpeg", "1x").out
    assert "psnr-x4" in cli("models", "search", "faithful", "mit").out
    nothing = cli("models", "search", "nonsense", code=7)
    assert "there are ai-generated, anime" in nothing.err


def test_unknown_names_get_the_nearest_one() -> None:
    with pytest.raises(ModelError, match="did you mean realesrgan-x4plus"):
        resolve_weights("RealESRGAN_x4plux")


def test_first_use_says_the_licence_and_downloads(cli: Cli, remote: RemoteWeights, photo: Path, tmp_path: Path) -> None:
    listed = next(row for row in json.loads(cli("models", "--json").out)["models"] if row["name"] == remote.name)
    assert listed["installed"] is False
    assert listed["license"] == "CC0-1.0"
    dry = cli(photo, "-n", "2X_near", "--dry-run", code=2)
    assert "sr-upscale models download 2x-near" in dry.err
    offline = cli(photo, "-n", "2x-near", "-o", tmp_path / "o.png", "--offline", code=6)
    assert "offline" in offline.err
    assert "downloading" not in offline.err
    ran = cli(photo, "-n", "2X_near", "-o", tmp_path / "o.png", code=0)
    assert "2x-near: licence CC0-1.0; downloading" in ran.err
    expected = np.asarray(Image.open(photo)).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "o.png")), expected)
    again = cli(photo, "-n", "2x-near", "-o", tmp_path / "p.png", "--offline", code=0)
    assert again.err == ""


def test_download_path_verify_and_remove(cli: Cli, remote: RemoteWeights, cache: Path) -> None:
    ran = cli("models", "download", "2x-near", code=0)
    path = Path(ran.out.strip())
    assert path == cache / "models" / "2x-near.safetensors"
    assert cli("models", "path", "2x-near").out.strip() == str(path)
    assert cli("models", "path").out.strip() == str(models_folder())
    assert "ok  2x-near" in cli("models", "verify").out
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    bad = cli("models", "verify", code=7)
    assert "damaged: 2x-near" in bad.err
    assert cli("models", "remove", "2x-near").code == 0
    assert not path.exists()
    assert "is not in the cache" in cli("models", "remove", "2x-near").err
    assert "is built in" in cli("models", "remove", "psnr-x4").err


def test_info_says_what_is_known(cli: Cli, remote: RemoteWeights, micro: Path) -> None:
    told = json.loads(cli("models", "info", "2x-near", "--json").out)
    assert told["sha256"] == remote.file.sha256
    assert told["installed"] is False
    ours = json.loads(cli("models", "info", "psnr-x4", "--json").out)
    assert ours["scores"]["set5"]
    assert json.loads(cli("models", "info", micro, "--json").out)["scale"] == 2
    assert cli("models", "info", "nonsense").code == 7


def test_models_fit_into_80_columns(cli: Cli) -> None:
    """No line is longer, no word is broken, and what is built in is not marked as what can be removed."""
    rows = model_rows()
    lines = format_rows(rows, width=80)
    assert max(map(len, lines)) <= 80
    assert sorted(" ".join(lines).split()) == sorted(" ".join(format_rows(rows)).split())
    marks = {line[2:].split()[0]: line[0] for line in lines if line[0] in "*=+" and " MiB " in line}
    assert (marks["photo-x4"], marks["psnr-x4"]) == ("*", "=")
    details = format_details(model_row("psnr-x4"), width=80)
    assert max(map(len, details)) <= 80
    assert "{" not in "".join(details)
    assert all(line.split()[-1] not in ("bicubic", "model") for line in format_details(model_row("photo-x4")) if line)
    set5 = model_row("psnr-x4")["scores"]["set5"]
    row = next(line for line in details if line.startswith("set5") and "model" in line)
    wanted = [set5["psnr-x4"][name] for name in ("psnr_y", "ssim_y", "niqe", "vgg19_distance")]
    assert list(map(float, row.split()[2:])) == wanted
    assert "PSNR          on Y, in dB: higher is closer to the original" in cli("models", "info", "psnr").out
    assert "scale         1\n" in cli("models", "info", "1x-dejpg-realplksr-otf").out


def test_info_cannot_steer_a_terminal(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "m\x1b[2J.safetensors"
    save_generator(path, micro_generator(), WeightsInfo(name="m"))
    ran = cli("models", "info", path)
    assert (ran.code, "\x1b" in ran.out, "m\\x1b[2J" in ran.out) == (0, False, True)


def test_added_weights_are_used_by_name(cli: Cli, nearest: Path, photo: Path, tmp_path: Path) -> None:
    assert cli("models", "add", nearest, "--name", "mine").code == 0
    assert list(added()) == ["mine"]
    assert cli(photo, "-n", "mine", "-o", tmp_path / "o.png").code == 0
    assert "mine" in cli("models").out
    again = cli("models", "add", nearest, "--name", "mine", code=2)
    assert "use --force" in again.err
    assert cli("models", "add", nearest, "--name", "mine", "--force").code == 0
    assert cli("models", "add", nearest, "--name", "psnr-x4").code == 2
    assert cli("models", "add", nearest, "--name", "../out").code == 2
    for name in ("RealESRGAN_x4plus", "realesrgan-x4plus"):  # -n would take the catalogue's
        assert cli("models", "add", nearest, "--name", name).code == 2
    other = models_folder() / "added" / "mine.pth"
    other.write_bytes(b"of before")
    assert cli("models", "add", nearest, "--name", "mine", "--force").code == 0
    assert not other.exists()
    dotted = models_folder() / "added" / "mine.fp16.pth"
    dotted.write_bytes(b"another")
    assert cli("models", "add", nearest, "--name", "mine", "--force").code == 0
    assert dotted.exists()
    dotted.unlink()
    assert cli("models", "add", photo).code == 2
    assert cli("models", "remove", "mine").code == 0
    assert added() == {}


# --- blends -----------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two micro-models of one shape."""
    paths = tmp_path / "a-x2.safetensors", tmp_path / "b-x2.safetensors"
    for seed, path in enumerate(paths):
        save_generator(path, micro_generator(2, seed=seed), WeightsInfo(name=path.stem))
    return paths


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_blends_lie_where_they_should(pair: tuple[Path, Path], tmp_path: Path, alpha: float) -> None:
    blend_files(*pair, alpha, tmp_path / "out.safetensors")
    a, b, mixed = (load_generator(path)[0].state_dict() for path in (*pair, tmp_path / "out.safetensors"))
    for key, value in mixed.items():
        if alpha in (0.0, 1.0):
            assert torch.equal(value, (a, b)[int(alpha)][key])
        torch.testing.assert_close(value, (1 - alpha) * a[key] + alpha * b[key])


def test_a_shallower_network_blends_as_the_deeper_one_that_it_is(tmp_path: Path) -> None:
    deep, shallow = micro_generator(2, blocks=3), micro_generator(2, blocks=1, seed=1)
    paths = tmp_path / "deep.safetensors", tmp_path / "shallow.safetensors"
    for path, network in zip(paths, (deep, shallow), strict=True):
        save_generator(path, network, WeightsInfo(name=path.stem))
    x = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for order, alpha in ((paths, 1.0), (paths[::-1], 0.0)):
            blend_files(*order, alpha, tmp_path / "out.safetensors")
            mixed = load_generator(tmp_path / "out.safetensors")[0]
            assert mixed.config == deep.config
            assert torch.equal(mixed(x), shallow(x))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_outputs_of_two_architectures_are_blended(micro: Path, tmp_path: Path, alpha: float) -> None:
    """Another block, other sizes: what users get is the mean of both answers, in tiles, too."""
    torch.manual_seed(2)
    other = Generator(GeneratorConfig(scale=2, num_feat=6, num_blocks=3, block="gated"))
    save_generator(tmp_path / "gated.safetensors", other, WeightsInfo(name="gated"))
    blend_files(micro, tmp_path / "gated.safetensors", alpha, tmp_path / "out.safetensors")
    pixels = pattern(40, 33)
    first, second, both = (
        Upscaler(path, dtype="fp32", tile_size=tile)(pixels).astype(float)
        for path, tile in ((micro, None), (tmp_path / "gated.safetensors", None), (tmp_path / "out.safetensors", 16))
    )
    inside = (first > 0) & (first < 255) & (second > 0) & (second < 255)  # outputs are blended before they are clipped
    assert inside.mean() > 0.2
    assert np.abs(both - ((1 - alpha) * first + alpha * second))[inside].max() <= 1
    (tmp_path / "out.safetensors").write_bytes((tmp_path / "out.safetensors").read_bytes().replace(b"gated", b"grate"))
    with pytest.raises(ModelError, match="blend is damaged"):
        Upscaler(tmp_path / "out.safetensors")


def test_the_denoise_dial_blends_with_the_sibling_that_keeps_noise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both started as compact networks: a place of the dial has the mean of their weights, bit for bit."""
    states = []
    for seed, name in enumerate(("noisy.pth", "clean.pth")):
        torch.manual_seed(seed)
        body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 8, 3), nn.PReLU(8), nn.Conv2d(8, 12, 3)
        )  # fmt: skip
        states.append({f"body.{key}": value for key, value in body.state_dict().items()})
        torch.save({"params": states[-1]}, tmp_path / name)
    save_generator(tmp_path / "a-x2.safetensors", gated_from_compact(states[1]), WeightsInfo(name="a-x2"))
    monkeypatch.setattr(store, "weights_folder", lambda: tmp_path)
    row = StoredWeights(name="a-x2", scale=2, purpose="cleans", noisy=str(tmp_path / "noisy.pth"))
    for module in (store, upscaler):
        monkeypatch.setattr(module, "TABLE", (row, StoredWeights(name="b-x2", scale=2, purpose="has no sibling")))
    mean = gated_from_compact({key: states[1][key].lerp(states[0][key], 0.75) for key in states[0]})
    save_generator(tmp_path / "mean.safetensors", mean, WeightsInfo(name="mean"))
    pixels = pattern(12, 14)
    np.testing.assert_array_equal(
        Upscaler("a-x2", dtype="fp32", denoise=0.25)(pixels),
        Upscaler(tmp_path / "mean.safetensors", dtype="fp32")(pixels),
    )
    np.testing.assert_array_equal(Upscaler("a-x2", denoise=1.0)(pixels), Upscaler("a-x2")(pixels))
    save_generator(tmp_path / "b-x2.safetensors", micro_generator(2), WeightsInfo(name="b-x2"))
    with pytest.raises(UsageError, match="--denoise is not available for b-x2"):
        Upscaler("b-x2", denoise=0.5)
    with pytest.raises(UsageError, match="denoise is 1.5; expected 0 to 1"):
        Upscaler("a-x2", denoise=1.5)


def test_blends_are_cached_by_content(pair: tuple[Path, Path], cache: Path) -> None:
    first = blended(*pair, 0.5)
    assert first.is_relative_to(cache)
    before = first.stat().st_mtime_ns
    assert blended(*pair, 0.5) == first
    assert first.stat().st_mtime_ns == before
    assert blended(*pair, 0.6) != first
    save_generator(pair[1], micro_generator(2, seed=7), WeightsInfo(name="b-x2"))
    assert blended(*pair, 0.5) != first


def test_blend_command(cli: Cli, pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "mix.safetensors"
    assert cli("models", "blend", *pair, "--alpha", "0.3", "-o", out).code == 0
    assert load_generator(out)[1].recipe["blend"][1] == {"name": "b-x2", "share": 0.3}
    assert cli("models", "blend", *pair, "-o", out).code == 5
    assert cli("models", "blend", *pair, "-o", tmp_path / "mix.png").code == 2
    assert cli("models", "blend", *pair, "-o", out, "--alpha", "2", "--force").code == 2
    other = tmp_path / "other.safetensors"
    save_generator(other, micro_generator(4), WeightsInfo(name="other"))
    ran = cli("models", "blend", pair[0], other, "-o", tmp_path / "no.safetensors", code=7)
    assert "enlarges x2" in ran.err
    assert "expected one scale" in ran.err


def test_the_dial_goes_from_the_model_to_its_twin(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """0 is the model, 1 the twin, bit for bit; a half lies between."""
    monkeypatch.setattr(store, "weights_folder", lambda: tmp_path)
    rows = (
        StoredWeights(name="a-x2", scale=2, purpose="sharp", twin="b-x2"),
        StoredWeights(name="b-x2", scale=2, purpose="faithful"),
    )
    monkeypatch.setattr(store, "TABLE", rows)
    pixels = pattern(12, 14)
    plain = {name: Upscaler(name, dtype="fp32")(pixels).astype(int) for name in ("a-x2", "b-x2")}
    at = {dial: Upscaler("a", dtype="fp32", fidelity=dial)(pixels).astype(int) for dial in (0.0, 0.5, 1.0)}
    np.testing.assert_array_equal(at[0.0], plain["a-x2"])
    np.testing.assert_array_equal(at[1.0], plain["b-x2"])
    assert 0 < np.abs(at[0.5] - at[0.0]).mean() < np.abs(at[1.0] - at[0.0]).mean() * 1.5


def test_a_cached_file_that_is_another_is_refused(cli: Cli, remote: RemoteWeights, photo: Path, micro: Path) -> None:
    """Once in a process its hash is looked at; another network under the name would run without a word."""
    assert cli(photo, "-n", remote.name, "-o", photo.with_name("a.png")).code == 0
    cached = store.cached_path(remote)
    cached.write_bytes(micro.read_bytes())
    ran = cli(photo, "-n", remote.name, "-o", photo.with_name("b.png"), code=7)
    assert f"expected sha256 {remote.file.sha256}" in ran.err
    assert "sr-upscale models remove 2x-near" in ran.err
    assert not photo.with_name("b.png").exists()


def test_a_file_that_happens_to_have_a_name_of_the_catalogue_does_not_win(
    remote: RemoteWeights, micro: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / remote.name).write_bytes(micro.read_bytes())
    assert resolve_weights(remote.name) == store.cached_path(remote)
    assert resolve_weights(f"./{remote.name}") == Path(remote.name)


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000, "no\x1b[31mthing"])
def test_absurd_names_are_one_line(cli: Cli, photo: Path, name: str) -> None:
    ran = cli(photo, "-n", name, code=7)
    assert "no model named" in ran.err
    assert len(ran.err) < 600
    assert "\x1b" not in ran.err


def test_a_cache_that_cannot_be_written_is_named_by_its_variable(
    cli: Cli, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SR_UPSCALE_CACHE", str(photo / "cache"))
    ran = cli(photo, "-n", "gan", "--fidelity", 0.5)
    assert (ran.code, "its parent is not a folder; choose another with SR_UPSCALE_CACHE" in ran.err) == (5, True)
