"""Training pictures and patches."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sr_upscale.benchmark.sets import folder_set
from sr_upscale.data.decoded import load_pairs
from sr_upscale.data.degradations import RealWorld
from sr_upscale.data.patches import (
    Batch,
    Pair,
    PatchSampler,
    _busyness,
    batches,
    centre_of,
    find_pictures,
    split_validation,
)
from sr_upscale.errors import InputError
from sr_upscale.functional.resize import downscale_matlab
from tests.helpers import pattern


@pytest.mark.parametrize("degradation", [None, RealWorld(clean_prob=1.0)])
def test_pairs_and_patches_belong_together(pairs: list[Pair], degradation: RealWorld | None) -> None:
    """Every LR patch is the degraded HR patch, turned and mirrored in the same way; with no fault the reduced one."""
    batch = PatchSampler(pairs, scale=2, lr_patch=12, batch_size=40, seed=[0], degradation=degradation)[0]
    lr, hr = batch.lr.float() / 255, batch.hr.float() / 255
    assert lr.shape == (40, 3, 12, 12)
    assert hr.shape == (40, 3, 24, 24)
    inner = (..., slice(3, -3), slice(3, -3))  # a patch ends where the picture goes on
    assert (downscale_matlab(hr, 2)[inner] - lr[inner]).abs().max() <= 1.01 / 255


def test_sampling_is_deterministic_by_seed_and_covers_all_turns(tmp_path: Path) -> None:
    """A square picture that is one patch large comes in exactly its eight turns and mirrorings."""
    Image.fromarray(pattern(32, 32)).save(tmp_path / "square.png")
    pairs = load_pairs(find_pictures([tmp_path]), scale=2, min_side=16)
    side = min(pairs[0].lr.shape[:2])
    first, second, other = (
        PatchSampler(pairs, scale=2, lr_patch=side, batch_size=64, seed=[seed])[3].lr for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert len({patch.numpy().tobytes() for patch in first}) == 8


def test_batches_come_in_order_whoever_makes_them(pairs: list[Pair]) -> None:
    """In this process, in two others, or started later: number n is the same batch."""
    sampler = PatchSampler(pairs, scale=2, lr_patch=8, batch_size=4, seed=[0])
    here, ahead, later = (batches(sampler, start=at, workers=count) for at, count in ((0, 0), (0, 2), (3, 1)))
    expected = [next(here) for _ in range(6)]
    for number, batch in enumerate(expected):
        assert torch.equal(next(ahead).lr, batch.lr)
        assert torch.equal(sampler[number].hr, batch.hr)
        if number >= 3:
            assert torch.equal(next(later).lr, batch.lr)
    assert len({batch.lr.numpy().tobytes() for batch in expected}) == 6


@pytest.mark.parametrize("degradation", [None, RealWorld()])
def test_processes_share_a_batch(pairs: list[Pair], degradation: RealWorld | None) -> None:
    options = {"scale": 2, "lr_patch": 8, "batch_size": 6, "seed": [0], "degradation": degradation}
    whole = PatchSampler(pairs, **options)[5]  # type: ignore[arg-type]
    shares = [PatchSampler(pairs, **options, rank=rank, world=3)[5] for rank in range(3)]  # type: ignore[arg-type]
    for rank, share in enumerate(shares):
        assert torch.equal(share.lr, whole.lr[rank::3])
        assert torch.equal(share.hr, whole.hr[rank::3])


def test_validation_pictures_do_not_depend_on_order_or_place(folder: Path, tmp_path: Path) -> None:
    paths = find_pictures([folder])
    training, held_out = split_validation(paths, 2)
    assert len(held_out) == 2
    assert not set(training) & set(held_out)
    assert set(split_validation(paths[::-1], 2)[1]) == set(held_out)
    (folder / "deep").rename(tmp_path / "deep")
    moved = split_validation(find_pictures([tmp_path / "deep"]), 2)[1]
    assert [path.name for path in moved] == [path.name for path in held_out]


def test_gray_pictures_of_sixteen_bits_are_read_as_they_are(tmp_path: Path) -> None:
    """Pillow alone makes them white."""
    values = np.linspace(0, 65535, 32 * 40).reshape(32, 40).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    (pair,) = load_pairs([tmp_path / "a.png"], scale=2, min_side=16)
    assert np.array_equal(pair.hr, np.repeat(np.rint(values / 257).astype(np.uint8)[..., None], 3, axis=2))


def test_parts_of_a_held_out_picture_are_not_trained_on() -> None:
    paths = [Path(f"/d/{number:04d}_part{part:03d}.png") for number in range(20) for part in range(1, 7)]
    training, held_out = split_validation(paths, 3)
    assert len(held_out) == 3
    sources = {path.name[:4] for path in held_out}
    assert {path.name[:4] for path in training} == {f"{number:04d}" for number in range(20)} - sources
    plain = [Path(f"/d/IMG_{number:03d}.png") for number in range(20)]
    training, held_out = split_validation(plain, 3)
    assert (len(training), len(held_out)) == (17, 3)


def test_middle_of_a_pair_fits_together() -> None:
    hr = pattern(90, 60)
    pair = centre_of(Pair(name="a", hr=hr, lr=hr[::3, ::3]), 31)
    assert pair.hr.shape == (30, 30, 3)
    assert np.array_equal(pair.hr, hr[30:60, 15:45])
    assert np.array_equal(pair.lr, pair.hr[::3, ::3])


def test_names_that_are_no_text_can_be_split() -> None:
    paths = [Path(os.fsdecode(b"/d/\xff%d.png" % number)) for number in range(10)]
    assert len(split_validation(paths, 2)[1]) == 2


def test_batches_can_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's loader pins what has this method, and leaves other types as they are."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    batch = Batch(lr=torch.zeros(1), hr=torch.ones(1), made_s=0.5).pin_memory()
    assert (batch.lr.item(), batch.hr.item(), batch.made_s) == (1, 2, 0.5)


def test_smooth_patches_hold_slopes_alone_and_their_lr_is_their_own(folder: Path) -> None:
    pairs = load_pairs(find_pictures([folder]), scale=2, min_side=32)
    options = {"scale": 2, "lr_patch": 16, "batch_size": 64, "seed": (0,)}
    usual, smooth, half = (
        PatchSampler(pairs, smooth_share=share, **options)[0]
        for share in (0.0, 1.0, 0.5)  # type: ignore[arg-type]
    )

    def steps(batch: Batch) -> NDArray[np.float64]:
        return batch.hr.double().diff(dim=-1).abs().amax(dim=(1, 2, 3)).numpy()

    assert steps(smooth).max() < 24 < steps(usual).min()
    assert 16 < (steps(half) < 24).sum() < 48
    for lr, hr in zip(smooth.lr, smooth.hr, strict=True):
        again = downscale_matlab(hr[None] / 255, 2)[0] * 255
        assert (again.round() - lr).abs().max() <= 1  # the turn comes after the reduction


def test_the_busier_of_two_places_is_taken_as_often_as_asked(folder: Path) -> None:
    pairs = load_pairs(find_pictures([folder]), scale=2, min_side=32)
    means = [
        np.mean([_busyness(lr.permute(1, 2, 0).numpy()) for lr in sampler[0].lr])
        for share in (0.0, 0.5, 1.0)
        for sampler in [PatchSampler(pairs, scale=2, lr_patch=6, batch_size=400, seed=(0,), busy_share=share)]
    ]
    assert means[0] < means[1] < means[2]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n(ran) (r) file\nshowpage\n%%EOF\n"


def test_one_decoder_reads_what_users_enlarge_and_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS that is named as a picture is left out, and no program is started to draw it; a photograph is upright."""
    monkeypatch.setattr("subprocess.Popen", lambda *_: pytest.fail("started a program"))
    (folder / "drawing.png").write_bytes(EPS)
    said: list[str] = []
    assert len(load_pairs(find_pictures([folder]), scale=2, min_side=16, on_warning=said.append)) == 12
    assert "drawing.png: looks like" in said[0]
    with pytest.raises(InputError, match=r"drawing.png: looks like"):
        next(pair for pair in folder_set(folder) if pair.name == "drawing").hr()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pattern(40, 64)).save(folder / "turned.jpg", exif=exif)
    (pair,) = load_pairs([folder / "turned.jpg"], scale=2, min_side=16)
    assert pair.hr.shape == (64, 40, 3)
    assert next(pair for pair in folder_set(folder) if pair.name == "turned").hr().shape == (64, 40, 3)
