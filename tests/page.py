"""The page's server in a process of its own, and a client for it."""

import base64
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

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
