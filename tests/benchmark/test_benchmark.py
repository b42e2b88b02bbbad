"""Data sets, scores like the papers', tables and the report."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from sr_upscale.benchmark.methods import count, host_peak_bytes, make_method
from sr_upscale.benchmark.metrics import Pair, load_metrics
from sr_upscale.benchmark.report import page
from sr_upscale.benchmark.run import Protocol, Results, Summary, run_benchmark
from sr_upscale.benchmark.sets import NAMES, PicturePair, folder_set, load_pair, manifest, named_set
from sr_upscale.benchmark.tables import datasets_of, published, to_csv, to_latex, to_markdown, to_text
from sr_upscale.errors import InputError, IntegrityError, UsageError
from sr_upscale.formatting import extra
from sr_upscale.functional.color import to_pixels, to_tensor
from sr_upscale.functional.resize import downscale_matlab, resize
from sr_upscale.metrics.reference import psnr
from tests.helpers import Cli, micro_generator, pattern, serving


@pytest.fixture
def hr_folder(tmp_path: Path) -> Path:
    """Three HR pictures, one of them gray, with sides that do not divide by 2."""
    folder = tmp_path / "hr"
    folder.mkdir()
    for index in range(2):
        Image.fromarray(np.roll(pattern(49, 61), 9 * index, axis=1)).save(folder / f"{index}.png")
    Image.fromarray(pattern(41, 43, 1)[:, :, 0]).save(folder / "gray.png")
    return folder


# --- data sets --------------------------------------------------------------------------------------


def test_manifest_equals_the_repositorys(shared: Path) -> None:
    rows = [
        line.split("\t")
        for line in (shared / "benchmarks" / "selfexsr-manifest.tsv").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    for name, scale, count_ in (("set5", 4, 10), ("set14", 2, 28), ("bsd100", 3, 200), ("urban100", 4, 200)):
        files = manifest(name, scale)
        assert len(files) == count_
        for path, size, sha256 in rows:
            if path in files:
                assert (files[path].size, files[path].sha256) == (int(size), sha256)
    assert "/8f6dd8c1d20cb7e8792a7177b4f6fd677633f598/data/Set5/" in next(iter(manifest("set5", 4).values())).url


def test_what_there_is_not() -> None:
    with pytest.raises(UsageError, match="urban100 has no LR files at x3; expected x2, x4"):
        manifest("urban100", 3)


def test_folders_of_hr_and_of_both(hr_folder: Path, tmp_path: Path) -> None:
    pairs = folder_set(hr_folder)
    hr, lr = load_pair(pairs[0], 2, gray_as_rgb=True)
    assert hr.shape == (48, 60, 3)
    np.testing.assert_array_equal(lr, to_pixels(downscale_matlab(to_tensor(hr), 2), np.dtype(np.uint8)))
    gray = next(pair for pair in pairs if pair.name == "gray")
    assert load_pair(gray, 2, gray_as_rgb=False)[0].shape == (40, 42, 1)
    assert load_pair(gray, 2, gray_as_rgb=True)[1].shape == (20, 21, 3)
    lr_folder = tmp_path / "lr"
    lr_folder.mkdir()
    for pair in pairs:
        Image.fromarray(np.full((24, 30, 3), 7, np.uint8)).save(lr_folder / f"{pair.name}x2.png")
    both = folder_set(hr_folder, lr_folder)
    assert (load_pair(both[0], 2, gray_as_rgb=True)[1] == 7).all()
    with pytest.raises(InputError, match="gray: LR is 30x24 and HR 42x40; expected a factor of 2"):
        load_pair(next(pair for pair in both if pair.name == "gray"), 2, gray_as_rgb=True)
    (lr_folder / "grayx2.png").unlink()
    with pytest.raises(InputError, match="holds 3 pictures and .* 2; expected as many"):
        folder_set(hr_folder, lr_folder)
    with pytest.raises(InputError, match="no such folder; expected one of set5"):
        folder_set(tmp_path / "none")


@pytest.fixture
def mirror(shared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """The shared benchmarks on a loopback server, a cold cache; what was asked for."""
    with serving(lambda path: (shared / "benchmarks" / unquote(path).lstrip("/")).read_bytes()) as served:
        monkeypatch.setenv("SR_UPSCALE_MIRROR", served.url)
        monkeypatch.setenv("SR_UPSCALE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield served.asked


def test_cold_cache_then_offline(mirror: list[str], cli: Cli) -> None:
    argv = ["benchmark", "--dataset", "set5", "--model", "bicubic", "--json"]
    ran = cli(*argv, code=0)
    assert len(mirror) == 10
    (summary,) = json.loads(ran.out)["summaries"]
    assert summary["psnr"] == pytest.approx(28.42, abs=0.02)
    assert summary["ssim"] == pytest.approx(0.8104, abs=0.001)
    cli(*argv, "--offline", code=0)
    assert len(mirror) == 10


def test_a_wrong_byte_in_the_cache_is_fetched_again(mirror: list[str], cli: Cli, tmp_path: Path) -> None:
    assert cli("benchmark", "--dataset", "set5", "--model", "bicubic").code == 0
    cached = next((tmp_path / "cache").glob("**/Set5/image_SRF_4/img_003_SRF_4_LR.png"))
    cached.write_bytes(cached.read_bytes()[:-1] + b"\0")
    assert cli("benchmark", "--dataset", "set5", "--model", "bicubic").code == 0
    assert len(mirror) == 11


def test_a_killed_download_goes_on(mirror: list[str], tmp_path: Path) -> None:
    """SIGKILL when some files are there: the next run asks only for the rest."""
    words = ["benchmark", "--dataset", "set14", "--model", "bicubic", "--limit", "1"]
    command = [sys.executable, "-m", "sr_upscale", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(mirror) < 9 and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = len(list((tmp_path / "cache").glob("**/Set14/**/*.png")))
    assert there < 28
    mirror.clear()
    assert subprocess.run(command, capture_output=True, check=True).returncode == 0
    assert len(mirror) <= 28 - there
    assert len(list((tmp_path / "cache").glob("**/Set14/**/*.png"))) == 28


# --- measuring --------------------------------------------------------------------------------------


def pairs_of(folder: Path) -> dict[str, list[PicturePair]]:
    return {"mine": folder_set(folder)}


def test_scores_are_the_metrics_of_the_pictures(hr_folder: Path, nearest: Path) -> None:
    """Means over pictures of what the metrics say of LR repeated twice, computed here by hand."""
    protocol = Protocol(scale=2, crop_border=2)
    seen: dict[str, list[str]] = {}
    methods = [make_method("bicubic", 2), make_method(str(nearest), 2, dtype="fp32")]
    results = run_benchmark(
        pairs_of(hr_folder), methods, protocol, on_picture=lambda _set, name, images: seen.update({name: list(images)})
    )
    expected = []
    for pair in folder_set(hr_folder):
        hr, lr = load_pair(pair, 2, gray_as_rgb=True)
        twice = to_tensor(lr.repeat(2, 0).repeat(2, 1))
        expected.append(psnr(twice, to_tensor(hr), crop_border=2, y_channel=True).item())
    ours = results.summaries[1]
    assert ours.scores["psnr"] == pytest.approx(np.mean(expected), abs=1e-3)
    assert ours.pictures == 3
    assert ours.parameters == sum(p.numel() for p in micro_generator(2, blocks=1).parameters())
    assert ours.host_bytes is not None
    assert 0 < ours.host_bytes < 2**31
    assert ours.mpix_per_s_low <= ours.mpix_per_s <= ours.mpix_per_s_high
    assert seen["0"] == ["HR", "bicubic", "nearest-x2"]
    assert results.summaries[0].scores["psnr"] > ours.scores["psnr"]


def test_rgb_and_border_are_honoured(hr_folder: Path) -> None:
    bicubic = [make_method("bicubic", 2)]
    for channel, border in (("y", 2), ("rgb", 0)):
        protocol = Protocol(scale=2, channel=channel, crop_border=border)
        scores = run_benchmark(pairs_of(hr_folder), bicubic, protocol).scores
        for pair, score in zip(folder_set(hr_folder), scores, strict=True):
            hr, lr = load_pair(pair, 2, gray_as_rgb=True)
            sr = to_pixels(resize(to_tensor(lr), hr.shape[:2]), np.dtype(np.uint8))
            settings = {"crop_border": border, "y_channel": channel == "y"}
            expected = psnr(to_tensor(sr), to_tensor(hr), **settings).item()  # type: ignore[arg-type]
            assert score.scores["psnr"] == pytest.approx(expected)
        assert ("SSIM on RGB of" in str(protocol)) == (channel == "rgb")
        assert f"border of {border}" in str(protocol)


def test_ms_ssim_of_flat_pictures_is_its_closed_form() -> None:
    """Without structure, what is left is the luminance term of the coarsest scale, to the power of its weight."""
    pytest.importorskip("piq", reason="the extra ms-ssim")
    score = load_metrics({"ms_ssim": ""})["ms_ssim"]

    def of(first: int, second: int, side: int = 176) -> float | None:
        flat = [np.full((side, side + 9, 1), value, np.uint8) for value in (first, second)]
        return score(Pair(flat[0], flat[1], crop_border=4, y_channel=True))

    a, b, c = 60 / 255, 100 / 255, 0.01**2
    assert of(60, 100) == pytest.approx(((2 * a * b + c) / (a * a + b * b + c)) ** 0.1333, abs=1e-4)
    assert of(60, 60) == pytest.approx(1)
    assert of(60, 100, side=168) is None  # 160 are left, and four halvings leave less than the window of 11


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("lips", "--metric is 'lips'; expected ms_ssim, vgg19=FILE, lpips=alex|vgg, cer=LANGUAGE"),
        ("ms_ssim,lpips", "--metric is 'lpips'; expected lpips=alex|vgg"),
        ("ms_ssim=2", "--metric is 'ms_ssim=2'; expected ms_ssim"),
        ("lpips=squeeze", "LPIPS backbone is 'squeeze'; expected alex or vgg"),
    ],
)
def test_a_metric_that_does_not_exist_is_refused(cli: Cli, hr_folder: Path, metric: str, message: str) -> None:
    ran = cli("benchmark", "--dataset", hr_folder, "--model", "bicubic", "-s", "2", "--metric", metric)
    assert (ran.code, ran.err) == (2, f"sr-upscale: {message}\n")


def test_operations_are_counted_as_the_design_states_them() -> None:
    """0.83 M multiply-adds for an LR pixel of psnr-x4, so 47.7 G for 1280x720."""
    from sr_upscale.pretrained.registry import resolve_weights

    parameters, macs = count(resolve_weights("psnr-x4"), 4)
    assert parameters == 828_208
    assert macs == pytest.approx(0.828e6 * 320 * 180, rel=0.01)


def test_model_must_have_the_scale(micro: Path) -> None:
    with pytest.raises(UsageError, match="enlarges x2, and x4 is measured"):
        make_method(str(micro), 4)


# --- output -----------------------------------------------------------------------------------------


def test_command_writes_everything(cli: Cli, hr_folder: Path, micro: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = cli("benchmark", "--dataset", hr_folder, "--model", f"bicubic,{micro}", "-s", "2", "-o", out, code=0)
    assert "bicubic" in ran.out
    assert "protocol: x2; PSNR and SSIM on Y" in ran.out
    rows = list(csv.DictReader(io.StringIO((out / "pictures.csv").read_text())))
    assert len(rows) == 6
    data = json.loads((out / "results.json").read_text())
    mean = np.mean([float(row["psnr"]) for row in rows if row["method"] == "micro-x2"])
    assert data["summaries"][1]["psnr"] == pytest.approx(mean)
    assert "| micro-x2 |" in (out / "results.md").read_text()
    assert " micro-x2 & " in (out / "results.tex").read_text()
    html = (out / "report.html").read_text()
    inside = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])  # type: ignore[index]
    assert [entry["name"] for entry in inside["gallery"][0]["images"]] == ["bicubic", "micro-x2", "HR"]
    scores = [float(entry["images"][1]["scores"].split(" dB")[0]) for entry in inside["gallery"]]
    assert scores == sorted(scores)  # the worst first
    assert not re.search(r"(src|href)=[\"']?https?:|url\(https?:|@import", html)
    again = cli("benchmark", "--dataset", hr_folder, "--model", "bicubic", "-s", "2", "-o", out, code=5)
    assert "report.html: exists; add --force" in again.err


def test_weights_of_one_name_get_their_paths_as_names(cli: Cli, hr_folder: Path, micro: Path, tmp_path: Path) -> None:
    """A model and what a run made of it: both are called micro-x2."""
    (tmp_path / "run").mkdir()
    other = shutil.copy(micro, tmp_path / "run")
    ran = cli(
        "benchmark", "--dataset", hr_folder, "--model", f"{micro},{other}", "-s", "2", "--limit", "1", "--json", code=0
    )
    summaries = json.loads(ran.out.splitlines()[-1])["summaries"]
    assert [row["method"] for row in summaries] == [str(Path(each).with_suffix("")) for each in (micro, other)]
    same = cli("benchmark", "--dataset", hr_folder, "--model", "bicubic,bicubic", "-s", "2")
    assert (same.code, "two of them have the same name" in same.err) == (2, True)


def test_published_scores_are_marked_and_never_mixed(hr_folder: Path) -> None:
    results = run_benchmark(
        {"set5": folder_set(hr_folder)}, [make_method("bicubic", 4)], Protocol(scale=4, crop_border=4)
    )
    plain, with_published = to_text(results), to_text(results, with_published=True)
    assert "IMDN" not in plain
    line = next(line for line in with_published.splitlines() if "IMDN" in line)
    assert "published" in line
    assert "32.21" in line
    assert "published" in next(
        line for line in to_markdown(results, with_published=True).splitlines() if "IMDN" in line
    )
    assert "IMDN" not in to_csv(results.scores)
    assert datasets_of(results) == ["set5"]


def test_latex_reads_back_as_the_scores(hr_folder: Path) -> None:
    """Names of every character that LaTeX takes for its own, parsed by rules of its manual that stand here alone."""
    results = of_methods({"a_b & 50% {x}": 30.1249, "~^\\\\$#<>": 31.5})
    text = to_latex(results, with_published=True)
    assert text.count("\\begin{table}") == text.count("\\end{table}") == text.count("\\bottomrule") == 1
    assert "\\label{tab:set5-x4}" in text
    body = re.search(r"\\toprule\n(.*)\\bottomrule", text, re.S)
    assert body is not None
    rows = [latex_cells(line) for line in body[1].splitlines() if line.endswith(r"\\")]
    assert rows[0][:3] == ["model", "PSNR, dB ↑", "SSIM ↑"]
    assert [(row[0], row[1]) for row in rows[1:3]] == [("a_b & 50% {x}", "30.12"), ("~^\\\\$#<>", "31.50")]
    shape = re.search(r"\\begin{tabular}{(l)(r+)}", text)
    assert shape is not None
    assert {len(row) for row in rows} == {1 + len(shape[2])}
    authors = {row[0].split(" (")[0]: row for row in rows[3:]}
    assert authors["RRDB-PSNR"][0].endswith(", published")
    assert authors["RRDB-PSNR"][1:3] == ["32.73", "0.9011"]
    assert "published" not in to_latex(results)
    assert "PSNR and SSIM on Y (BT.601, 16-235)" in text


def latex_cells(line: str) -> list[str]:
    """Reads a row of a table: cells end at an ampersand that no backslash precedes."""
    words = {
        "$\\uparrow$": "↑",
        "$\\downarrow$": "↓",
        "\\textbackslash{}": "\\",
        "\\textasciitilde{}": "~",
        "\\textasciicircum{}": "^",
        "\\textless{}": "<",
        "\\textgreater{}": ">",
    }
    pattern_of = "|".join(map(re.escape, words)) + r"|\\([&%$#_{}])|([\\~^$#_%{}])"

    def plain(match: re.Match[str]) -> str:
        assert not match[2], f"a bare {match[2]} in {line}"
        return match[1] or words[match[0]]

    return [re.sub(pattern_of, plain, cell).strip() for cell in re.split(r"(?<!\\)&", line[:-2])]


def of_methods(decibels: dict[str, float]) -> Results:
    """Results on Set5 without a run; the second method has twice the speed of the first, and so on."""
    environment = {"sr-upscale": "1", "torch": "2", "processor": "a processor"}
    summaries = tuple(
        Summary(
            dataset="set5",
            method=name,
            pictures=5,
            scores={"psnr": value, "ssim": 0.9},
            mpix_per_s=2.0**number,
            mpix_per_s_low=0.9 * 2.0**number,
            mpix_per_s_high=1.2 * 2.0**number,
            host_bytes=None,
            device_bytes=None,
            parameters=0,
            macs_720p=0,
            device="cpu",
            dtype="float32",
        )
        for number, (name, value) in enumerate(decibels.items())
    )
    protocol = Protocol(scale=4, crop_border=4)
    return Results(protocol=protocol, environment=environment, scores=(), summaries=summaries)


def test_plots_show_the_methods_at_their_scores() -> None:
    pytest.importorskip("matplotlib", reason="the extra plots")
    from sr_upscale.benchmark.report import plot_files

    files = plot_files(of_methods({"slow & good": 32.0, "middle": 31.0, "quick": 28.0, "exact": math.inf}))
    assert set(files) == {"speed-set5.svg", "speed-set5.png"}
    tree = ElementTree.fromstring(files["speed-set5.svg"])
    name = "{http://www.w3.org/2000/svg}"
    texts = ["".join(each.itertext()).strip() for each in tree.iter(f"{name}text")]
    assert {"slow & good", "middle", "quick", "set5, x4", "PSNR on Y, dB"} <= set(texts)
    assert "exact" not in texts  # its PSNR is infinite
    legend = {id(use) for group in tree.iter(f"{name}g") if group.get("id") == "legend_1" for use in group.iter()}
    drawn: dict[str | None, list[tuple[float, float]]] = {}
    for use in tree.iter(f"{name}use"):
        if id(use) not in legend and use.get("style", "").startswith("fill: #"):
            shape = use.get("{http://www.w3.org/1999/xlink}href")
            drawn.setdefault(shape, []).append((float(use.get("x", "")), float(use.get("y", ""))))
    x, y = zip(*sorted(spots[0] for spots in drawn.values() if len(spots) == 1), strict=True)
    assert len(x) == 3
    assert (x[1] - x[0]) == pytest.approx(x[2] - x[1], rel=1e-3)  # each twice as quick, on a scale of logarithms
    assert (y[2] - y[1]) == pytest.approx(3 * (y[1] - y[0]), rel=1e-3)  # 1 dB below, and 3 dB below that
    picture = Image.open(io.BytesIO(files["speed-set5.png"]))
    assert picture.size == (1040, 680)
    assert len(set(picture.convert("RGB").get_flattened_data())) > 50
    assert plot_files(of_methods({"middle": 31.0})) == plot_files(of_methods({"middle": 31.0}))


def test_plots_need_a_folder_and_their_library(
    cli: Cli, hr_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("benchmark", "--dataset", hr_folder, "--model", "bicubic", "-s", "2", "--plots")
    ran = cli(*words)
    assert (ran.code, ran.err) == (2, "sr-upscale: --plots are files of --out; give -o a folder\n")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran = cli(*words, "-o", tmp_path / "out")
    answer = f"sr-upscale: --plots needs an extra; {extra('plots')}\n"
    assert (ran.code, ran.err) == (2, answer)
    assert not (tmp_path / "out").exists()


def test_published_table_agrees_with_its_source() -> None:
    """A few rows of the papers, typed again."""
    table = {(row["name"].split(" (")[0], row["scale"]): row["scores"] for row in published()}
    assert table["RRDB-PSNR", 4]["set5"] == [32.73, 0.9011]
    assert table["IMDN", 4]["urban100"] == [26.04, 0.7838]
    assert table["SwinIR-light", 2]["set14"] == [33.86, 0.9206]
    assert all(row["source"] and set(row["scores"]) <= set(NAMES) for row in published())


def test_names_cannot_break_the_page() -> None:
    html = page("</title><b>", [], pictures=[["</script><script>alert(1)</script>"]], pictureHeadings=["x"])
    assert "<b>" not in html
    assert html.count("</script>") == 2
    assert "</script><script>alert" not in html


def test_compare_writes_a_page(cli: Cli, micro: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.html"
    ran = cli(
        "compare", photo, "--model", "bicubic", "--model", micro, "-s", "2", "--crop", "2,1,12,10", "-o", out, code=0
    )
    inside = json.loads(re.search(r'id="data">(.*?)</script>', out.read_text(), re.S)[1])  # type: ignore[index]
    (picture,) = inside["gallery"]
    assert (picture["width"], picture["height"]) == (24, 20)
    assert [entry["name"] for entry in picture["images"]] == ["input", "bicubic", "micro-x2"]
    assert cli("compare", photo, "-o", photo, "--force").code == 2
    twin = tmp_path / "twin" / micro.name
    twin.parent.mkdir()
    twin.write_bytes(micro.read_bytes())
    ran = cli("compare", photo, "--model", micro, "--model", twin, "-s", "2", "-o", tmp_path / "e.html", "--json")
    assert len(json.loads(ran.out)["models"]) == 2
    assert cli("compare", photo, "--crop", "0,0,99,9", "-o", tmp_path / "d.html").code == 2
    assert cli("compare", photo, "--crop", "a", "-o", tmp_path / "d.html").code == 2
    assert cli("compare", photo, "-o", out).code == 5


# --- like the papers (slow) -------------------------------------------------------------------------

PAPERS = {
    ("set5", 4, True): (28.42, 0.8104),
    ("set5", 3, True): (30.39, 0.8682),
    ("set5", 2, True): (33.66, 0.9299),
    ("set14", 4, False): (26.00, 0.7027),
    ("set14", 3, False): (27.55, 0.7742),
    ("set14", 2, False): (30.24, 0.8688),
    ("set14", 4, True): (26.09, None),
    ("set14", 3, True): (27.63, None),
    ("set14", 2, True): (30.33, None),
}
"""Published PSNR and SSIM of bicubic, by set, factor, and whether gray is read as RGB."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale", "gray_as_rgb"), list(PAPERS))
@pytest.mark.parametrize("own_lr", [False, True])
def test_bicubic_scores_like_the_papers(shared: Path, name: str, scale: int, gray_as_rgb: bool, own_lr: bool) -> None:
    pairs = named_set(name, scale, cache=Path("never"), root=shared / "benchmarks")
    protocol = Protocol(scale=scale, crop_border=scale, gray_as_rgb=gray_as_rgb, own_lr=own_lr)
    (summary,) = run_benchmark({name: pairs}, [make_method("bicubic", scale)], protocol).summaries
    decibels, similarity = PAPERS[name, scale, gray_as_rgb]
    assert summary.scores["psnr"] == pytest.approx(decibels, abs=0.05 if own_lr else 0.02)
    if similarity is not None:
        assert summary.scores["ssim"] == pytest.approx(similarity, abs=0.002 if own_lr else 0.001)
    assert not math.isnan(summary.scores["psnr"])


