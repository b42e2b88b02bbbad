"""The page in a real browser: drop, slide, download, cancel, leave."""

from __future__ import annotations

import base64
import io
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from sr_upscale.pipeline import job as pipeline
from tests.helpers import pattern
from tests.server.running import TOKEN, png, serving, until

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the chromium command")

DROP = """([name, type, data]) => {
    const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0)), carried = new DataTransfer();
    carried.items.add(new File([bytes], name, { type }));
    document.getElementById("drop").dispatchEvent(
        new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which nothing goes wrong unseen: what the policy stops, and what a script throws, fails the test."""
    page, said = browser.new_page(viewport={"width": 390, "height": 844}), []
    page.set_default_timeout(20_000)
    page.on("console", lambda message: said.append(message.text) if "Content Security" in message.text else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    page.close()
    assert said == []


def drop(page: Page, name: str, data: bytes) -> None:
    page.evaluate(DROP, [name, "image/png", base64.b64encode(data).decode()])


def screen(page: Page) -> np.ndarray:
    canvas = page.frame_locator("iframe").locator("#viewer")
    return np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")).astype(int)


def test_drop_slide_download(page: Page, nearest: Path, tmp_path: Path) -> None:
    small = pattern(30, 40)
    small[:, :, 1:] = 0  # red
    with serving(nearest, folder=tmp_path) as server:
        page.goto(f"{server.base}/?token={TOKEN}")
        page.wait_for_selector("html[data-ready=yes]")
        assert page.locator("#model option").first.text_content() == str(nearest)
        page.check("#save")
        page.select_option("#format", "webp")
        page.fill("#scale", "3")
        drop(page, "röd.png", png(small))
        page.wait_for_selector("text=120 × 90 by nearest-x2")
        with page.expect_download() as download:
            page.click("text=Download")
        assert download.value.suggested_filename == "röd_x3_nearest-x2.webp"
        got = Path(download.value.path()).read_bytes()
        assert got == (tmp_path / "röd_x3_nearest-x2.webp").read_bytes()
        with Image.open(io.BytesIO(got)) as image:
            assert (image.format, image.size) == ("WEBP", (120, 90))

        viewer = page.frame_locator("iframe").locator("#viewer")
        viewer.wait_for()
        inside = page.frame_locator("iframe")
        assert inside.locator("#lefttag").text_content() == "before"
        assert inside.locator("#righttag").text_content() == "after"

        def divider() -> float:
            """The share of the width left of the white line."""
            row = screen(page)
            return float(np.argmax((row > 250).all(axis=2).mean(axis=0)) / row.shape[1])

        until(lambda: bool((screen(page)[..., 0] > 100).mean() > 0.2))  # both are painted
        assert divider() == pytest.approx(0.5, abs=0.02)
        viewer.focus()
        for _ in range(10):
            page.keyboard.press("ArrowRight")
        assert divider() == pytest.approx(0.7, abs=0.02)


def test_what_goes_wrong_is_said_in_words(page: Page, nearest: Path) -> None:
    with serving(nearest, max_bytes=1000) as server:
        page.goto(f"{server.base}/?token={TOKEN}")
        page.wait_for_selector("html[data-ready=yes]")
        assert page.locator("#saving").is_hidden()
        drop(page, "<b>note.png", b"hello")
        page.wait_for_selector("li.error >> text=<b>note.png: looks like a text file")
        drop(page, "large.png", bytes(1001))
        page.wait_for_selector("li.error >> text=which this server does not take")
        page.goto(f"{server.base}/?token=wrong")
        assert "no token, or a wrong one" in page.content()


@pytest.mark.parametrize("how", ["cancel", "leave"])
def test_a_page_that_goes_takes_its_job_along(
    page: Page, nearest: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    begun, opened, start = threading.Event(), threading.Event(), pipeline.start
    ended: list[str] = []

    def held(*arguments: Any, on_step: Callable[[int, int], None], **more: Any) -> Any:
        def step(done: int, total: int) -> None:
            begun.set()
            assert opened.wait(30)
            on_step(done, total)

        try:
            return start(*arguments, on_step=step, **more)
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    monkeypatch.setattr(pipeline, "start", held)
    with serving(nearest) as server:
        page.goto(f"{server.base}/?token={TOKEN}")
        page.wait_for_selector("html[data-ready=yes]")
        drop(page, "a.png", png(pattern(30, 40)))
        assert begun.wait(30)
        page.wait_for_selector("li >> text=0 %")
        if how == "cancel":
            page.get_by_role("button", name="Cancel").click()
            page.wait_for_selector("li.error >> text=cancelled")
        else:
            page.goto("about:blank")
        page.wait_for_timeout(300)  # the server sees it go
        opened.set()
        until(lambda: ended == ["Cancelled"])
