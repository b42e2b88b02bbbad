"""The command line as users and scripts meet it."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from sr_upscale import __version__
from sr_upscale.cli.app import COMMANDS
from sr_upscale.cli.commands import EXAMPLES
from sr_upscale.cli.console import Console
from sr_upscale.images import load_image
from sr_upscale.pipeline.request import request_of
from sr_upscale.pipeline.targets import default_name
from sr_upscale.pretrained.registry import CATALOGUE, DEFAULT_MODEL, families
from sr_upscale.training.options import shipped_recipes
from tests.helpers import ROOT, Cli, doubled, pattern

PROGRAM = [sys.executable, "-m", "sr_upscale"]


def events(text: str) -> list[dict[str, Any]]:
    """The lines that ``--json`` wrote, of one schema."""
    found: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    assert all(each["schema"] == 1 for each in found)
    return found


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(load_image(path).frames[0].pixels_hwc)


# --- start-up ---------------------------------------------------------------------------------------


BAR = """
import os, sys
from sr_upscale.cli.app import run

class Terminal:
    def isatty(self): return True
    def flush(self): pass
    def write(self, text):
        if "0%" in text:
            os._exit("torch" in sys.modules)

sys.stderr = Terminal()
for line in sys.argv[1:]:
    if os.fork() == 0:
        run(line.split())
        os._exit(9)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="tries several command lines in forks of one process")
def test_a_terminal_sees_a_bar_before_torch_is_imported(photo: Path) -> None:
    lines = ["train -c psnr-x4 --data .", "benchmark --dataset . -n psnr", "export -n psnr-x4 -o a.onnx", "doctor"]
    lines += ["compare photo.png", "degrade photo.png", "batch .", "upscale photo.png"]
    command = [sys.executable, "-c", BAR, *lines]
    done = subprocess.run(command, cwd=photo.parent, stdout=subprocess.PIPE, text=True, check=False)
    assert done.stdout.split() == ["0"] * len(lines)


HEAVY = {"torch", "numpy", "PIL", "pydantic", "rich", "requests", "urllib3", "psutil", "pyvips", "filelock", "fsspec"}
"""What takes long to import (`scripts/bench.py` says what all takes), and no short command needs."""


@pytest.mark.parametrize(
    ("words", "commands"),
    [
        (["--version"], set()),
        (["uspcale"], set()),
        (["a.png", "--nonsense"], {"upscale"}),
        (["train", "--help"], {"train"}),
        (["benchmark", "--dataset", "set5", "-s", "nine"], {"benchmark"}),
        (["--help"], set(COMMANDS)),
    ],
    ids=lambda value: " ".join(sorted(value)) if isinstance(value, set) else " ".join(value),
)
def test_a_short_command_imports_itself_alone(words: list[str], commands: set[str]) -> None:
    imported = modules_of(words)
    assert not imported & HEAVY
    assert {name for name in COMMANDS if f"sr_upscale.cli.{name}" in imported} == commands


@pytest.mark.parametrize(
    ("words", "commands"),
    [
        ("sr-upscale a.png -n pho", {"upscale"}),
        ("sr-upscale train -c ani", {"train"}),
        ("sr-upscale models info 4x", {"models"}),
        ("sr-upscale ben", {"benchmark"}),
    ],
)
def test_completion_imports_what_it_completes_alone(words: str, commands: set[str]) -> None:
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    imported = modules_of([], {"_SR_UPSCALE_COMPLETE": "complete_bash", **variables})
    assert not imported & {*HEAVY, "sr_upscale.cli.running", "sr_upscale.pipeline.batch_plan"}
    assert {name for name in COMMANDS if f"sr_upscale.cli.{name}" in imported} == commands


def modules_of(words: Sequence[str], variables: Mapping[str, str] | None = None) -> set[str]:
    """What a process has imported when a command line ends."""
    code = (
        "import atexit, sys; from sr_upscale.__main__ import main; "
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); main()"
    )
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=False
    )
    return set(done.stderr.splitlines()[-1].split())


def test_help_has_panels_and_true_defaults(cli: Cli) -> None:
    text = cli("upscale", "--help").out
    panels = [line.rstrip(":") for line in text.splitlines() if re.fullmatch(r"[A-Z][a-z ]+:", line)]
    assert panels == ["Arguments", "Options", "Size", "Network and tiles", "Files", "Video", "Running"]
    words = re.sub(r"(?<=\w)- ", "-", " ".join(text.split()))  # a name may be cut at its dash
    assert "[default: photo]" in words
    assert "0 for automatic. Default: built-in models need no tiles" in words
    assert "the model's own" in words
    assert all(name in words for name in families())
    assert all(name in " ".join(cli("train", "--help").out.split()) for name in shipped_recipes())


