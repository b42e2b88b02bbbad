"""Every command of README and docs is run as it stands there, in a folder with the files that it names."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sr_upscale.pretrained.registry import TABLE, cached_path, catalogue_entry
from tests.helpers import ROOT, Cli, Ran, pattern

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

NOT_RUN = {
    "sr-upscale models download realesrgan-x4plus": "needs the network",
    "sr-upscale benchmark --dataset set5,set14 --model bicubic,psnr --published -o out": "needs the network",
    "ray start --head": "needs Ray",
    "sr-upscale serve": "ends when it is stopped (tests/server)",
    "sr-upscale serve -o ./large": "ends when it is stopped (tests/server)",
    "sr-upscale batch /shared/scans -o /shared/large --on ray --address HOST:6379": "needs Ray",
    "parallel --sshlogin node1,node2,node3 --nonall sr-upscale batch /shared/scans -o /shared/large --quiet": "ssh",
    "parallel -j 4 sr-upscale batch scans -o large --device cuda:{} --quiet ::: 0 1 2 3": "needs four GPUs",
    "parallel -j 4 sr-upscale batch scans -o large --shard {}/16 --quiet ::: $(seq 16)": "needs GNU parallel",
}
"""Commands that no test runs, and why. Those that install are told by their first word."""

STORES = ("s3://", "gs://", "https://")
"""Commands with such addresses need a store; `tests/pipeline/test_object_*.py` run their like."""

SLOW = (" train ", " export ")
"""What is in commands that take more than a few seconds."""

INSTEAD = {"3840": "90", "40x30cm": "8x6mm", "30m": "4s", "2h": "4s", "/shared/": "shared/"}
INSTEAD["./my-pictures --model"] = "./my-pictures --limit 1 --model"
"""What would take long with a picture of another size, or minutes, or lies outside the folder."""


def commands() -> list[str]:
    """Returns the lines of all shell blocks, without comments, each once."""
    blocks = [block for page in PAGES for block in re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    lines = [re.split(r"  +#", line)[0].strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def installs(line: str) -> bool:
    return line.split()[0] in ("pip", "pipx", "uv", "docker", "brew", "git") or "-m venv" in line


def to_run() -> list[object]:
    lines = [line for line in commands() if line not in NOT_RUN and not installs(line) and not line.startswith("make ")]
    lines = [line for line in lines if not any(store in line for store in STORES)]
    return [
        pytest.param(line, marks=[pytest.mark.slow] if any(word in line for word in SLOW) else []) for line in lines
    ]


def save_compact(path: Path, scale: int = 4) -> None:
    """A small network of others."""
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact

    path.parent.mkdir(parents=True, exist_ok=True)
    state = SRVGGNetCompact(num_feat=4, num_conv=1, upscale=scale).state_dict()
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"params": state}, path)


def save_clip(path: Path) -> None:
    """Six frames of video."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height = 40, 32
        for number in range(6):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pattern(32, 40)[:, :: (-1) ** number], format="rgb24")))
        out.mux(stream.encode(None))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with every file that the pages name, small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SR_UPSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sr_upscale.pretrained.registry._check_cached", lambda *_: None)  # stand-ins have other hashes
    for name, height, width in (
        ("photo.jpg", 32, 40),
        ("scan.png", 32, 40),
        ("comic.jpg", 32, 40),
        ("huge.tif", 300, 40),
    ):
        Image.fromarray(pattern(height, width)).save(name)
    save_clip(Path("clip.mp4"))
    with zipfile.ZipFile("tale.cbz", "w") as comic:
        comic.write("comic.jpg")
    for folder in ("folder", "shared/scans"):
        Path(folder).mkdir(parents=True)
        Image.fromarray(pattern(6, 7)).save(Path(folder) / "a.png")
    Path("my-pictures").mkdir()
    for number in range(6):
        Image.fromarray(pattern(300 + number, 310)).save(f"my-pictures/{number}.png")
    Path("FOLDER").symlink_to("my-pictures")
    Path("runs/psnr-x4").mkdir(parents=True)
    shutil.copy(TABLE[0].path, "runs/psnr-x4/psnr-x4.safetensors")
    save_compact(Path("4x_something.pth"))
    return tmp_path


def shell(line: str, place: Path) -> Ran:
    """Runs a line in bash, with the program of this checkout, and the jobs of SLURM begun at once."""
    programs = place / "bin"
    programs.mkdir()
    for name, words in (("sr-upscale", f'{shlex.quote(sys.executable)} -m sr_upscale "$@"'), ("srun", '"$@"')):
        (programs / name).write_text(f"#!/bin/sh\nexec {words}\n")
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    command = ["bash", "-euo", "pipefail", "-c", line]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    return Ran(code=done.returncode, out=done.stdout, err=done.stderr)


@pytest.mark.parametrize("line", to_run())
def test_a_documented_command_works(line: str, place: Path, cli: Cli, vgg19: Path) -> None:
    for word in shlex.split(line):
        if (entry := catalogue_entry(word)) is not None:
            save_compact(cached_path(entry), entry.scale)
    if "--crop" in line:
        Image.fromarray(pattern(340, 360)).save("photo.jpg")
    for word, instead in INSTEAD.items():
        line = line.replace(word, instead)
    if " train " in line and "--max-time" not in line:
        line += " --max-time 4s"
    if "gan-x4" in line and " train " in line:
        line += f" --vgg-weights {shlex.quote(str(vgg19))}"  # 548 MB otherwise
    if "| jq" in line and shutil.which("jq") is None:
        pytest.skip("needs jq")
    simple = line.startswith("sr-upscale ") and not set(line) & set("|><$")
    ran = cli(*shlex.split(line)[1:]) if simple else shell(line, place)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("make ")])
def test_a_documented_target_is_there(line: str) -> None:
    """It would set up an environment, so `make` only says what it would do."""
    done = subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_what_is_not_run_is_documented_and_nothing_else_is_left_out() -> None:
    assert set(NOT_RUN) <= set(commands())
    for page in PAGES:  # commands that only look like code would be run by nobody
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
        assert not re.findall(r"^    +(?:sr-upscale|pip|pipx|uv|python|make|cat|ray) .*", text, re.MULTILINE), page


def test_only_packages_and_extras_that_exist_are_named() -> None:
    """No index has `sr-upscale`: extras are installed from a clone, and by names that pyproject.toml knows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    texts = {path: path.read_text("utf-8") for path in [*PAGES, *(ROOT / "sr_upscale").rglob("*.py")]}
    named = {
        extra
        for text in texts.values()
        for extras in re.findall(r"'\.\[([\w,]+)\]'", text)
        for extra in extras.split(",")
    }
    assert {"models", "onnx", "heic", "ray"} <= named <= set(project["optional-dependencies"])
    for path, text in texts.items():
        assert not re.findall(r"(?:pip|pipx|uv \w+) install [^\n`]*\bsr-upscale\b", text), path


def test_ci_and_image_name_what_is_there() -> None:
    ci = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    assert {"ubuntu-latest", "windows-latest", "macos-latest"} <= set(re.findall(r"[a-z]+-latest", ci))
    image = (ROOT / "Dockerfile").read_text("utf-8")
    copied = [path for line in re.findall(r"^COPY (?!--)(.*) \S+$", image, re.MULTILINE) for path in line.split()]
    assert {"pyproject.toml", "sr_upscale", "weights"} <= set(copied)
    for path in [*copied, *re.findall(r"tests/\w+", ci)]:
        assert (ROOT / path).exists(), path
    assert re.findall(r"^USER (.*)$", image, re.MULTILINE)[-1] != "root"
