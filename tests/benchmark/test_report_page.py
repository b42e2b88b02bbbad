"""The page in headless Chromium, by finger and mouse, as wide as a phone and as a desk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sr_upscale.benchmark.methods import make_method
from sr_upscale.benchmark.report import Gallery, compare_page, write_report
from sr_upscale.benchmark.run import Protocol, Results, run_benchmark
from sr_upscale.benchmark.sets import folder_set
from tests.helpers import pattern

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the chromium command")

IMAGES = {"input": pattern(96, 160), "bicubic": 255 - pattern(96, 160), "ours": pattern(96, 160)[::-1].copy()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a page at a width in pixels, with touch where that is a phone's; errors of its script fail the test."""
    contexts, errors = [], []

    def call(html: str, width: int) -> Any:
        (tmp_path / "page.html").write_text(html, encoding="utf-8")
        phone = width < 600
        context = browser.new_context(viewport={"width": width, "height": 844}, has_touch=phone, is_mobile=phone)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield call
    for context in contexts:
        context.close()
    assert errors == []


def divider(page: Any) -> float:
    """Where the white line of the viewer is, from 0 to 1."""
    share: float = page.evaluate(
        """() => { const c = document.getElementById('canvas'), y = Math.floor(c.height / 2);
        const row = c.getContext('2d').getImageData(0, y, c.width, 1).data; const white = [];
        for (let x = 0; x < c.width; x++) if (row[4*x] + row[4*x+1] + row[4*x+2] + row[4*x+3] === 1020) white.push(x);
        return white.reduce((a, b) => a + b, 0) / white.length / c.width; }"""
    )
    return share


def swipe(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draws a finger from one point of the window to another."""
    session = page.context.new_cdp_session(page)
    (left, top), (right, bottom) = start, end
    points = [[{"x": left + (right - left) * i / 10, "y": top + (bottom - top) * i / 10}] for i in range(11)]
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": points[0]})
    for each in points[1:]:
        session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": each})
        page.wait_for_timeout(16)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_timeout(100)


def test_compare_opens_on_the_input_against_our_model(opened: Any) -> None:
    page = opened(compare_page("a page", "picture", IMAGES), 1280)
    assert page.inner_text("#lefttag") == "input"
    assert page.inner_text("#righttag") == "ours"
    page.select_option("#right", label="bicubic")
    assert page.inner_text("#righttag") == "bicubic"


def test_a_finger_moves_the_slider_across_and_the_page_along(opened: Any) -> None:
    page = opened(compare_page("a page", "picture", IMAGES), 390)
    box = page.locator("#viewer").bounding_box()
    x, y = box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2
    assert divider(page) == pytest.approx(0.5, abs=0.02)
    swipe(page, (x, y), (x + box["width"] * 0.3, y))
    assert divider(page) == pytest.approx(0.8, abs=0.06)  # the browser keeps the first pixels to itself
    assert page.evaluate("scrollY") == 0
    before = divider(page)
    page.evaluate("document.body.style.paddingBottom = '60rem'")
    swipe(page, (x, y), (x, y - 200))
    assert page.evaluate("scrollY") > 100
    assert divider(page) == pytest.approx(before, abs=0.01)


def test_mouse_and_keys_move_the_slider(opened: Any) -> None:
    page = opened(compare_page("a page", "picture", IMAGES), 1280)
    box = page.locator("#viewer").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, y)
    page.mouse.up()
    assert divider(page) == pytest.approx(0.2, abs=0.01)
    page.focus("#viewer")
    page.keyboard.press("ArrowRight")
    assert divider(page) == pytest.approx(0.22, abs=0.01)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Gallery]:
    from PIL import Image

    folder = tmp_path_factory.mktemp("hr")
    for number in range(3):
        Image.fromarray(pattern(48 + number, 64)).save(folder / f"{number}.png")
    gallery = Gallery()
    methods = [make_method("bicubic", 4), make_method("lanczos", 4)]
    protocol = Protocol(scale=4, crop_border=4, limit=2)
    return run_benchmark({"set5": folder_set(folder)[:2]}, methods, protocol, on_picture=gallery.add), gallery


@pytest.mark.parametrize("width", [390, 1280])
def test_scores_are_readable_and_say_which_way_is_better(
    opened: Any, results: tuple[Results, Gallery], width: int
) -> None:
    page = opened(write_report(*results, with_published=True), width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    headings = page.locator("#tables th").all_inner_texts()
    assert headings[:3] == ["model", "PSNR, dB ↑", "SSIM ↑"]
    assert {"NIQE ↓", "MPix/s ↑"} & set(headings)
    first = page.locator("#tables tbody td").first.bounding_box()
    assert (first["height"] < 48, first["width"] > 90) == (True, True)  # a name is one line, not a column of letters
    for row in page.locator("#tables tbody tr").all():
        for cell in row.locator("td").all()[:3]:  # PSNR and SSIM beside the name, without scrolling
            box = cell.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
    assert page.locator("#scores li").count() == 2
    size, opacity = page.evaluate(
        "() => { const s = getComputedStyle(document.querySelector('#scores li')); return [s.fontSize, s.opacity]; }"
    )
    assert (float(size[:-2]), opacity) == (16, "1")
    assert "--limit 2: at most the first 2 of each set" in page.inner_text("#protocol")
    names = page.locator("tr.published td:first-child").all_inner_texts()
    assert names
    assert all(name.endswith("published, of the whole set") for name in names)
