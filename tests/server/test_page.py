"""The page in a real browser: drop, enlarge, compare, download, cancel, leave; by mouse, and by keyboard alone."""

from __future__ import annotations

import base64
import io
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Dialog, Page, sync_playwright

from tests.helpers import pattern
from tests.server.conftest import Gate
from tests.server.running import TOKEN, Running, png, serving, until
from tests.video.clips import hashes, make_clip

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the chromium command")

DROP = """([name, type, data]) => {
    const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0)), carried = new DataTransfer();
    carried.items.add(new File([bytes], name, { type }));
    document.getElementById("drop").dispatchEvent(
        new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
}"""
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which nothing goes wrong unseen: what the policy stops, and what a script throws, fails the test."""
    page, said = browser.new_page(viewport=PHONE), []  # type: ignore[arg-type]
    page.set_default_timeout(20_000)
    page.on("console", lambda message: said.append(message.text) if "Content Security" in message.text else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    page.close()
    assert said == []


def opened(page: Page, server: Running) -> None:
    page.goto(f"{server.base}/?token={TOKEN}")
    page.wait_for_selector("html[data-ready=yes]")


def drop(page: Page, name: str, data: bytes) -> None:
    page.evaluate(DROP, [name, "image/png", base64.b64encode(data).decode()])


def screen(page: Page) -> np.ndarray:
    canvas = page.frame_locator("iframe").locator("#viewer")
    return np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")).astype(int)


def test_drop_slide_download(page: Page, nearest: Path, tmp_path: Path) -> None:
    small = pattern(30, 40)
    small[:, :, 1:] = 0  # red
    with serving(nearest, folder=tmp_path) as server:
        opened(page, server)
        assert page.locator("#models input").first.get_attribute("value") == str(nearest)
        assert "real photographs" in str(page.locator("#models").text_content())
        drop(page, "röd.png", png(small))
        page.check("#save")  # options may follow the drop
        page.click("text=Format and quality")
        page.select_option("#format", "webp")
        page.click("text=3×")
        page.click("#go")
        page.wait_for_selector("text=120 × 90 by nearest-x2")
        with page.expect_download() as download:
            page.get_by_text("Download", exact=True).click()
        assert download.value.suggested_filename == "röd_x3_nearest-x2.webp"
        got = Path(download.value.path()).read_bytes()
        assert got == (tmp_path / "röd_x3_nearest-x2.webp").read_bytes()
        with Image.open(io.BytesIO(got)) as image:
            assert (image.format, image.size) == ("WEBP", (120, 90))

        viewer = page.frame_locator("iframe").locator("#viewer")
        viewer.wait_for()
        inside = page.frame_locator("iframe")
        assert inside.locator("#lefttag").text_content() == "before"
        assert inside.locator("#righttag").text_content() == "1: nearest-x2 120×90"
        frame = page.frames[-1]
        assert frame.evaluate("document.documentElement.scrollHeight <= innerHeight")  # it does not scroll by itself

        def divider() -> float:
            """The share of the width left of the white line; beside the viewer the page is white, too."""
            row = screen(page)
            return float((4 + np.argmax((row[:, 4:-4] > 250).all(axis=2).mean(axis=0))) / row.shape[1])

        until(lambda: bool((screen(page)[..., 0] > 100).mean() > 0.2))  # both are painted
        assert divider() == pytest.approx(0.5, abs=0.02)
        viewer.focus()
        for _ in range(10):
            page.keyboard.press("ArrowRight")
        assert divider() == pytest.approx(0.7, abs=0.02)
        assert viewer.get_attribute("aria-valuenow") == "70"


def test_again_compares_and_all_results_are_one_download(page: Page, nearest: Path, tmp_path: Path) -> None:
    page.set_viewport_size(DESK)  # type: ignore[arg-type]
    (tmp_path / "album" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png"):
        (tmp_path / "album" / name).write_bytes(png(pattern(10, 12)))
    (tmp_path / "album" / "notes.txt").write_text("no picture")
    with serving(nearest) as server:
        opened(page, server)
        with page.expect_file_chooser() as chooser:
            page.click("#choose-folder")
        chooser.value.set_files(tmp_path / "album")
        page.wait_for_selector("text=1 file of folders left out")
        page.click("text=Enlarge 2 pictures")
        page.wait_for_selector("text=2 pictures done")
        page.click("text=pixels")
        page.fill("#width", "30")
        page.locator("li", has_text="album/a.png").get_by_text("Again").click()
        page.wait_for_selector("text=30 × 25 by nearest-x2")
        inside = page.frame_locator("iframe")
        inside.locator("#right option").nth(2).wait_for(state="attached")
        assert inside.locator("#left option").all_text_contents() == [
            "before",
            "1: nearest-x2 24×20",
            "2: nearest-x2 30×25",
        ]
        frame, column = page.locator("#look").bounding_box(), page.locator("main").bounding_box()
        assert frame is not None
        assert column is not None
        assert frame["x"] > column["x"] + column["width"]  # beside the list
        with page.expect_download() as download:
            page.click("text=Download all")
        with zipfile.ZipFile(download.value.path()) as archive:
            assert archive.testzip() is None
            assert sorted(archive.namelist()) == [
                "album/a_w30_nearest-x2.png",
                "album/a_x2_nearest-x2.png",
                "album/deep/b_x2_nearest-x2.png",
            ]
            with Image.open(io.BytesIO(archive.read("album/a_x2_nearest-x2.png"))) as image:
                assert np.array_equal(np.asarray(image), pattern(10, 12).repeat(2, 0).repeat(2, 1))
        page.click("#clear")
        assert page.locator("li").count() == 0


def test_the_keyboard_alone(page: Page, nearest: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(pattern(10, 12)))

    def tab_to(selector: str) -> None:
        for _ in range(40):
            if page.evaluate("(selector) => document.activeElement?.matches(selector)", selector):
                return
            page.keyboard.press("Tab")
        pytest.fail(f"no Tab leads to {selector}")

    with serving(nearest) as server:
        opened(page, server)
        tab_to("#choose")
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Space")
        chooser.value.set_files(tmp_path / "a.png")
        page.wait_for_selector("li")
        tab_to("[name=size]")
        page.keyboard.press("ArrowLeft")  # from auto to 4x
        tab_to("#go")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=48 × 40 by nearest-x2")
        tab_to("iframe")
        for _ in range(6):
            page.keyboard.press("Tab")
            if page.frames[-1].evaluate("document.activeElement?.id") == "viewer":
                break
        page.keyboard.press("ArrowLeft")
        viewer = page.frame_locator("iframe").locator("#viewer")
        assert viewer.get_attribute("aria-valuenow") == "48"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_errors_stand_out(page: Page, nearest: Path, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    with serving(nearest) as server:
        opened(page, server)
        drop(page, "note.png", b"hello")
        page.click("#go")
        page.wait_for_selector("li.error")
        colours = page.evaluate(
            """() => [getComputedStyle(document.querySelector("li.error .state")).color,
            getComputedStyle(document.getElementById("list")).backgroundColor]"""
        )

    def luminance(colour: str) -> float:
        parts = np.array([float(each) for each in colour[4:-1].split(",")]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    darker, lighter = sorted(luminance(each) for each in colours)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_a_reload_that_would_lose_results_is_asked_about(page: Page, nearest: Path) -> None:
    asked: list[str] = []

    def accept(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", accept)
    with serving(nearest) as server:
        opened(page, server)
        page.click("h1")
        page.reload()
        page.wait_for_selector("html[data-ready=yes]")
        assert asked == []
        drop(page, "a.png", png(pattern(10, 12)))
        page.click("#go")
        page.wait_for_selector("text=1 picture done")
        page.reload()
        assert asked == ["beforeunload"]


def test_what_goes_wrong_is_said_in_words(page: Page, nearest: Path) -> None:
    with serving(nearest, max_bytes=1000) as server:
        opened(page, server)
        assert page.locator("#saving").is_hidden()
        drop(page, "<b>note.png", b"hello")
        drop(page, "large.png", bytes(1001))
        page.click("#go")
        page.wait_for_selector("li.error >> text=<b>note.png: looks like a text file")
        page.wait_for_selector("li.error >> text=which this server does not take")
        page.goto(f"{server.base}/?token=wrong")
        assert "no token, or a wrong one" in page.content()


def test_a_clip_is_cancelled_then_enlarged_shown_and_downloaded(
    page: Page, nearest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    from sr_upscale.video.run import Network

    begun, opened_gate, step = threading.Event(), threading.Event(), Network._large

    def slow(*arguments: Any) -> Any:
        begun.set()
        assert opened_gate.wait(30)
        return step(*arguments)

    monkeypatch.setattr(Network, "_large", slow)
    with serving(nearest) as server:
        opened(page, server)
        with page.expect_file_chooser() as chooser:
            page.click("text=Choose files")
        chooser.value.set_files(make_clip(tmp_path, "silent.webm"))
        page.click("text=Format and quality")
        page.select_option("#format", "webm")
        page.click("#go")
        assert begun.wait(30)
        page.wait_for_selector("li >> text=0 %")
        page.get_by_text("Cancel").click()
        page.wait_for_selector("li.error >> text=cancelled")
        opened_gate.set()
        page.get_by_text("Try again").click()
        page.wait_for_selector("text=128 × 96 by nearest-x2")
        until(lambda: page.evaluate("document.querySelector('video').videoWidth") == 128)
        with page.expect_download() as download:
            page.get_by_text("Download", exact=True).click()
        assert download.value.suggested_filename == "silent_x2_nearest-x2.webm"
        assert len(hashes(Path(download.value.path()))) == 30


def test_a_comic_is_enlarged_page_by_page(page: Page, nearest: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tale.cbz", "w") as book:
        for number in (2, 1):
            book.writestr(f"{number}.png", png(pattern(8, 10 + number)))
        book.writestr("ComicInfo.xml", "<ComicInfo/>")
    with serving(nearest, folder=tmp_path) as server:
        opened(page, server)
        with page.expect_file_chooser() as chooser:
            page.click("#choose")
        chooser.value.set_files(tmp_path / "tale.cbz")
        page.check("#save")
        page.click("#go")
        page.wait_for_selector("text=2 pages up to 24 × 16 by nearest-x2")
        with page.expect_download() as download:
            page.get_by_text("Download", exact=True).click()
        assert download.value.suggested_filename == "tale_x2_nearest-x2.cbz"
        assert Path(download.value.path()).read_bytes() == (tmp_path / "tale_x2_nearest-x2.cbz").read_bytes()
        with zipfile.ZipFile(download.value.path()) as book:
            assert book.namelist() == ["2.png", "1.png", "ComicInfo.xml"]
            with Image.open(io.BytesIO(book.read("1.png"))) as image:
                assert np.array_equal(np.asarray(image), pattern(8, 11).repeat(2, 0).repeat(2, 1))
        assert page.locator("#look").is_hidden()  # nothing to look at, and no blank place for it


def test_what_was_chosen_is_shown_until_there_is_a_result(page: Page, nearest: Path) -> None:
    page.set_viewport_size(DESK)  # type: ignore[arg-type]
    with serving(nearest) as server:
        opened(page, server)
        assert page.locator("#look").is_hidden()
        for name in ("a.png", "b.png"):
            drop(page, name, png(pattern(10, 12)))
        page.wait_for_selector("#look img[alt='a.png']")
        page.get_by_label("Remove a.png").click()
        page.wait_for_selector("#look img[alt='b.png']")
        page.click("#go")
        page.wait_for_selector("#look iframe")
        page.get_by_label("Remove b.png").click()
        page.wait_for_selector("#look", state="hidden")


@pytest.mark.parametrize("how", ["cancel", "leave"])
def test_a_page_that_goes_takes_its_job_along(page: Page, nearest: Path, gate: Gate, how: str) -> None:
    page.on("dialog", lambda dialog: dialog.accept())
    with serving(nearest) as server:
        opened(page, server)
        drop(page, "a.png", png(pattern(30, 40)))
        page.click("#go")
        assert gate.reached.wait(30)
        page.wait_for_selector("li >> text=0 %")
        if how == "cancel":
            page.get_by_text("Cancel").click()
            page.wait_for_selector("li.error >> text=cancelled")
        else:
            page.goto("about:blank")
        page.wait_for_timeout(300)  # the server sees it go
        gate.opened.set()
        until(lambda: gate.ended == ["Cancelled"])
