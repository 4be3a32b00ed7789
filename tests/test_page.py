"""The page, as somebody paints on it: in a real browser, Chromium, driven by Playwright. Skipped where either is missing."""

import io
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.test_pairs import find_test_pairs
from models.serving.page import routes_of
from models.serving.studio import Studio, to_choose_from
from models.serving.worker import Worker
from tests.page import choose, drag, mask_of, pair_of, saved, serving, settle, window
from tests.test_commands import run
from tests.test_serving import HalfSky, OneNumber, Plain
from utils.image import encode, resize
from utils.web import Server

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")
STEPS = ["--steps", 4]


@pytest.fixture(scope="module")
def served(data, untrained, tmp_path_factory):
    with serving(data, untrained, tmp_path_factory.mktemp("served") / "output.txt", *STEPS) as served:
        yield served


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, served):
    with window(browser, served.address) as page:
        yield page


class Held(Plain, HalfSky):
    """A painter and a judge that take no time, or as much as the test wants."""

    def __init__(self):
        self.may = threading.Event()  # go on
        self.may.set()

    def paint(self, masks, references, *others):
        self.may.wait(60)
        return references

    def labels(self, pictures, size):
        self.may.wait(60)
        return super().labels(pictures, size)


@pytest.fixture(scope="module")
def held(data):
    """A server in this process, whose painter has no steps."""
    both, worker = Held(), Worker()
    studio = Studio(both, OneNumber(), "none", 3, resize, both, *to_choose_from(find_test_pairs(data, data), data), "plain", False)
    routes = routes_of(studio, worker)
    with Server("127.0.0.1", 0, "", lambda method, path: routes.get((method, path))) as server:
        for work in (worker.work, server.serve_forever):
            threading.Thread(target=work, daemon=True).start()
        both.address = server.address
        yield both
        server.shutdown()


@pytest.fixture
def plain_page(browser, held):
    held.may.set()
    with window(browser, held.address) as page:
        page.set_default_timeout(60_000)
        yield page


def command(data: Path, run_folder: Path, folder: Path, mask: bytes, name: str, reference: str, *words) -> bytes:
    """What MainTest.py paints of a mask that was saved."""
    (folder / "masks").mkdir()
    (folder / "masks" / f"{name}.png").write_bytes(mask)
    (folder / "masks" / "label_to_img.json").write_text(json.dumps({f"{name}.png": reference}))
    files = ["--input_path", folder / "masks", "--img_path", data, "--output_path", folder / "out", "--checkpoint", run_folder]
    result = run("MainTest.py", *files, *STEPS, *words)
    assert result.returncode == 0, result.stderr
    return (folder / "out" / f"{name}.jpg").read_bytes()


