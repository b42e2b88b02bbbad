"""Pictures to train on: what is held out is of other families and files, and maps are read as their format says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from rendered_letters import Face, Letters, held_out, relatives  # noqa: E402
from rendered_scenes import read_countries  # noqa: E402

FAMILIES = ["DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "Lato", "PT Serif", "PT Mono", "Gentium Plus", "Cardo"]


def faces() -> list[Face]:
    return [Face(Path(f"{family}.ttf"), family, frozenset({"latin"})) for family in FAMILIES]


def test_sisters_fall_on_one_side_and_no_font_on_both() -> None:
    training, held = (Letters(faces(), Path(), held=part) for part in (False, True))
    names = [{relatives(face.family) for face in part.faces} for part in (training, held)]
    assert names[0].isdisjoint(names[1])
    assert len(training.faces) + len(held.faces) == len(FAMILIES)
    assert all(names)


def test_a_sixth_is_held_out_and_stays_so() -> None:
    """The published split; another hash would put held-out letters into training."""
    assert sum(held_out(f"drawing {number}") for number in range(6000)) == pytest.approx(1000, abs=100)
    assert {name: held_out(name) for name in ("noto", "gentium", "dejavu", "liberation")} == {
        "noto": True,
        "gentium": True,
        "dejavu": False,
        "liberation": False,
    }


def test_families_are_drawn_alike_however_many_files_they_have() -> None:
    letters = Letters(faces(), Path(), held=False)
    rng = np.random.default_rng(0)
    drawn = [relatives(letters.face(rng).family) for _ in range(900)]
    families = {relatives(face.family) for face in letters.faces}
    for family in families:
        assert drawn.count(family) / len(drawn) == pytest.approx(1 / len(families), abs=0.06)


def test_outlines_of_topojson_are_sums_of_differences(tmp_path: Path) -> None:
    """Two squares that share a border, walked forwards by one and backwards (~1) by the other."""
    topology = {
        "transform": {"scale": [0.5, 2], "translate": [10, -20]},
        "arcs": [[[2, 0], [-2, 0], [0, 1], [2, 0]], [[2, 1], [0, -1]], [[2, 1], [2, 0], [0, -1], [-2, 0]]],
        "objects": {
            "countries": {
                "geometries": [
                    {"type": "Polygon", "arcs": [[0, 1]]},
                    {"type": "MultiPolygon", "arcs": [[[~1, 2]]]},
                ]
            }
        },
    }
    file = tmp_path / "countries.json"
    file.write_text(json.dumps(topology))
    first, second = read_countries(file)
    np.testing.assert_allclose(first, [[11, -20], [10, -20], [10, -18], [11, -18], [11, -18], [11, -20]])
    np.testing.assert_allclose(second, [[11, -20], [11, -18], [11, -18], [12, -18], [12, -20], [11, -20]])
