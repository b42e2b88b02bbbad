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

import numpy as np
import pytest
from PIL import Image

from sr_upscale import __version__
from sr_upscale.cli.app import COMMANDS
from sr_upscale.cli.commands import EXAMPLES
from sr_upscale.cli.console import Console
from sr_upscale.images import load_image
from sr_upscale.pretrained.registry import CATALOGUE, DEFAULT_MODEL, families
from sr_upscale.training.options import shipped_recipes
from tests.helpers import ROOT, Cli, Ran, doubled, pattern

PROGRAM = [sys.executable, "-m", "sr_upscale"]


def events(text: str) -> list[dict[str, Any]]:
    """The lines that ``--json`` wrote, of one schema."""
    found: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    assert all(each["schema"] == 1 for each in found)
    return found


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(load_image(path).frames[0].pixels_hwc)


# --- start-up ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv", [["--help"], ["upscale", "--help"], ["batch", "-h"], ["train", "--help"], ["--version"], ["--nonsense"]]
)
def test_help_and_usage_errors_do_not_import_torch(argv: list[str]) -> None:
    code = f"import sys; from sr_upscale.cli.app import run; run({argv!r}); sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        ["train", "-c", "psnr-x4", "--data", "FOLDER"],
        ["benchmark", "--dataset", "FOLDER", "-n", "psnr"],
        ["export", "-n", "psnr-x4", "-o", "FOLDER/a.onnx"],
        ["compare", "FOLDER/photo.png"],
        ["degrade", "FOLDER/photo.png"],
        ["doctor"],
        ["batch", "FOLDER"],
        ["upscale", "FOLDER/photo.png"],
    ],
    ids=lambda words: words[0],
)
def test_a_terminal_sees_a_bar_before_torch_is_imported(photo: Path, words: list[str]) -> None:
    code = """
import os, sys
from sr_upscale.cli.app import run

class Terminal:
    def isatty(self): return True
    def flush(self): pass
    def write(self, text):
        if "0%" in text:
            sys.stdout.write("torch" if "torch" in sys.modules else "nothing")
            sys.stdout.flush()
            os._exit(0)

sys.stderr = Terminal()
run(sys.argv[1:])
"""
    folder = str(photo.parent)
    command = [sys.executable, "-c", code, *(word.replace("FOLDER", folder) for word in words)]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == "nothing"


HEAVY = {"torch", "numpy", "PIL", "pydantic", "rich", "requests", "urllib3", "psutil", "pyvips", "filelock", "fsspec"}
"""What takes long to import (`scripts/bench.py` says what all takes), and no short command needs."""


