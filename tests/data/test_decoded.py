"""Decoded pictures in the cache: the right pixels, decoded once, and no more of them than there is room for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_upscale.data import decoded
from sr_upscale.data.decoded import load_pairs
from sr_upscale.data.patches import find_pictures
from sr_upscale.errors import TrainingError
from tests.helpers import pattern


def test_cached_pictures_are_the_decoded_ones(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run decodes nothing; a changed picture is decoded again; bad ones are named each time."""
    (folder / "bad.png").write_bytes(b"nothing")
    paths, cache = find_pictures([folder]), tmp_path / "cache"
    options = {"scale": 2, "min_side": 16}
    plain = load_pairs(paths, **options)  # type: ignore[arg-type]
    first = load_pairs(paths, **options, cache=cache)  # type: ignore[arg-type]
    said: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr("sr_upscale.data.decoded._decode", None)
        second = load_pairs(paths, **options, cache=cache, on_warning=said.append)  # type: ignore[arg-type]
    assert len(said) == 1
    assert "bad.png" in said[0]
    for pairs in (first, second):
        for ours, theirs in zip(pairs, plain, strict=True):
            assert ours.name == theirs.name
            np.testing.assert_array_equal(ours.hr, theirs.hr)
            np.testing.assert_array_equal(ours.lr, theirs.lr)
    Image.fromarray(255 - pattern(44, 47)).save(paths[0])
    changed = load_pairs(paths, **options, cache=cache)[0]  # type: ignore[arg-type]
    np.testing.assert_array_equal(changed.hr, (255 - pattern(44, 47))[:, :46])


def test_a_set_serves_every_patch_size(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other patches are other least sides: pictures that are too small for them are named, and nothing is decoded."""
    paths, cache = find_pictures([folder]), tmp_path / "cache"
    assert len(load_pairs(paths, scale=2, min_side=16, cache=cache)) == 12
    monkeypatch.setattr(decoded, "_decode", None)
    said: list[str] = []
    assert len(load_pairs(paths, scale=2, min_side=40, cache=cache, on_warning=said.append)) == 12
    assert said == []
    with pytest.raises(
        TrainingError, match=r"12 of 12 pictures cannot be used \(.*0.png: 51x40 is smaller than 50 pix"
    ):
        load_pairs(paths, scale=2, min_side=50, cache=cache)
    assert len(list(cache.glob("*.bin"))) == 1


def test_sets_that_cannot_be_used_again_make_room(folder: Path, tmp_path: Path) -> None:
    """Another scale stands beside the first; a changed picture takes the place of what it was; torn sets are redone."""
    paths, cache = find_pictures([folder]), tmp_path / "cache"

    def sets() -> set[Path]:
        return set(cache.glob("*.bin"))

    load_pairs(paths, scale=2, min_side=16, cache=cache)
    (first,) = sets()
    load_pairs(paths, scale=3, min_side=16, cache=cache)
    assert len(sets()) == 2
    Image.fromarray(255 - pattern(44, 47)).save(paths[0])
    load_pairs(paths, scale=2, min_side=16, cache=cache)
    (changed,) = sets()
    assert changed != first
    for torn, content in ((changed, b"torn"), (changed.with_suffix(".json"), b"{")):
        torn.write_bytes(content)
        np.testing.assert_array_equal(
            load_pairs(paths, scale=2, min_side=16, cache=cache)[0].hr, (255 - pattern(44, 47))[:, :46]
        )


def test_the_set_that_was_used_longest_ago_makes_room(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, cache = find_pictures([folder]), tmp_path / "cache"
    monkeypatch.setattr(decoded, "CACHE_BYTES", 230_000)  # a set of these has about 90 000
    for age, scale in ((30, 2), (20, 3), (10, 4)):
        before = set(cache.glob("*.json"))
        load_pairs(paths, scale=scale, min_side=16, cache=cache)
        (new,) = set(cache.glob("*.json")) - before
        if scale == 3:
            load_pairs(paths, scale=2, min_side=16, cache=cache)  # used again: now the other one is the oldest
            oldest = new
        os.utime(new, (new.stat().st_mtime - age,) * 2)
        if scale == 2:
            first = new
    left = set(cache.glob("*.json"))
    assert oldest not in left
    assert left == {first, new}
    assert {path.with_suffix(".json") for path in cache.glob("*.bin")} == left


def test_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    Image.fromarray(pattern(32, 40)).save(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    cache, said = tmp_path / "file" / "cache", []
    (pair,) = load_pairs([tmp_path / "a.png"], scale=2, min_side=16, cache=cache, on_warning=said.append)
    assert np.array_equal(pair.hr, pattern(32, 40))
    assert said == [
        f"decoded pictures are held in memory: the cache {cache} cannot be used (Not a directory); "
        "SR_UPSCALE_CACHE names another folder"
    ]


def test_a_picture_that_cannot_be_read_is_not_a_fault_of_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One vanishes after it was found; another fails while it is read. Both are named, and the rest is cached."""
    paths, cache = find_pictures([folder]), tmp_path / "cache"
    whole = decoded.load_plain8

    def fails(path: Path) -> object:
        if path == paths[3]:
            raise OSError(5, "Input/output error")
        return whole(path)

    monkeypatch.setattr(decoded, "load_plain8", fails)
    said: list[str] = []
    assert len(load_pairs(paths, scale=2, min_side=16, cache=cache, on_warning=said.append)) == 11
    assert said == [f"left out: {paths[3]}: cannot be read: Input/output error"]
    paths[3].unlink()
    monkeypatch.undo()
    said.clear()
    assert len(load_pairs(paths, scale=2, min_side=16, cache=cache, on_warning=said.append)) == 11
    assert len(said) == 1
    assert said[0].startswith(f"left out: {paths[3]}")