def test_debug_and_offline_mean_the_option_and_not_the_word(cli: Cli, photo: Path, tmp_path: Path) -> None:
    """A value that reads like an option is none; an option that a command does not have is refused."""
    ran = cli("upscale", photo, "-n", "nothing", "--suffix=--debug", code=7)
    assert "Traceback" not in ran.err
    assert "Traceback" in cli("upscale", photo, "-n", "nothing", "--debug").err
    ran = cli("models", "download", "nothing", "--debug", code=2)
    assert "Traceback" not in ran.err
    assert "SR_UPSCALE_OFFLINE" not in os.environ
    assert cli("upscale", photo, "-n", "realesrgan-x4plus", "--offline").code == 6
    assert cli("train", "-c", "psnr-x4", "--data", "div2k", "-o", tmp_path / "run", "--offline").code == 6
    assert "SR_UPSCALE_OFFLINE" not in os.environ


def test_an_ordinary_picture_imports_no_compiler_and_the_bar_stands_before_torch(photo: Path, nearest: Path) -> None:
    """Each of these modules takes a good part of a second, and none is needed to enlarge a local file."""
    code = f"""
import sys
from sr_upscale.cli.app import run

class Terminal:
    torch_was_there = None
    def isatty(self): return True
    def flush(self): pass
    def write(self, text):
        if self.torch_was_there is None:
            self.torch_was_there = "torch" in sys.modules

real, sys.stderr = sys.stderr, Terminal()
code = run([{str(photo)!r}, "-n", {str(nearest)!r}, "--force"])
heavy = {{"torch._dynamo", "sympy", "torchvision", "triton", "requests", "spandrel", "scipy", "pydantic"}}
heavy |= {{"av", "s3fs", "botocore", "aiohttp", "gcsfs"}}
heavy &= set(sys.modules)
print(code, sys.stderr.torch_was_there, sorted(heavy))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    conv = """
import sys, torch
with torch.device("meta"):
    torch.nn.Conv2d(1, 1, 1)