@pytest.mark.parametrize(
    ("words", "commands"),
    [
        (["--version"], set()),
        (["uspcale"], set()),
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


def test_every_option_has_help(cli: Cli) -> None:
    for command in ("upscale", "batch", "models", "doctor", "train"):
        text = cli(command, "--help").out
        assert "--debug" in text
        for line in text.splitlines():
            if line.startswith("  -") and "  " not in line.strip():  # an option whose help stands on the next line
                continue
            assert not line.startswith("  -") or len(line.strip().split("  ")) > 1, line


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
    ran = cli("upscale", photo, "-n", "nothing", "--suffix=--debug")
    assert ran.code == 7
    assert "Traceback" not in ran.err
    assert "Traceback" in cli("upscale", photo, "-n", "nothing", "--debug").err
    ran = cli("models", "download", "nothing", "--debug")
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert "SR_UPSCALE_OFFLINE" not in os.environ
    assert cli("upscale", photo, "-n", "realesrgan-x4plus", "--offline").code == 6
    assert cli("train", "-c", "psnr-x4", "--data", "div2k", "-o", tmp_path / "run", "--offline").code == 6
    assert "SR_UPSCALE_OFFLINE" not in os.environ


def test_an_ordinary_picture_imports_no_compiler_and_the_bar_stands_before_torch(photo: Path, nearest: Path) -> None:
    """Each of these modules takes a good part of a second, and none is needed to enlarge."""
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


def test_completion_is_offered() -> None:
    done = subprocess.run(
        [*PROGRAM, ""],
        env={**os.environ, "_SR_UPSCALE_COMPLETE": "complete_bash", "COMP_WORDS": "sr-upscale mod", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["models"]


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
    ran = cli("-i", photo, "--model_path", nearest, *options)
    assert ran.code == 0, ran.err
    sizes = {"-s": (63, 39), "--outscale": (32, 20), "-w": (42, 26), "--size": (50, 26), "--size=60x39": (60, 37)}
    found = load_image(photo.with_name(expected))
    assert (found.width, found.height) == sizes.get(options[0], (42, 26))


def test_quality_changes_the_file(cli: Cli, tmp_path: Path, nearest: Path) -> None:
    source = tmp_path / "p.png"
    Image.fromarray(pattern(64, 64)).save(source)
    for quality in ("20", "95"):
        assert cli(source, "-n", nearest, "-o", tmp_path / f"{quality}.jpg", "-q", quality).code == 0
    assert (tmp_path / "20.jpg").stat().st_size < (tmp_path / "95.jpg").stat().st_size


def test_output_folder(cli: Cli, tmp_path: Path, photo: Path, nearest: Path) -> None:
    (tmp_path / "out").mkdir()
    assert cli(photo, "-n", nearest, "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "photo_x2_nearest-x2.png").exists()


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
    ran = cli(photo, "-n", nearest, "--dry-run", "--tile", "16")
    assert ran.code == 0
    assert "21x13" in ran.out
    assert "42x26: nearest-x2, 2 tiles" in ran.out
    assert "MiB" in ran.out
    assert list(photo.parent.iterdir()) == [photo]
    data = json.loads(cli(photo, "-n", nearest, "--dry-run", "--json").out)
    assert data["dry_run"] is True


def test_the_estimate_grows_with_the_picture_and_is_what_a_slow_network_takes(
    cli: Cli, tmp_path: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that takes 0.05 s for the probe of 96x96 takes 0.2 s for 192x192."""
    from sr_upscale.inference.loaded_networks import LoadedNetworks

    class Slow:
        dtype = "slow"

        def __call__(self, probe: Any) -> Any:
            time.sleep(0.05)
            return probe

    monkeypatch.setattr(LoadedNetworks, "get", lambda *_: Slow())
    for side, expected in ((96, 0.05), (192, 0.2)):
        Image.fromarray(pattern(side, side)).save(tmp_path / f"{side}.png")
        data = json.loads(cli(tmp_path / f"{side}.png", "-n", nearest, "--dry-run", "--json").out)
        assert expected <= data["estimated_seconds"] < 1.6 * expected + 0.1  # reading is counted


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


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "no picture given"),
        (["p.png", "--scale", "2", "--width", "9"], "contradict each other"),
        (["p.png", "--size", "9by9"], "expected WIDTHxHEIGHT"),
        (["p.png", "--size", "9x9", "-w", "3"], "--size, --print and --width"),
        (["p.png", "--size", "90x90", "--fit", "fill"], "--fit is 'fill'; expected inside, cover, stretch"),
        (["p.png", "--fp32", "--fp16"], "--fp32 and --fp16 contradict"),
        (["p.png", "--tile", "32", "--no-tile"], "--tile and --no-tile contradict"),
        (["p.png", "-q", "101"], "expected 1 to 100"),
        (["p.png", "-o", "x.xyz"], "no known ending"),
        (["p.png", "-f", "jpgg"], "did you mean jpg"),
        (["p.png", "--max-pixels", "many"], "expected a number of pixels"),
        (["p.png", "--nonsense"], "nonsense"),
        (["p.png", "-s", "four"], "--scale is 'four'"),
        (["p.png", "-s", "0.5"], "only enlarges"),
        (["p.png", "-g", "tpu"], "expected auto, cpu, cuda"),
        (["p.png", "--fp16", "-g", "cpu"], "fp16 needs a GPU"),
        (["-", "p.png"], "standard input and output take one picture"),
        (["batch", "."], "-o|no images|."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors_are_one_line_and_exit_code_2(
    cli: Cli, photo: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], words: str
) -> None:
    monkeypatch.chdir(photo.parent)
    photo.rename("p.png")
    if argv[:1] == ["batch"]:
        argv = ["batch", ".", "-o", "p.png"]
        words = "is a file"
    ran = cli("upscale", *argv, "-n", nearest) if argv[:1] != ["batch"] else cli(*argv, "-n", nearest)
    assert ran.code == 2, ran.err
    assert ran.out == ""
    assert len(ran.err.strip().splitlines()) == 1
    assert words in ran.err
    assert [path.name for path in photo.parent.iterdir()] == ["p.png"]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--noise", "2"], "no option --noise: --denoise 0..1"),
        (["--face_enhance"], "no option --face-enhance: faces are not repaired"),
        (["-m", "models"], "no option -m: a folder of models is not needed"),
        (["-c", "95"], "-q is the quality"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_of_other_programs_are_answered(cli: Cli, photo: Path, words: list[str], answer: str) -> None:
    ran = cli(photo, *words)
    assert ran.code == 2
    assert answer in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a.png", "--nonsense"], "`sr-upscale upscale --help`, or try `sr-upscale photo.jpg -o out.png`"),
        (["batch"], "'FOLDER'; see `sr-upscale batch --help`, or try `sr-upscale batch photos -o photos_x4`"),
        (
            ["train", "--steps", "x"],
            "a whole number; see `sr-upscale train --help`, or try `sr-upscale train -c psnr-x4",
        ),
        (["doctor", "--nonsense"], "see `sr-upscale doctor --help`"),
    ],
)
def test_a_usage_error_names_the_help_of_its_command_and_an_example(cli: Cli, argv: list[str], message: str) -> None:
    ran = cli(*argv)
    assert ran.code == 2
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1


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


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["batch", "PHOTO"], "photo.png is a file, and batch takes a folder; use `sr-upscale "),
        (["PHOTO", "--scale", "big"], "--scale is 'big'; expected a factor such as 2, 3.5 or 4x"),
        (["--scale", "4x", "none.png"], "none.png: no such file"),
        (["--list-models"], "no option --list-models: `sr-upscale models` lists them"),
        (["PHOTO", "--seamless"], "no option --seamless: --wrap x|y|both makes seamless textures"),
    ],
)
def test_near_misses_are_answered(cli: Cli, photo: Path, argv: list[str], message: str) -> None:
    ran = cli(*(str(photo) if word == "PHOTO" else word for word in argv))
    assert ran.code in (2, 4)
    assert message in ran.err


@pytest.mark.parametrize("scale", ["3", "3x", "x3", "3.0X"])
def test_a_factor_may_be_written_with_an_x(cli: Cli, photo: Path, nearest: Path, scale: str, tmp_path: Path) -> None:
    assert cli(photo, "-n", nearest, "--scale", scale, "-o", tmp_path / "out.png").code == 0
    with Image.open(photo) as small, Image.open(tmp_path / "out.png") as large:
        assert large.size == (3 * small.width, 3 * small.height)


def test_commands_as_people_type_them(cli: Cli, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("help").out == cli("--help").out
    assert cli("help", "batch").out == cli("batch", "--help").out
    assert cli("models", "help").out == cli("models", "--help").out
    assert cli("version").out == cli("--version").out
    assert cli("models", "list").out == cli("models").out
    ran = cli("uspcale", photo)
    assert ran.code == 2
    assert "'uspcale' is neither a command nor a file; did you mean `sr-upscale upscale`?" in ran.err
    assert (
        cli("models", "serch").err
        == "sr-upscale: No such command 'serch'. Did you mean 'search'? See `sr-upscale models --help`\n"
    )
    assert (
        "'search' is neither a command nor a file; did you mean `sr-upscale models search`?"
        in cli("search", "anime").err
    )
    monkeypatch.chdir(photo.parent)
    photo.rename("batches")
    assert cli("batches", "--dry-run", "-f", "png").code == 0  # a file that is there is a picture


def test_an_output_without_its_option_is_asked_back(cli: Cli, photo: Path) -> None:
    target = photo.with_name("large.png")
    ran = cli(photo, target)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"sr-upscale: {target}: no such file; if it is the output, write -o {target}\n"
    assert list(photo.parent.iterdir()) == [photo]


def test_no_words_at_all_show_the_help(cli: Cli) -> None:
    ran = cli()
    assert (ran.code, ran.err) == (2, "")
    assert ran.out.startswith("Usage: sr-upscale [OPTIONS] COMMAND [ARGS]...\n")
    assert ran.out == cli("--help").out


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("-s", "four"), "--scale is 'four'; expected a factor such as"),
        (("--scale=four",), "--scale is 'four'; expected a factor such as"),
        (("--outscale", "four"), "--scale is 'four'; expected a factor such as"),
        (("-w", "1.5"), "-w is '1.5'; expected a whole number; see"),
        (("--fidelity", "1.01"), "--fidelity is '1.01'; expected a number from 0 to 1; see"),
        (("--fidelity", "nan"), "--fidelity is 'nan'; expected a number from 0 to 1; see"),
    ],
)
def test_a_refused_value_is_repeated(cli: Cli, photo: Path, words: tuple[str, ...], answer: str) -> None:
    ran = cli(photo, *words)
    assert ran.code == 2
    assert ran.err.startswith(f"sr-upscale: {answer}")


def test_a_number_at_the_edge_of_its_range_is_taken_and_one_beyond_is_not(cli: Cli, tmp_path: Path) -> None:
    assert cli("benchmark", "--dataset", tmp_path, "--limit", "1").err.startswith(f"sr-upscale: {tmp_path}")
    answer = "sr-upscale: --limit is '0'; expected a whole number of 1 or more; see"
    assert cli("benchmark", "--dataset", tmp_path, "--limit", "0").err.startswith(answer)


def test_several_pictures_do_not_become_a_folder_with_the_name_of_a_picture(cli: Cli, photo: Path) -> None:
    out = photo.with_name("one.png")
    for words in ([photo, photo.with_name("other.png")], [photo.parent], ["batch", photo.parent]):
        ran = cli(*words, "-o", out)
        assert ran.code == 2
        assert "one.png is a file; " in ran.err
        assert not out.exists()


def test_internal_errors_exit_with_1_and_show_the_traceback_only_on_request(
    cli: Cli, photo: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_args: object, **_more: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("sr_upscale.pipeline.job.run", break_down)
    ran = cli(photo, "-n", nearest)
    assert ran.code == 1
    assert len(ran.err.strip().splitlines()) == 1
    assert "internal error: KeyError: 'oops'" in ran.err
    assert "Traceback" in cli(photo, "-n", nearest, "--debug").err


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_signals_stop_with_their_own_codes_and_leave_nothing(
    cli: Callable[..., Ran], photo: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch, number: int, word: str
) -> None:
    def kill(*_args: object, **_more: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr("sr_upscale.images.codecs.png.write_rows", kill)
    before = signal.getsignal(number)
    ran = cli(photo, "-n", nearest, "-o", photo.with_name("out.png"))
    assert ran.code == 128 + number
    assert ran.err == f"sr-upscale: {word}; unfinished files were removed\n"
    assert list(photo.parent.iterdir()) == [photo]
    assert signal.getsignal(number) == before


def test_memory_error_has_its_own_code(
    cli: Callable[..., Ran], photo: Path, nearest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_args: object, **_more: object) -> None:
        raise MemoryError

    monkeypatch.setattr("sr_upscale.pipeline.job.run", stop)
    ran = cli(photo, "-n", nearest)
    assert ran.code == 8
    assert len(ran.err.strip().splitlines()) == 1


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
@pytest.mark.parametrize(
    "words", [["models"], ["models", "list", "--json"], ["--help"], ["upscale", "--help"], ["--version"], ["PICTURE"]]
)
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


def test_a_bad_pipe_is_an_error(nearest: Path) -> None:
    done = subprocess.run([*PROGRAM, "-", "-n", str(nearest)], input=b"", capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (4, b"")
    assert b"standard input: empty file" in done.stderr


def test_progress_is_for_terminals_and_colour_follows_no_color(photo: Path, nearest: Path) -> None:
    """On a pseudo-terminal there is a bar on stderr; with NO_COLOR there are no colour codes in it."""
    import pty

    for extra, coloured in (({"TERM": "xterm-256color"}, True), ({"TERM": "xterm-256color", "NO_COLOR": "1"}, False)):
        environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "CI")} | extra
        mine, theirs = pty.openpty()
        process = subprocess.Popen(
            [
                *PROGRAM,
                str(photo),
                "-n",
                str(nearest),
                "-o",
                str(photo.with_name("o.png")),
                "--force",
                "-s",
                "8",
                "-t",
                "16",
            ],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=environment,
        )
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


@pytest.mark.parametrize("ending", ["/", "/deep/"])
def test_a_folder_that_ends_so_is_made_for_one_picture(
    cli: Cli, photo: Path, nearest: Path, tmp_path: Path, ending: str
) -> None:
    ran = cli(photo, "-n", nearest, "-o", f"{tmp_path}/new{ending}")
    assert ran.code == 0, ran.err
    assert [path.name for path in Path(f"{tmp_path}/new{ending}").iterdir()] == ["photo_x2_nearest-x2.png"]


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
    ran = cli("batch", folder, "-n", nearest, "--json")
    assert ran.code == 3
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
    for name in ("a.NEF", "b.nef", "Makefile"):
        (folder / name).write_bytes(b"...")
    ran = cli("batch", folder, "-n", nearest, "--json")
    assert "left out, not readable as pictures: 2 .nef, 1 without an ending, 1 .txt\n" in ran.err
    assert events(ran.out)[-1]["left_out"] == {".nef": 2, ".txt": 1, "without an ending": 1}


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


def test_batch_output_inside_the_input_is_not_an_input_of_the_next_run(cli: Cli, folder: Path, nearest: Path) -> None:
    (folder / "deep" / "bad.jpg").unlink()
    for expected in ("2 done", "0 done, 2 skipped"):
        ran = cli("batch", folder, "-o", folder / "out", "-n", nearest)
        assert ran.code == 0
        assert expected in ran.err


def test_batch_dry_run(cli: Cli, folder: Path, nearest: Path) -> None:
    ran = cli("batch", folder, "-n", nearest, "--dry-run")
    assert ran.code == 3
    assert len(ran.out.splitlines()) == 2
    assert "would fail" in ran.err
    assert not folder.with_name("in_x2").exists()


def test_a_dry_run_has_the_shape_of_a_run_with_the_failing_items_in_it(cli: Cli, folder: Path, nearest: Path) -> None:
    ran = cli("batch", folder, "-n", nearest, "--dry-run", "--json")
    assert ran.code == 3
    *pictures, summary = events(ran.out)
    assert [row["status"] for row in pictures] == ["planned", "failed", "planned"]
    assert pictures[1]["exit_code"] == 4
    assert pictures[0]["output_size"] == [10, 8]
    assert (summary["planned"], summary["failed"], summary["exit_code"]) == (2, 1, 3)
    assert summary["estimated_seconds"] >= pictures[0]["estimated_seconds"] > 0


def test_every_failure_is_an_object_too(cli: Cli, folder: Path, nearest: Path, photo: Path) -> None:
    for words, code, kind in (
        ([folder / "readme.txt"], 4, "InputError"),
        ([photo, "-n", "nonsense"], 7, "ModelError"),
        ([photo, "--nonsense"], 2, "UsageError"),
        ([photo, "-s", "four"], 2, "UsageError"),
        (["models", "info", "nonsense"], 7, "ModelError"),
        (["batch", folder / "none"], 4, "InputError"),
    ):
        ran = cli(*words, "--json")
        assert ran.code == code, ran.err
        (error,) = events(ran.out)
        assert (error["event"], error["code"], error["kind"]) == ("error", code, kind)
        assert error["message"] in ran.err


def test_a_line_a_picture_also_when_it_is_interrupted(folder: Path, nearest: Path) -> None:
    """Each line is there when its picture is, and the last one says how it ended."""
    code = f"""
import os, signal, sys
from sr_upscale.cli.app import run
from sr_upscale.cli.console import Console
real = Console.event
def event(self, kind, data):
    real(self, kind, data)
    if data.get("status") == "done":
        os.kill(os.getpid(), signal.SIGINT)
Console.event = event
sys.exit(run(["batch", {str(folder)!r}, "-n", {str(nearest)!r}, "--json", "-j", "1:1:1"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    first, *_more, last = events(done.stdout)
    assert (first["event"], first["status"]) == ("picture", "done")
    assert (last["event"], last["code"]) == ("error", 130)


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


def test_a_folder_as_the_picture_is_a_batch(cli: Cli, folder: Path, nearest: Path) -> None:
    assert cli("-i", folder, "-n", nearest).code == 3
    assert folder.with_name("in_x2").is_dir()


def test_several_files(cli: Cli, folder: Path, nearest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = cli(folder / "a.png", folder / "deep" / "deeper" / "b.bmp", "-o", out, "-n", nearest)
    assert ran.code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        ".sr-upscale.jsonl",
        "a_x2_nearest-x2.png",
        "b_x2_nearest-x2.bmp",
    ]


def test_a_torn_manifest_line_is_ignored(cli: Cli, folder: Path, nearest: Path) -> None:
    (folder / "deep" / "bad.jpg").unlink()
    cli("batch", folder, "-n", nearest)
    manifest = folder.with_name("in_x2") / ".sr-upscale.jsonl"
    manifest.write_bytes(manifest.read_bytes() + b'{"output": "a.p')
    assert "0 done, 2 skipped" in cli("batch", folder, "-n", nearest).err
    Image.fromarray(pattern(3, 3)).save(folder / "new.png")
    assert "1 done, 2 skipped" in cli("batch", folder, "-n", nearest).err  # its line is not glued to the torn one
    assert "0 done, 3 skipped" in cli("batch", folder, "-n", nearest).err


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
    ran = cli("batch", folder, "-n", nearest)
    assert ran.code == 3
    assert "a.png: internal error: KeyError: 'oops'" in ran.err
    assert "1 done, 0 skipped, 1 failed" in ran.err


# --- models and doctor ------------------------------------------------------------------------------


def test_models_lists_the_table(cli: Cli) -> None:
    from sr_upscale.pretrained.registry import TABLE

    data = json.loads(cli("models", "--json").out)
    assert [row["name"] for row in data["models"]][: len(TABLE)] == [entry.name for entry in TABLE]
    text = cli("models").out
    for row in data["models"][: len(TABLE)]:
        assert row["installed"], row["name"]
        assert row["license"] in text
        assert row["scores"]["set5"][row["name"]]["psnr_y"] > 25  # some give PSNR away for looks


def test_doctor_checks_and_reports(cli: Cli) -> None:
    import hashlib

    import torch

    from sr_upscale.pretrained.registry import TABLE

    ran = cli("doctor", "--json")
    assert ran.code == 0, ran.out
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
    ran = cli("doctor")
    assert ran.code == 1
    assert "PROBLEM    weights psnr-x4 are missing" in ran.out
    assert f"PROBLEM    the test run failed: model {DEFAULT_MODEL}-x" in ran.out


def closed(stream: str, *argv: object) -> subprocess.CompletedProcess[bytes]:
    """Runs the program with a standard stream closed, as a shell does."""
    words = [sys.executable, "-m", "sr_upscale", *map(str, argv)]
    return subprocess.run(["sh", "-c", f'exec "$@" {stream}', "sh", *words], capture_output=True, check=False)


@pytest.mark.parametrize("stream", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
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
