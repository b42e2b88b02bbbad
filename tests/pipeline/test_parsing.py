"""Parsers of options and sizes: every text is a value or one error of use, and a value is what its text says."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sr_upscale.errors import UsageError
from sr_upscale.inference.sizing import MAX_SCALE, Target, choose_factors
from sr_upscale.pipeline import parsing
from sr_upscale.pipeline.parsing import Jobs, Shard

PARSERS: list[Callable[[str], Any]] = [
    parsing.parse_shard, parsing.parse_scale, parsing.parse_size, parsing.parse_box, parsing.parse_pixels,
    parsing.parse_bytes, parsing.parse_colour, parsing.parse_format, parsing.parse_jobs,
]  # fmt: skip
NUMBERS = st.text("0123456789.eE:x,/-+ kMGTPiB", max_size=12)
SIDES = st.integers(1, 5000)


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
@given(text=st.text(max_size=20) | NUMBERS | st.tuples(NUMBERS, st.sampled_from("x:,/"), NUMBERS).map("".join))
@example("9" * 5000 + "x" + "9" * 5000)
@example(",".join(["9" * 5000] * 4))
@example(":".join(["9" * 5000] * 3))
def test_any_text_is_a_value_or_one_short_error(parse: Callable[[str], Any], text: str) -> None:
    refused = ""
    try:
        parse(text)
    except UsageError as error:
        refused = str(error)
    assert len(refused) < 250


@given(a=SIDES, b=SIDES, c=SIDES, d=SIDES, sign=st.sampled_from("xX×"))
def test_whole_numbers_are_what_they_say(a: int, b: int, c: int, d: int, sign: str) -> None:
    assert parsing.parse_size(f" {a}{sign}{b}") == (a, b)
    assert parsing.parse_box(f"{a},{b},{c},{d}") == (a, b, c, d)
    assert parsing.parse_jobs(f"{a}:{b}:{c}") == Jobs(load=a, proc=b, save=c)
    assert parsing.parse_shard(f"{min(a, b)}/{max(a, b)}") == Shard(index=min(a, b), count=max(a, b))


@given(whole=st.integers(1, 999), tenths=st.integers(0, 9), unit=st.sampled_from(" KMGT"), end=st.sampled_from("B "))
def test_numbers_with_units_are_what_they_say(whole: int, tenths: int, unit: str, end: str) -> None:
    number, text = whole + Fraction(tenths, 10), f"{whole}.{tenths}"
    exact = number * 1024 ** " KMGT".index(unit)
    assert parsing.parse_bytes((text + unit + end).replace(" ", "")) == pytest.approx(float(exact), rel=1e-12, abs=1)
    assert parsing.parse_pixels(f"{text}MP") == pytest.approx(number * 10**6)
    assert parsing.parse_pixels(f"{whole}") == whole
    for scale in (text, f"x{text}", f"{text}x"):
        assert parsing.parse_scale(scale) == float(text)


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (parsing.parse_shard, ["", "0/3", "4/3", "1", "a/b", "1/0", "-1/3"]),
        (parsing.parse_bytes, ["", "much", "0", "2X", "-1G", "9" * 400]),
        (parsing.parse_pixels, ["", "many", "9e999", "9" * 400 + "MP", "-5"]),
        (parsing.parse_jobs, ["2", "a:b:c", "1:2", "0:1:1"]),
        (parsing.parse_size, ["9by9", "9x", "x9", "-9x9"]),
        (parsing.parse_print, ["40x30", "40cm", "0x3cm", "-4x3cm", "4x3ft", "1e3x2cm"]),
    ],
)
def test_what_is_none_is_refused(parse: Callable[[str], Any], texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(UsageError, match=" (is|are) .*; expected"):
            parse(text)


# --- sizes ------------------------------------------------------------------------------------------


@given(have=st.tuples(SIDES, SIDES), box=st.tuples(SIDES, SIDES))
def test_a_target_is_inside_its_box_or_covers_it(have: tuple[int, int], box: tuple[int, int]) -> None:
    """And touches it on one side, and keeps the proportions but for the rounding; smaller ones are refused."""
    ratios = [Fraction(want, side) for want, side in zip(box, have, strict=True)]
    for fit, ratio in (("inside", min(ratios)), ("cover", max(ratios))):
        target = Target(width=box[0], height=box[1], fit=fit)
        exact = [max(Fraction(1), side * ratio) for side in have]
        if any(round(want) < side for want, side in zip(exact, have, strict=True)) or ratio > MAX_SCALE:
            with pytest.raises(UsageError, match="than the input|times the input"):
                target.enlarged_size(*have, default_scale=4)
            continue
        try:
            found = target.enlarged_size(*have, default_scale=4)
        except UsageError:  # a side of few pixels that is rounded up
            assert ratio > MAX_SCALE - 1
            continue
        assert all(abs(side - want) <= 0.5 for side, want in zip(found, exact, strict=True))
        assert any(side == want for side, want in zip(found, box, strict=True))
        assert target.output_size(*have, default_scale=4) == (box if fit == "cover" else found)


@given(available=st.sets(st.sampled_from([2, 3, 4]), min_size=1), needed=st.floats(1, 64))
def test_factors_reach_what_is_needed_and_no_pass_is_for_nothing(available: set[int], needed: float) -> None:
    """But for resampling of a tenth, which no pass is run for; a smaller last factor would not do."""
    factors = choose_factors(available, needed)
    assert set(factors) <= available
    product = 1
    for factor in factors[:-1]:
        product *= factor
    assert product * factors[-1] >= needed / 1.2
    assert len(factors) == 1 or product < needed
    for smaller in (each for each in available if each < factors[-1]):
        assert product * smaller < needed