print([name for name in ["sympy"] if name in sys.modules])
"""
    alone = subprocess.run([sys.executable, "-c", conv], capture_output=True, text=True, check=True)
    assert done.stdout == f"0 False {alone.stdout}"  # torch 2.6 brings sympy for it, later ones nothing


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["photo.jpg", "-n", "pho"], ["photo-x4", "photo-x2", "photo-fast-x4", "photo", "photo-fast"]),
        (["photo.jpg", "-n", "RealESRGAN-x4"], ["RealESRGAN-x4plus", "RealESRGAN-x4plus-anime-6b"]),
        (["models", "info", "4x-hfa2k"], [entry.name for entry in CATALOGUE if entry.name.startswith("4x-hfa2k")]),
        (["photo.jpg", "--before", "1x-den"], ["1x-denoise-realplksr-otf"]),
        (["photo.jpg", "--format", "w"], ["webp", "webm"]),
        (["train", "-c", "anime"], ["anime-x4"]),
        (["train", "--data", "d"], ["div2k"]),
        (["benchmark", "--dataset", "set5,set"], ["set5,set5", "set5,set14"]),
        (["benchmark", "-n", "bicubic,la"], ["bicubic,lanczos"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_shell_completes_words(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], offered: list[str]
) -> None:
    monkeypatch.setenv("_SR_UPSCALE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(["sr-upscale", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    with pytest.raises(SystemExit):
        cli("")
    assert capsys.readouterr().out.split() == offered


def test_version_stands_in_one_place(cli: Cli) -> None:
    assert cli("--version").out == f"sr-upscale {__version__}\n"
    assert "version =" not in (ROOT / "pyproject.toml").read_text().split("[project]")[1].split("[tool")[0].replace(
        'dynamic = ["version"]', ""
    )


# --- one picture ------------------------------------------------------------------------------------


def test_default_command_and_default_name(cli: Cli, photo: Path, nearest: Path) -> None:
    ran = cli(photo, "-n", nearest)
    assert (ran.code, ran.out, ran.err) == (0, "", "")  # quiet when not a terminal
    assert np.array_equal(pixels_of(photo.with_name("photo_x2_nearest-x2.png")), doubled(pattern(13, 21)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-s", "3"], "photo_x3_nearest-x2.png"),
        (["--outscale", "1.5"], "photo_x1.5_nearest-x2.png"),
        (["-w", "42"], "photo_w42_nearest-x2.png"),
        (["--size", "50x26", "--fit", "stretch"], "photo_50x26_nearest-x2.png"),
        (["--size=60x39"], "photo_60x39_nearest-x2.png"),
        (["--suffix", "-big"], "photo-big.png"),
        (["--suffix", "big"], "photo_big.png"),
        (["--ext", "jpg"], "photo_x2_nearest-x2.jpg"),
        (["-f", "TIFF", "--suffix", ""], "photo.tif"),
        (["--tile", "16", "--tile_pad", "4", "--overlap", "2"], "photo_x2_nearest-x2.png"),
        (["--gpu-id", "cpu", "--fp32", "--no-tile"], "photo_x2_nearest-x2.png"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_that_people_type(cli: Cli, photo: Path, nearest: Path, options: list[str], expected: str) -> None:
    cli("-i", photo, "--model_path", nearest, *options, code=0)
    sizes = {"-s": (63, 39), "--outscale": (32, 20), "-w": (42, 26), "--size": (50, 26), "--size=60x39": (60, 37)}
    found = load_image(photo.with_name(expected))
    assert (found.width, found.height) == sizes.get(options[0], (42, 26))


def test_a_new_folder_of_an_output_is_made_but_not_by_a_dry_run(
    cli: Cli, tmp_path: Path, photo: Path, nearest: Path
) -> None:
    call = [photo, "-n", nearest, "-o", f"{tmp_path / 'new' / 'deep'}/"]
    dry = cli(*call, "--dry-run")
    assert (dry.code, "photo_x2_nearest-x2.png" in dry.out, (tmp_path / "new").exists()) == (0, True, False)
    assert cli(*call).code == 0
    assert (tmp_path / "new" / "deep" / "photo_x2_nearest-x2.png").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model": "gan", "fidelity": 0.5}, "photo_x4_gan-x4_fidelity-0.5.jpg"),
        ({"denoise": 0.25, "width": 900}, "photo_w900_photo_denoise-0.25.jpg"),
        ({"fidelity": 1, "denoise": 0.3, "size": "9x9"}, "photo_9x9_photo_denoise-0.3_fidelity-1.jpg"),
    ],
)
def test_a_blend_is_part_of_the_default_name(options: dict[str, Any], expected: str) -> None:
    assert default_name(Path("in/photo.jpg"), request_of(options)) == expected


def test_json_tells_what_was_done(cli: Cli, photo: Path, nearest: Path, tmp_path: Path) -> None:
    ran = cli(photo, "-n", nearest, "-o", tmp_path / "o.png", "-s", "3", "--json")
    data = json.loads(ran.out)
    assert data["input_size"] == [21, 13]
    assert data["output_size"] == [63, 39]
    assert data["models"] == ["nearest-x2", "nearest-x2"]
    assert data["resample"] == "lanczos3"
    assert data["output"] == str(tmp_path / "o.png")
    assert data["warnings"] == []


def test_verbose_names_device_and_type(cli: Cli, photo: Path, nearest: Path, tmp_path: Path) -> None:
    err = cli(photo, "-n", nearest, "-o", tmp_path / "o.png", "-v", "-g", "cpu", "--fp32").err
    assert "device cpu (requested), float32 (requested), 1 strip of 13 rows" in err
    assert "o.png  42x26  nearest-x2" in err


def test_dry_run_says_everything_and_writes_nothing(cli: Cli, photo: Path, nearest: Path) -> None:
    ran = cli(photo, "-n", nearest, "--dry-run", "--tile", "16", code=0)
    assert "21x13" in ran.out
    assert "42x26: nearest-x2, 2 tiles" in ran.out
    assert "MiB" in ran.out
    assert list(photo.parent.iterdir()) == [photo]
    data = json.loads(cli(photo, "-n", nearest, "--dry-run", "--json").out)
    assert data["dry_run"] is True


def test_the_estimate_counts_reading_and_loading(
    cli: Cli, photo: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sr_upscale.inference.loaded_networks import LoadedNetworks
    from sr_upscale.pipeline import job

    load, get = job.load_image, LoadedNetworks.get

    def slowly(function: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*words: Any, **more: Any) -> Any:
            time.sleep(0.3)
            return function(*words, **more)

        return slow

    monkeypatch.setattr(job, "load_image", slowly(load))
    monkeypatch.setattr(LoadedNetworks, "get", slowly(get))
    assert json.loads(cli(photo, "-n", nearest, "--dry-run", "--json").out)["estimated_seconds"] >= 0.6


REFUSED = [
    ("''", "expected a name, got nothing"),
    ("photo.png -o ''", "-o is ''; expected a name, got nothing"),
    ("batch ''", "expected a name, got nothing"),
    ("upscale", "no picture given"),
    ("photo.png large.png", "large.png: no such file; if it is the output, write -o large.png"),
    ("photo.png --scale 2 --width 9", "contradict each other"),
    ("photo.png --size 9by9", "expected WIDTHxHEIGHT"),
    ("photo.png --size 9x9 -w 3", "--size, --print and --width"),
    ("photo.png --size 90x90 --fit fill", "--fit is 'fill'; expected inside, cover, stretch"),
    ("photo.png --fp32 --fp16", "--fp32 and --fp16 contradict"),
    ("photo.png --tile 32 --no-tile", "--tile and --no-tile contradict"),
    ("photo.png -q 101", "expected 1 to 100"),
    ("photo.png -o x.xyz", "no known ending"),
    ("photo.png -f jpgg", "did you mean jpg"),
    ("photo.png --max-pixels many", "expected a number of pixels"),
    ("photo.png --nonsense", "`sr-upscale upscale --help`, or try `sr-upscale photo.jpg -o out.png`"),
    ("photo.png -s four", "sr-upscale: --scale is 'four'; expected a factor such as 2, 3.5 or 4x"),
    ("photo.png --scale=four", "sr-upscale: --scale is 'four'; expected a factor such as"),
    ("photo.png --outscale four", "sr-upscale: --scale is 'four'; expected a factor such as"),
    ("photo.png -w 1.5", "sr-upscale: -w is '1.5'; expected a whole number; see"),
    ("photo.png --fidelity 1.01", "sr-upscale: --fidelity is '1.01'; expected a number from 0 to 1; see"),
    ("photo.png --fidelity nan", "sr-upscale: --fidelity is 'nan'; expected a number from 0 to 1; see"),
    ("photo.png -n psnr-x4 --fidelity 0.5", "--fidelity is not available for psnr-x4"),
    ("photo.png -s 0.5", "only enlarges"),
    ("photo.png -g tpu", "expected auto, cpu, cuda"),
    ("photo.png -g cpu,cpu", "one picture takes one device"),
    ("photo.png --fp16 -g cpu", "fp16 needs a GPU"),
    ("photo.png --suffix /../x", "--suffix is '/../x'; expected a part of a name, without a folder"),
    ("photo.png --wrap z", "--wrap"),
    ("photo.png --wrap x -s 2.5", "--wrap"),
    ("photo.png --wrap x --width 99", "--wrap"),
    ("- photo.png", "standard input and output take one picture"),
    ("photo.png --noise 2", "no option --noise: --denoise 0..1"),
    ("photo.png --face_enhance", "no option --face-enhance: faces are not repaired"),
    ("photo.png --seamless", "no option --seamless: --wrap x|y|both makes seamless textures"),
    ("photo.png -m models", "no option -m: a folder of models is not needed"),
    ("photo.png -c 95", "-q is the quality"),
    ("--list-models", "no option --list-models: `sr-upscale models` lists them"),
    ("uspcale photo.png", "'uspcale' is neither a command nor a file; did you mean `sr-upscale upscale`?"),
    ("search anime", "'search' is neither a command nor a file; did you mean `sr-upscale models search`?"),
    ("models serch", "No such command 'serch'. Did you mean 'search'? See `sr-upscale models --help`"),
    ("batch", "'FOLDER'; see `sr-upscale batch --help`, or try `sr-upscale batch photos -o photos_x4`"),
    ("batch photo.png", "photo.png is a file, and batch takes a folder; use `sr-upscale "),
    ("batch . --watch --dry-run", "--watch takes"),
    ("batch . --watch --on ray", "--watch takes"),
    ("batch . --watch -o s3://bucket/out", "--watch takes"),
    ("batch . --address node1:6379", "add --on ray"),
    ("batch . --on ray --shard 1/2", "leave out --shard"),
    ("batch . --on dask", "expected ray"),
    ("doctor --nonsense", "see `sr-upscale doctor --help`"),
    ("benchmark --dataset . --limit 0", "--limit is '0'; expected a whole number of 1 or more; see"),
    ("train --steps x", "a whole number; see `sr-upscale train --help`, or try `sr-upscale train -c psnr-x4"),
    ("train --data .", "--config is missing; expected anime-x4, gan-x4"),
    ("train -c psnr-x4", "--data is missing"),
    (
        "train -c psnr-x5 --data .",
        "expected one of anime-x4, gan-x4, photo-fast-x4, photo-x2, photo-x4, psnr-x2, psnr-x4",
    ),
    ("train -c psnr-x4 --data . --set stages.psn.lr=1e-3", "recipe psnr-x4 has no stage 'psn'; did you mean psnr?"),
    ("train -c psnr-x4 --data . --set lr", "expected KEY=VALUE"),
    ("train -c psnr-x4 --data . --set stage.rate=1", "unknown key"),
    ("train -c psnr-x4 --data . --set name.x=1", "not a section"),
    ("train -c psnr-x4 --data . --lost-after soon", "--lost-after is 'soon'; expected a duration"),
    ("train -c psnr-x4 --data . --lost-after 0", "expected at least 1s"),
]
"""What nobody can mean, what other programs call otherwise, and near misses: each is answered in a line."""


@pytest.mark.parametrize(("line", "words"), REFUSED, ids=[line for line, _words in REFUSED])
def test_usage_errors_are_one_line_and_exit_code_2(
    cli: Cli, photo: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: str
) -> None:
    monkeypatch.chdir(photo.parent)
    ran = cli(*shlex.split(line))
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert len(ran.err.splitlines()) == 1
    assert words in ran.err
    assert [path.name for path in photo.parent.iterdir()] == ["photo.png"]


def test_examples_stand_in_the_help_and_have_no_unknown_option(cli: Cli) -> None:
    for name, line in EXAMPLES.items():
        assert f"Example: {line}\n" in cli(name, "--help").out
        assert cli(*shlex.split(line)[1:], "--help").code == 0


def test_help_fits_into_80_columns(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command has a first sentence that is not cut."""
    monkeypatch.setenv("COLUMNS", "80")
    for out in (cli("--help").out, cli("models", "--help").out):
        assert "..." not in out.split("Commands:")[1]
        assert max(map(len, out.splitlines())) <= 80


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal of its own")
@pytest.mark.parametrize(("more", "code"), [([], 2), (["-o", "-"], 0)])
def test_a_picture_is_printed_on_a_terminal_only_if_forced(
    photo: Path, nearest: Path, more: list[str], code: int
) -> None:
    terminal, shell = os.openpty()
    with photo.open("rb") as source:
        command = [*PROGRAM, "-", "-n", str(nearest), *more]
        done = subprocess.run(command, stdin=source, stdout=shell, stderr=subprocess.PIPE, text=True, check=False)
    os.close(shell)
    assert done.returncode == code, done.stderr
    message = (
        "sr-upscale: the picture would be printed on the terminal; write it with -o out.png, or force it with -o -\n"
    )
    assert done.stderr == (message if code else "")
    os.close(terminal)