def test_a_damaged_local_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "Set5" / "image_SRF_4"
    folder.mkdir(parents=True)
    for path in manifest("set5", 4):
        Image.fromarray(pattern(8, 8)).save(folder / Path(path).name)
    with pytest.raises(IntegrityError, match=r"img_001_SRF_4_HR\.png: expected sha256"):
        named_set("set5", 4, cache=tmp_path, root=tmp_path)
    with pytest.raises(InputError, match="no Set14/image_SRF_4/.* below it"):
        named_set("set14", 4, cache=tmp_path, root=tmp_path)


def test_odd_pictures_do_not_lose_the_run(cli: Cli, tmp_path: Path) -> None:
    """One too small for SSIM is left out; an exact output has no number in JSON; flat ones have no NIQE."""
    folder = tmp_path / "hr"
    folder.mkdir()
    Image.fromarray(np.full((12, 12, 3), 9, np.uint8)).save(folder / "icon.png")
    Image.fromarray(np.full((200, 300, 3), 128, np.uint8)).save(folder / "flat.png")
    (folder / "phone.heic").write_bytes(b"not read")
    ran = cli(
        "benchmark", "--dataset", folder, "--model", "bicubic", "-s", "2", "-o", tmp_path / "out", "--json", code=0
    )
    assert "left out: hr icon: 12x12 without a border of 2 is smaller than the 11 pixels of SSIM" in ran.err
    for text in (ran.out, (tmp_path / "out" / "results.json").read_text()):
        data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert [(each["picture"], each["psnr"], each["niqe"]) for each in data["pictures"]] == [("flat", None, None)]
    assert "Infinity" not in (tmp_path / "out" / "report.html").read_text()
    ran = cli("benchmark", "--dataset", folder, "--model", "bicubic", "-s", "2", "--border", "100", code=4)
    assert "hr: no picture of it can be measured" in ran.err


def test_memory_is_that_of_the_method_and_not_of_this_process() -> None:
    held = np.ones(400 << 20, np.uint8)
    found = host_peak_bytes("bicubic", 2, (64, 64, 3), {})
    assert found is not None
    assert 0 <= found < 100 << 20 < held.nbytes


def test_sets_of_one_name_are_refused(cli: Cli, hr_folder: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin" / hr_folder.name
    twin.mkdir(parents=True)
    Image.fromarray(pattern(40, 40)).save(twin / "a.png")
    ran = cli("benchmark", "--dataset", f"{hr_folder},{twin}", "--model", "bicubic", "-s", "2")
    assert (ran.code, f"two of them are called {hr_folder.name}" in ran.err) == (2, True)


def test_root_of_archives_is_refused(cli: Cli, tmp_path: Path) -> None:
    ran = cli("benchmark", "--dataset", "div2k-val", "--root", tmp_path, "--model", "bicubic", "-s", "2")
    assert (ran.code, "--root holds files of SelfExSR" in ran.err) == (2, True)
