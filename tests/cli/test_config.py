"""Defaults of a file: below the command line, and no misspelt word is silent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import Cli, pattern


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SR_UPSCALE_CONFIG", str(tmp_path / "config.toml"))
    return tmp_path / "config.toml"


def test_the_file_stands_below_the_command_line_and_above_the_programs_own(
    cli: Cli, tmp_path: Path, file: Path, nearest: Path
) -> None:
    file.write_text(f"[upscale]\nmodel = {json.dumps(str(nearest))}\nscale = 3\nforce = true\n[batch]\nscale = 1.5\n")
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    Image.fromarray(pattern(8, 10)).save(tmp_path / "in" / "a.png")

    def size(*words: object) -> tuple[int, int]:
        cli(*words, code=0)
        with Image.open(tmp_path / "out" / "a.png") as image:
            return image.size

    one = (tmp_path / "in" / "a.png", "-o", tmp_path / "out" / "a.png")
    assert size(*one) == (30, 24)
    assert size("upscale", *one, "--scale", "2") == (20, 16)
    assert size("batch", tmp_path / "in", "-o", tmp_path / "out", "-n", nearest, "--force") == (15, 12)
    assert cli("config").out.splitlines() == [
        str(file), f"upscale --model {nearest}", "upscale --scale 3", "upscale --force True", "batch --scale 1.5"
    ]  # fmt: skip
    assert json.loads(cli("config", "--json").out)["defaults"]["batch"] == {"scale": 1.5}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("quality = 900", "quality is 900; expected 1 to 100 (set in {})"),
        ("scale = 'big'", "--scale is 'big'; expected a factor such as 2, 3.5 or 4x (set in {})"),
        ("scale = ['2']", "scale is a list; expected one value (set in {})"),
        ("tile = 'big'", "Invalid value for '-t' / '--tile': expected a whole number"),
    ],
)
def test_a_value_that_cannot_be_says_in_which_file_it_stands(
    cli: Cli, file: Path, photo: Path, text: str, words: str
) -> None:
    file.write_text(f"[upscale]\n{text}\n")
    ran = cli(photo, "--dry-run")
    assert (ran.code, words.format(file) in ran.err, f"(set in {file})" in ran.err) == (2, True, True)
    assert "(set in" not in cli(photo, "--dry-run", "--quality", 0, "--scale", 2, "--tile", 0).err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[upscale]\nscal = 2\n", "upscale.scal is no option; did you mean scale?"),
        ("[upscale]\nmax_memory = '2G'\n", "upscale.max_memory is no option; did you mean max-memory?"),
        ("[upscael]\nscale = 2\n", "upscael is no command; did you mean upscale?"),
        ("scale = 2\n", "scale stands in no table; write [upscale] above it"),
        ("[upscale]\nbefore = [1]\n", "upscale.before is [1]; expected a text"),
        ("[upscale.scale]\na = 1\n", "upscale.scale is {'a': 1}; expected a text"),
        ("[upscale\n", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_what_the_file_must_not_hold(cli: Cli, file: Path, photo: Path, text: str | None, words: str) -> None:
    if text is not None:
        file.write_text(text)
    for line in (("config",), (photo, "--dry-run")):
        ran = cli(*line)
        assert (ran.code, ran.out) == (2, "")
        assert words in ran.err