def test_commands_as_people_type_them(cli: Cli, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("help").out == cli("--help").out
    assert cli("help", "batch").out == cli("batch", "--help").out
    assert cli("models", "help").out == cli("models", "--help").out
    assert cli("version").out == cli("--version").out
    assert cli("models", "list").out == cli("models").out
    ran = cli()
    assert (ran.code, ran.out, ran.err) == (2, cli("--help").out, "")
    assert cli("--scale", "4x", "none.png").err == "sr-upscale: none.png: no such file; check the path\n"
    monkeypatch.chdir(photo.parent)
    photo.rename("batches")
    assert cli("batches", "--dry-run", "-f", "png").code == 0  # a file that is there is a picture


def test_several_pictures_do_not_become_a_folder_with_the_name_of_a_picture(cli: Cli, photo: Path) -> None:
    out = photo.with_name("one.png")
    for words in ([photo, photo.with_name("other.png")], [photo.parent], ["batch", photo.parent]):
        ran = cli(*words, "-o", out, code=2)
        assert "one.png is a file; " in ran.err
        assert not out.exists()


@pytest.mark.parametrize(("error", "code"), [(KeyError("oops"), 1), (MemoryError(), 8)])
def test_internal_errors_are_one_line_and_show_the_traceback_only_on_request(
    cli: Cli, photo: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    monkeypatch.setattr("sr_upscale.pipeline.executor.run_file", Mock(side_effect=error))
    ran = cli(photo, "-n", nearest)
    assert (ran.code, len(ran.err.splitlines())) == (code, 1)
    assert ("internal error: KeyError: 'oops'" in ran.err) == (code == 1)
    assert "Traceback" in cli(photo, "-n", nearest, "--debug").err


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_signals_stop_with_their_own_codes_and_leave_nothing(
    cli: Cli, photo: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch, number: int, word: str
) -> None:
    def kill(*_args: object, **_more: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr("sr_upscale.images.codecs.png.write_rows", kill)
    before = signal.getsignal(number)
    ran = cli(photo, "-n", nearest, "-o", photo.with_name("out.png"), code=128 + number)
    assert ran.err == f"sr-upscale: {word}; unfinished files were removed\n"
    assert list(photo.parent.iterdir()) == [photo]
    assert signal.getsignal(number) == before


# --- pipes ------------------------------------------------------------------------------------------


def test_pipes_carry_pictures_and_nothing_else(photo: Path, nearest: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "-", "-n", str(nearest)], input=photo.read_bytes(), capture_output=True, check=True
    )
    assert done.stderr == b""
    assert np.array_equal(load_image(done.stdout).frames[0].pixels_hwc, doubled(pattern(13, 21)))
    again = subprocess.run(
        [*PROGRAM, str(photo), "-o", "-", "-f", "tif", "-n", str(nearest)], capture_output=True, check=True
    )
    assert load_image(again.stdout).format == "tif"
    assert np.array_equal(load_image(again.stdout).frames[0].pixels_hwc, doubled(pattern(13, 21)))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_pipe_that_takes_nothing_is_no_fault_of_ours(photo: Path, nearest: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, str(photo), "-o", "-", "-n", str(nearest)], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 5
    assert b"standard output: cannot write: No space left on device" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE to speak of")
@pytest.mark.parametrize("words", [["models"], ["upscale", "--help"], ["PICTURE"]])
def test_a_reader_that_goes_ends_it_as_sigpipe_does(photo: Path, nearest: Path, words: list[str]) -> None:
    """The reader is gone before the first byte, so that no buffer of the pipe hides it."""
    if words == ["PICTURE"]:
        words = [str(photo), "-o", "-", "-n", str(nearest), "--format", "bmp"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        done = subprocess.run([*PROGRAM, *words], stdout=gone, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE to speak of")
def test_a_picture_cut_off_in_the_pipe_is_no_success(nearest: Path, tmp_path: Path) -> None:
    Image.fromarray(pattern(200, 200)).save(tmp_path / "a.png")  # 480 kB, more than a pipe takes unread
    words = [*PROGRAM, str(tmp_path / "a.png"), "-o", "-", "-n", str(nearest), "--format", "bmp"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(2) == b"BM"
        process.stdout.close()
        assert (process.wait(), process.stderr.read()) == (141, b"")


def test_progress_is_for_terminals_and_colour_follows_no_color(photo: Path, nearest: Path) -> None:
    """On a pseudo-terminal there is a bar on stderr; with NO_COLOR there are no colour codes in it."""
    import pty

    words = [str(photo), "-n", str(nearest), "-o", str(photo.with_name("o.png")), "--force", "-s", "8", "-t", "16"]
    for extra, coloured in (({"TERM": "xterm-256color"}, True), ({"TERM": "xterm-256color", "NO_COLOR": "1"}, False)):
        environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "CI")} | extra
        mine, theirs = pty.openpty()
        process = subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, stderr=theirs, env=environment)
        os.close(theirs)
        seen = b""
        try:
            while block := os.read(mine, 4096):
                seen += block
        except OSError:  # the other end is closed
            pass
        assert process.communicate()[0] == b""
        assert process.returncode == 0
        os.close(mine)
        assert b"o.png" in seen
        assert bool(re.search(rb"\x1b\[[0-9;]*m", seen)) == coloured


def test_a_pattern_that_no_shell_has_expanded_is_expanded(cli: Cli, photo: Path, nearest: Path, tmp_path: Path) -> None:
    shutil.copy(photo, photo.with_name("other.png"))
    ran = cli(f"{tmp_path}/*.png", "-n", nearest, "-o", tmp_path / "out")
    assert (ran.code, "2 done, 0 skipped, 0 failed of 2" in ran.err) == (0, True), ran.err
    ran = cli(f"{tmp_path}/*.gif", "-n", nearest)
    assert (ran.code, "no such file" in ran.err) == (4, True)


def test_a_factor_that_takes_two_networks_says_so_and_can_be_reached_by_one(
    cli: Cli, photo: Path, nearest: Path, tmp_path: Path
) -> None:
    two = cli(photo, "-n", nearest, "-s", "3", "-o", tmp_path / "two.png", "--json")
    assert "x3 runs x2 and x2 one after the other; --one-pass runs x2 alone and resizes" in two.err
    one = cli(photo, "-n", nearest, "-s", "3", "-o", tmp_path / "one.png", "--json", "--one-pass")
    assert (one.code, one.err) == (0, "")
    assert [len(json.loads(ran.out.splitlines()[0])["models"]) for ran in (two, one)] == [2, 1]
    with Image.open(tmp_path / "one.png") as small, Image.open(photo) as given:
        assert small.size == (63, 39)
        twice = given.resize((42, 26), Image.Resampling.NEAREST).resize((63, 39), Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(small).astype(int) - np.asarray(twice)).max() <= 2


# --- several pictures -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good pictures, one of them deep, and a bad one."""
    folder = tmp_path / "in"
    (folder / "deep" / "deeper").mkdir(parents=True)
    Image.fromarray(pattern(4, 5)).save(folder / "a.png")
    Image.fromarray(pattern(6, 3)).save(folder / "deep" / "deeper" / "b.bmp")
    (folder / "deep" / "bad.jpg").write_bytes(b"\xff\xd8\xff nonsense")
    (folder / "readme.txt").write_text("not a picture")
    return folder


def test_batch_mirrors_the_tree_and_survives_a_bad_file(cli: Cli, folder: Path, nearest: Path) -> None:
    ran = cli("batch", folder, "-n", nearest, "--json", code=3)
    out = folder.with_name("in_x2")
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*") if path.is_file()) == [
        ".sr-upscale.jsonl",
        "a.png",
        "deep/deeper/b.bmp",
    ]
    assert np.array_equal(pixels_of(out / "a.png"), doubled(pattern(4, 5)))
    assert np.array_equal(pixels_of(out / "deep" / "deeper" / "b.bmp"), doubled(pattern(6, 3)))
    assert "bad.jpg" in ran.err
    assert "2 done, 0 skipped, 1 failed of 3" in ran.err
    *pictures, data = events(ran.out)
    assert (data["event"], data["done"], data["failed"], data["exit_code"]) == ("result", 2, 1, 3)
    assert [row["status"] for row in pictures] == ["done", "failed", "done"]
    assert all(row["event"] == "picture" for row in pictures)
    assert pictures[1]["exit_code"] == 4
    assert pictures[1]["input"] == str(folder / "deep" / "bad.jpg")


def test_batch_names_what_it_leaves_out(cli: Cli, folder: Path, nearest: Path) -> None:
    for name in ("a.PSD", "b.psd", "Makefile"):
        (folder / name).write_bytes(b"...")
    ran = cli("batch", folder, "-n", nearest, "--json")
    assert "left out, not readable as pictures: 2 .psd, 1 without an ending, 1 .txt\n" in ran.err
    assert events(ran.out)[-1]["left_out"] == {".psd": 2, ".txt": 1, "without an ending": 1}


@pytest.mark.parametrize("other", ["A.PNG", "a.Png"])
def test_outputs_that_differ_in_case_alone_are_one_on_some_discs(
    cli: Cli, folder: Path, nearest: Path, other: str
) -> None:
    (folder / other).write_bytes((folder / "a.png").read_bytes())
    ran = cli("batch", folder, "-n", nearest)
    assert (ran.code, "2 done, 0 skipped, 2 failed of 4" in ran.err) == (3, True)
    assert "would both become" in ran.err


def test_batch_without_recursion_and_with_a_format(cli: Cli, folder: Path, nearest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("batch", folder, "--no-recursive", "-f", "webp", "-o", out, "-n", nearest, "--quiet").err == ""
    assert [path.name for path in out.iterdir() if path.suffix == ".webp"] == ["a.webp"]


def test_a_dry_run_has_the_shape_of_a_run_with_the_failing_items_in_it(cli: Cli, folder: Path, nearest: Path) -> None:
    ran = cli("batch", folder, "-n", nearest, "--dry-run", "--json", code=3)
    *pictures, summary = events(ran.out)
    assert [row["status"] for row in pictures] == ["planned", "failed", "planned"]
    assert pictures[1]["exit_code"] == 4
    assert pictures[0]["output_size"] == [10, 8]
    assert (summary["planned"], summary["failed"], summary["exit_code"]) == (2, 1, 3)
    assert summary["estimated_seconds"] >= pictures[0]["estimated_seconds"] > 0
    assert "would fail" in ran.err
    assert not folder.with_name("in_x2").exists()


def test_every_failure_is_an_object_too(cli: Cli, folder: Path, photo: Path) -> None:
    for words, code, kind in (
        ([folder / "readme.txt"], 4, "InputError"),
        ([photo, "-n", "nonsense"], 7, "ModelError"),
        ([photo, "--nonsense"], 2, "UsageError"),
        ([photo, "-s", "four"], 2, "UsageError"),
        (["models", "info", "nonsense"], 7, "ModelError"),
        (["batch", folder / "none"], 4, "InputError"),
    ):
        ran = cli(*words, "--json", code=code)
        (error,) = events(ran.out)
        assert (error["event"], error["code"], error["kind"]) == ("error", code, kind)
        assert error["message"] in ran.err


def test_a_line_a_picture_also_when_it_is_interrupted(
    cli: Cli, folder: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line is there when its picture is, and the last one says how it ended."""
    real = Console.event

    def event(self: Console, kind: str, data: Any) -> None:
        real(self, kind, data)
        if data.get("status") == "done":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Console, "event", event)
    ran = cli("batch", folder, "-n", nearest, "--json", "-j", "1:1:1")
    first, *_more, last = events(ran.out)
    assert (first["event"], first["status"]) == ("picture", "done")
    assert (ran.code, last["event"], last["code"]) == (130, "error", 130)


def test_progress_off_a_terminal_is_a_line_now_and_then(
    cli: Cli, folder: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "%" not in cli("batch", folder, "-n", nearest).err
    assert re.search(
        r"; compute busy \d+% of the time$", cli("batch", folder, "-n", nearest, "--force", "-v").err, re.M
    )
    monkeypatch.setattr("sr_upscale.cli.console.LINE_EVERY_S", 0.0)
    ran = cli("batch", folder, "-n", nearest, "--force")
    assert re.search(r"^3 pictures: 100% after .* s, about 0.0 s left$", ran.err, flags=re.MULTILINE)
    assert "%" not in cli("batch", folder, "-n", nearest, "--force", "--quiet").err


def test_the_time_left_is_that_of_the_work_since_it_went_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 10.0, 70.0])
    monkeypatch.setattr("sr_upscale.cli.console.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with Console().progress("training") as report:
        report(0.5, "")  # half was done by an earlier run
        report(0.6, "")
    assert "60% after 1 min 10 s, about 4 min 00 s left" in capsys.readouterr().err


def test_a_fault_of_our_own_fails_its_item_only(
    cli: Cli, folder: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sr_upscale.pipeline import job

    real = job.prepare

    def break_on_a(source: Path, *args: object, **more: object) -> object:
        if source.name == "a.png":
            raise KeyError("oops")
        return real(source, *args, **more)  # type: ignore[arg-type]

    (folder / "deep" / "bad.jpg").unlink()
    monkeypatch.setattr(job, "prepare", break_on_a)
    ran = cli("batch", folder, "-n", nearest, code=3)
    assert "a.png: internal error: KeyError: 'oops'" in ran.err
    assert "1 done, 0 skipped, 1 failed" in ran.err


# --- models and doctor ------------------------------------------------------------------------------


def test_doctor_checks_and_reports(cli: Cli) -> None:
    import hashlib

    import torch

    from sr_upscale.pretrained.registry import TABLE

    ran = cli("doctor", "--json", code=0)
    data = json.loads(ran.out)
    assert data["libraries"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert data["device"] in [name.split()[0] for name in data["devices"]]
    for entry in TABLE:
        assert data["weights"][entry.name] == hashlib.sha256(entry.path.read_bytes()).hexdigest()
    assert data["smoke_run"]["output_megapixels_per_s"] > 0
    text = cli("doctor").out
    assert text.endswith("no problems found\n")
    assert data["dtype_reason"] in text


def test_doctor_finds_missing_weights(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sr_upscale.pretrained.registry.weights_folder", lambda: tmp_path)
    ran = cli("doctor", code=1)
    assert "PROBLEM    weights psnr-x4 are missing" in ran.out
    assert f"PROBLEM    the test run failed: model {DEFAULT_MODEL}-x" in ran.out


def closed(stream: str, *argv: object) -> subprocess.CompletedProcess[bytes]:
    """Runs the program with a standard stream closed, as a shell does."""
    words = [sys.executable, "-m", "sr_upscale", *map(str, argv)]
    return subprocess.run(["sh", "-c", f'exec "$@" {stream}', "sh", *words], capture_output=True, check=False)


@pytest.mark.parametrize("stream", [">&-", "<&- >&- 2>&-"])
def test_a_picture_needs_no_standard_streams(photo: Path, nearest: Path, stream: str) -> None:
    """A file that takes the number of a missing stream would get what libraries say."""
    out = photo.with_name("out.png")
    ran = closed(stream, photo, "-n", nearest, "-o", out)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    with Image.open(out) as image:
        assert np.array_equal(np.asarray(image), pattern(13, 21).repeat(2, axis=0).repeat(2, axis=1))


def test_what_needs_a_closed_stream_says_so(photo: Path, nearest: Path, tmp_path: Path) -> None:
    ran = closed("<&-", "-", "-n", nearest, "-o", tmp_path / "out.png")
    assert (ran.returncode, b"standard input: " in ran.stderr) == (4, True)
    for words in ((photo, "-n", nearest, "-o", "-"), ("models",), ("--version",)):
        ran = closed(">&-", *words)
        assert (ran.returncode, b"standard output: cannot write" in ran.stderr) == (5, True), ran.stderr
    assert closed("2>&-", tmp_path / "none.png", "-n", nearest, "-o", tmp_path / "out.png").returncode == 4
    assert closed("> /dev/full", "models").returncode == 5
