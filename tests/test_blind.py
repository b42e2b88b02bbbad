"""Blind pairs: the key says what stands on which side, and the answers are counted by it."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import ROOT, pattern

sys.path.insert(0, str(ROOT / "scripts"))

import blind  # noqa: E402


def darker(lr: np.ndarray) -> np.ndarray:
    return (lr // 2).repeat(4, 0).repeat(4, 1)


def lighter(lr: np.ndarray) -> np.ndarray:
    return (255 - lr // 2).repeat(4, 0).repeat(4, 1)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pairs of crops of one picture, at its corners and within."""
    lr = pattern(130, 140)
    places = [(0, 0), (34, 44), (20, 5), (1, 44)] * 5
    crops = [
        blind.cut(lr, place, "photograph" if at % 2 else "text", "none", "a.png") for at, place in enumerate(places)
    ]
    folder = tmp_path_factory.mktemp("blind") / "pairs"
    blind.write_pairs(crops, ["ours", "rival"], [darker, lighter], folder)
    return folder


def key_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "key.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_key_says_what_stands_where(pairs: Path) -> None:
    """Ours is below 128 everywhere and the rival above; both sides occur."""
    sides = set()
    for row in key_of(pairs):
        pixels = np.asarray(Image.open(pairs / f"{int(row['number']):02d}.png"))
        assert pixels.shape == (96 * 4 * 2, 2 * 96 * 4 * 2 + 16, 3)
        assert (pixels[:, :768].max() < 128) == (row["left"] == "ours")
        assert (pixels[:, -768:].max() < 128) == (row["right"] == "ours")
        sides.add(row["left"])
    assert sides == {"ours", "rival"}


def test_a_crop_shows_its_place_without_the_context() -> None:
    lr = pattern(130, 140)
    for top, left in [(0, 0), (34, 44), (20, 5)]:
        crop = blind.cut(lr, (top, left), "text", "none", "a.png")
        np.testing.assert_array_equal(crop.lr[crop.shown], lr[top : top + 96, left : left + 96])
        np.testing.assert_array_equal(blind.shown(crop, darker), darker(lr[top : top + 96, left : left + 96]))
    whole = blind.cut(pattern(80, 96), (0, 0), "text", "none", "a.png")
    assert whole.lr.shape == whole.lr[whole.shown].shape == (80, 96, 3)


def test_answers_are_counted_by_the_key(pairs: Path) -> None:
    key = key_of(pairs)
    lines = []
    for at, row in enumerate(key):
        ours = "L" if row["left"] == "ours" else "R"
        other = "R" if ours == "L" else "L"
        lines.append(f"{row['number']} {ours if at < 9 else other.lower() if at < 14 else '=' if at < 17 else ''}")
    (pairs / "answers.txt").write_text("\n".join(reversed(lines)))
    said = blind.counted(pairs)
    assert "| together | 9 | 5 | 3 |" in said
    assert "| | ours | rival | equal |" in said
    assert "3 of 20 without an answer" in said
    text = sum(row["kind"] == "text" for row in key[:17])
    numbers = next(line for line in said.splitlines() if line.startswith("| text"))
    assert sum(int(cell) for cell in numbers.split("|")[2:-1]) == text


@pytest.mark.parametrize(
    ("line", "said"),
    [("1 X", "expected a number and L, R or ="), ("77 L", "77 is no such pair"), ("2 L\n2 R", "2 is answered twice")],
)
def test_wrong_answers_are_one_line(pairs: Path, line: str, said: str) -> None:
    (pairs / "answers.txt").write_text(line)
    with pytest.raises(SystemExit, match=said):
        blind.counted(pairs)


def test_the_crops_are_of_every_kind(tmp_path: Path, shared: Path) -> None:
    """24 of them, without --rendered 18, and the same for the same seed."""
    for folder in ("drawings", "text"):
        (tmp_path / folder).mkdir()
        for number in range(4):
            Image.fromarray(np.roll(pattern(384, 384), 40 * number, axis=0)).save(tmp_path / folder / f"{number}.png")
    inputs, photographs = shared / "inputs", [shared / "train" / "bsds400"]
    for made, count in ((tmp_path, 24), (None, 18)):
        first, second = (list(blind.chosen(inputs, photographs, made, np.random.default_rng(4))) for _ in range(2))
        assert len(first) == count
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one.lr, other.lr)
        damages = [crop.damage for crop in first if crop.kind == "photograph"]
        assert sorted(damages) == sorted(["jpeg40", "noise8", "blur", "soft60"] * 3)