def test_a_mask_is_drawn_filled_undone_and_saved_to_the_pixel(page):
    before = mask_of(page)
    choose(page, "tree")
    drag(page, (0.2, 0.3), (0.5, 0.35))
    drawn = mask_of(page)
    changed = drawn != before
    assert changed[384 * 3 // 10 : 384 * 36 // 100, 110:250].any() and set(np.unique(drawn[changed])) == {5}
    choose(page, "岩石")  # rock: Chinese names are found too
    page.keyboard.press("g")
    drag(page, (0.3, 0.315))
    filled = mask_of(page)
    assert set(np.unique(filled[filled != drawn])) == {4} and (filled == 4)[changed].all()
    page.keyboard.press("Control+z")
    assert np.array_equal(mask_of(page), drawn)
    page.click("#undo")
    assert np.array_equal(mask_of(page), before)
    page.keyboard.press("Control+Shift+z")
    assert np.array_equal(mask_of(page), drawn)

    page.keyboard.press("e")
    drag(page, (0.2, 0.3), (0.5, 0.35))
    assert np.array_equal(mask_of(page), before)
    page.keyboard.press("h")
    choose(page, "sea")
    drag(page, (0.5, 0.9), (0.5, 0.5))
    level = mask_of(page)
    assert (level[195:] == 3).all() and np.array_equal(level[:150], before[:150])
    page.keyboard.press("l")
    choose(page, "road")
    page.keyboard.press("[")
    drag(page, (0.1, 0.6), (0.9, 0.8))
    assert (mask_of(page)[384 * 7 // 10 - 4 : 384 * 7 // 10 + 4, 256] == 23).all()
    page.locator("#mask").focus()
    page.keyboard.press("b")
    choose(page, "boat")
    for key in ("ArrowLeft", "ArrowUp", " "):
        page.keyboard.press(key)
    assert (mask_of(page) == 15).any()
    settle(page)


def test_a_mask_is_saved_and_loaded_to_the_same_bytes(page, tmp_path):
    choose(page, "bridge")
    drag(page, (0.3, 0.5), (0.7, 0.52))
    first = saved(page, "#save-mask")
    (tmp_path / "mine.png").write_bytes(first)
    page.click("#clear")
    assert saved(page, "#save-mask") != first
    page.set_input_files("#mask-file", tmp_path / "mine.png")
    settle(page)
    assert saved(page, "#save-mask") == first
    eight = np.array(Image.open(io.BytesIO(first))).astype(np.uint8)
    Image.fromarray(eight).save(tmp_path / "eight.png")
    page.click("#clear")
    page.set_input_files("#mask-file", tmp_path / "eight.png")
    settle(page)
    assert saved(page, "#save-mask") == first
    page.uncheck("#live")
    settle(page)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    page.set_input_files("#mask-file", tmp_path / "bad.png")
    page.wait_for_selector("#status.trouble")
    assert "the mask cannot be read" in page.inner_text("#status") and saved(page, "#save-mask") == first
    page.click("#language")
    assert "文件无法读取" in page.inner_text("#status")


def test_the_picture_has_the_bytes_of_the_command(page, data, untrained, tmp_path):
    choose(page, "mountain")
    drag(page, (0.1, 0.6), (0.4, 0.3), (0.7, 0.6))
    photo = page.locator("#photos button").nth(3)
    photo.click()
    page.click("#more")
    page.fill("#name", "蓝山 1")
    page.press("#name", "Tab")
    page.click("#all-options button[data-t=close]")
    page.fill("#seed", "7")
    page.press("#seed", "Enter")
    page.click("#another")
    settle(page)
    mask, picture = saved(page, "#save-mask"), saved(page, "#save-picture")
    assert command(data, untrained, tmp_path, mask, "蓝山 1", photo.get_attribute("title"), "--seed", 8) == picture
    assert pair_of(page) == {"蓝山 1.png": mask, "蓝山 1.jpg": picture}


def test_a_picture_is_stopped_and_settings_are_remembered(page):
    before = saved(page, "#save-picture")
    steps = page.locator("#options .option", has_text="Steps").locator("input")
    steps.evaluate("(range) => { range.max = 1000; range.value = 1000; range.dispatchEvent(new Event('change')); }")
    page.wait_for_selector("body[data-state=painting]")
    page.click("#stop")
    page.wait_for_selector("body[data-state=stopped]")
    assert saved(page, "#save-picture") == before
    steps.evaluate("(range) => { range.value = 2; range.dispatchEvent(new Event('change')); }")
    settle(page)
    page.click("#language")
    page.click("#theme")
    page.click("#view-full")
    mask = saved(page, "#save-mask")
    page.reload()
    settle(page)
    assert page.inner_text("#paint") == "出图" and page.get_attribute("html", "data-theme") == "dark"
    assert page.get_attribute("#workspace", "data-view") == "full" and saved(page, "#save-mask") == mask
    assert "2" in page.locator("#options .option", has_text="步数").inner_text()


def test_it_survives_that_the_server_starts_again(browser, data, untrained, tmp_path):
    """With a photo of one's own, which the new server does not know."""
    photo = sorted((data / "train_resized" / "imgs").iterdir())[2]
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    with serving(data, untrained, tmp_path / "first.txt", *STEPS) as first:
        page.goto(first.address)
        settle(page)
        page.set_input_files("#own-photo-file", photo)
        settle(page)
        before = saved(page, "#save-picture")
    choose(page, "rock")
    drag(page, (0.2, 0.2), (0.3, 0.2))
    page.wait_for_selector("body[data-state=away]")
    page.keyboard.press("Control+z")
    with serving(data, untrained, tmp_path / "second.txt", *STEPS, port=first.port):
        settle(page)
        assert saved(page, "#save-picture") == before
        assert page.inner_text("#run") == "untrained"
    context.close()


def test_a_stroke_that_changes_nothing_costs_no_picture(page, plain_page):
    choose(page, "rock")
    drag(page, (0.3, 0.3))
    drag(page, (0.3, 0.3))
    settle(page)
    page.mouse.down()  # and rests
    page.wait_for_selector("#picture[data-quality=quick]", timeout=60_000)
    page.wait_for_selector("#stop", state="hidden", timeout=60_000)
    page.mouse.up()
    page.wait_for_selector("#picture[data-quality=final]", timeout=60_000)

    choose(plain_page, "rock")
    for _ in range(2):
        drag(plain_page, (0.3, 0.3))
    settle(plain_page)
    assert saved(plain_page, "#save-mask") in pair_of(plain_page).values()


def test_what_is_drawn_but_not_painted_is_kept_and_no_part_of_a_pair(plain_page):
    page, name = plain_page, plain_page.input_value("#name")
    painted, picture = saved(page, "#save-mask"), saved(page, "#save-picture")
    page.uncheck("#live")
    choose(page, "bridge")
    drag(page, (0.3, 0.5), (0.7, 0.52))
    drawn = saved(page, "#save-mask")
    assert drawn != painted and pair_of(page) == {f"{name}.png": painted, f"{name}.jpg": picture}
    page.click("#open")
    page.locator("#examples button").nth(1).click()
    page.wait_for_function("(name) => document.getElementById('name').value !== name", arg=name)
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename == f"{name}.jpg" and Path(download.value.path()).read_bytes() == picture
    page.locator("#mask").focus()
    page.keyboard.press("Control+z")
    assert saved(page, "#save-mask") == drawn
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert saved(page, "#save-mask") == drawn
    page.click("#paint")
    settle(page)
    assert drawn in pair_of(page).values()


def test_the_judge_is_stopped_or_has_its_mask_drawn_on(plain_page, held, data):
    page, photo = plain_page, sorted((data / "train_resized" / "imgs").iterdir())[0]
    before = saved(page, "#save-mask")
    page.uncheck("#live")
    held.may.clear()
    page.set_input_files("#photo-file", photo)
    page.wait_for_selector("body[data-state=looking]")
    page.click("#stop")
    page.wait_for_selector("body[data-state=stopped]")
    held.may.set()
    page.wait_for_timeout(500)
    assert saved(page, "#save-mask") == before
    page.set_input_files("#photo-file", photo)
    page.wait_for_selector("body[data-state=waiting]")
    assert (mask_of(page)[[0, -1], 0] == [1, 3]).all() and page.is_hidden("#stop")
    page.check("#live")
    settle(page)


def test_only_a_second_finger_takes_a_stroke_back(plain_page):
    page, before = plain_page, mask_of(plain_page)
    choose(page, "tree")
    box = page.locator("#mask").bounding_box()
    places = [{"x": box["x"] + x * box["width"], "y": box["y"] + 0.3 * box["height"], "id": i} for i, x in enumerate((0.2, 0.5))]
    page.mouse.move(places[0]["x"], places[0]["y"])
    page.mouse.down()
    for kind in ("pointerdown", "pointercancel"):  # of a palm
        page.dispatch_event("#mask", kind, {"pointerId": 77, "pointerType": "touch"})
    page.mouse.move(places[1]["x"], places[1]["y"])
    page.mouse.up()
    assert (mask_of(page)[115, [103, 180, 256]] == 5).all()
    page.keyboard.press("Control+z")
    touch = page.context.new_cdp_session(page)
    for fingers in (places[:1], places, []):
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart" if fingers else "touchEnd", "touchPoints": fingers})
    assert np.array_equal(mask_of(page), before)
    settle(page)


def test_a_mask_that_was_opened_is_undone_whole(plain_page, tmp_path):
    page, before = plain_page, mask_of(plain_page)
    (tmp_path / "sea.png").write_bytes(encode(np.full((384, 512), 3, np.uint8), "PNG"))
    choose(page, "rock")
    drag(page, (0.2, 0.3), (0.5, 0.35))
    page.keyboard.press("l")
    page.mouse.down()
    page.mouse.move(600, 300)
    page.set_input_files("#mask-file", tmp_path / "sea.png")  # in the midst of a line, which is given up
    page.wait_for_function("() => document.getElementById('name').value === 'sea'")
    page.mouse.move(500, 300)
    page.mouse.up()
    assert (mask_of(page) == 3).all()
    page.keyboard.press("Control+z")
    page.keyboard.press("e")
    drag(page, (0.2, 0.3), (0.5, 0.35))
    assert np.array_equal(mask_of(page), before)
    settle(page)


def test_space_does_what_the_tool_does(plain_page):
    page = plain_page
    page.click("#clear")
    for tool, name in (("g", "rock"), ("i", "tree")):
        choose(page, name)
        page.keyboard.press(tool)
        page.keyboard.press(" ")
        assert (mask_of(page) == 4).all() and page.get_attribute("#classes [aria-checked=true]", "data-label") == "4"
    settle(page)


def test_a_connection_that_ends_early_is_no_picture(plain_page):
    page = plain_page
    for address in ("**/paint", "**/studio.json"):
        page.route(address, lambda route: route.abort())
    page.route("**/paint", lambda route: route.fulfill(body='{"event": "begun"}\n'), times=1)
    for _ in range(2):  # in the midst of a picture, and where there is no answer at all
        page.click("#another")
        page.wait_for_timeout(500)
        page.wait_for_selector("body[data-state=away]")
        assert page.is_hidden("#stop")
    page.unroute_all()
    settle(page)
