"""The page's server in a process of its own, a client for it, and what somebody does on the page in a browser of Playwright's."""

import base64
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
STARTED = re.compile(r"Paint here: (http://\S+)")


@dataclass
class Served:
    address: str
    process: subprocess.Popen
    output: Path  # what it has printed

    @property
    def port(self) -> int:
        return urlsplit(self.address).port

    def ask(self, method: str, path: str, body: bytes | str | None = None, **headers: str) -> http.client.HTTPResponse:
        """The answer, whose body is still to be read; asked as the page would."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, body, {"Origin": f"http://127.0.0.1:{self.port}"} | headers)
        return connection.getresponse()

    def facts(self) -> dict:
        return json.loads(self.ask("GET", "/studio.json").read())

    def paint(self, png: bytes, **changed) -> http.client.HTTPResponse:
        asked = {
            "mask": base64.b64encode(png).decode(),
            "reference": 0,
            "name": "",
            "seed": 0,
            "options": {},
            "adapters": [],
            "quick": False,
        }
        return self.ask("POST", "/paint", json.dumps(asked | {"color_match": "histogram"} | changed))

    def picture(self, png: bytes, **changed) -> bytes:
        """The JPEG that is painted."""
        (last,) = events(self.paint(png, **changed))[-1:]
        assert last["event"] == "picture", last
        return base64.b64decode(last["picture"])

    def memory(self) -> int:
        """Bytes that the process holds in memory."""
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) * 1024


def events(answer: http.client.HTTPResponse) -> list[dict]:
    assert answer.status == 200, answer.read()
    return [json.loads(line) for line in answer.read().splitlines()]


@contextmanager
def serving(data: Path, run: Path, output: Path, *words, port: int = 0) -> Iterator[Served]:
    """MainTest.py --serve with a run, until the block ends; it must end well then."""
    command = [ROOT / "MainTest.py", "--serve", "--port", port, "--input_path", data, "--img_path", data, "--checkpoint", run, *words]
    with open(output, "w") as file:
        process = subprocess.Popen([sys.executable, *map(str, command)], stdout=file, stderr=subprocess.STDOUT, cwd="/")
    try:
        while not (started := STARTED.search(output.read_text())):
            assert process.poll() is None, output.read_text()
            time.sleep(0.05)
        yield Served(started[1], process, output)
        assert process.poll() is None, output.read_text()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 0, output.read_text()
    finally:
        process.kill()
        process.wait()


# -------------------------------------------------------------------------------------------------------------- the browser


@contextmanager
def window(browser, address: str) -> Iterator:
    """The page in a fresh window, when its first picture is there. Whatever goes wrong in it fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, locale="en-US")
    page, trouble = context.new_page(), []
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda message: trouble.append(message.text) if "Content Security Policy" in message.text else None)
    page.goto(address)
    settle(page)
    yield page
    context.close()
    assert not trouble


def settle(page) -> None:
    """Waits for the picture of what was done last."""
    page.wait_for_timeout(500)  # longer than the page itself waits for more
    page.wait_for_selector("body[data-state=done]", timeout=60_000)


def drag(page, *places: tuple[float, float]) -> None:
    """A stroke with the mouse through places, given as shares of the mask's width and height."""
    box = page.locator("#mask").bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=5)
    page.mouse.up()


def choose(page, name: str) -> None:
    page.fill("#search", name)
    page.press("#search", "Enter")
    page.fill("#search", "")
    page.locator("#mask").focus()


def saved(page, button: str) -> bytes:
    with page.expect_download() as download:
        page.click(button)
    return Path(download.value.path()).read_bytes()


def mask_of(page) -> np.ndarray:
    with Image.open(io.BytesIO(saved(page, "#save-mask"))) as mask:
        assert (mask.mode, mask.size, mask.format) == ("I;16", (512, 384), "PNG")
        return np.array(mask)


def pair_of(page) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(saved(page, "#save-pair"))) as pair:
        assert pair.testzip() is None
        return {name: pair.read(name) for name in pair.namelist()}
