"""What the page's server does about requests that mean it harm: garbage, fuzzed bodies and headers, foreign names, false paths and sizes,
slow and vanished clients, many at once.

    python tests/benchmarks/hostile_requests.py --requests 10000

starts a server of its own on 127.0.0.1, with a run that has learnt nothing, and prints how often it has answered what, its memory before
and after, and every harm: a crash, a traceback or an internal error that a client saw, a secret file's content, a file that has changed.
"""

import argparse
import base64
import json
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils import jittor_setup  # noqa: F401  (before anything that imports Jittor)

# isort: split
import numpy as np

from datasets.synthetic.write import write_dataset
from tests.page import Served, serving
from tests.small import write_small_run
from utils.image import encode, jpeg

SECRET = "it-was-in-a-file-that-nobody-may-read"
SECONDS = 60  # until a client has no patience left
GETS = ("/", "/studio.json", "/references/0.jpg", "/examples/0", "/examples/0.png", "/main.js", "/nothing")
POSTS = ("/paint", "/labels", "/photos", "/judge", "/nothing")
ODD = (None, True, -1, 0, 10**30, 1e308, "", "\ud800", "../" * 9 + "secret.txt", "\x00", [], {}, [[]], {"a": {}}, "x" * 5000, "nan")


@dataclass
class Counts:
    answers: Counter = field(default_factory=Counter)  # by kind of request and status; "cut off" where there was none
    harm: list[str] = field(default_factory=list)


class Attacker:
    def __init__(self, served: Served, rng: random.Random):
        self.port, self.rng = served.port, rng
        pixels = np.random.default_rng(rng.randrange(2**32))
        self.mask = encode(pixels.integers(0, 29, (384, 512), np.uint8), "PNG")
        self.photo = jpeg(pixels.integers(0, 256, (96, 128, 3), np.uint8))

    def head(self, method: str, path: str, *lines: str) -> bytes:
        own = f"127.0.0.1:{self.port}"
        return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {own}", f"Origin: http://{own}", *lines, "", ""]).encode(
            "utf-8", "replace"
        )

    def mutated(self, content: bytes) -> bytes:
        """The bytes with some changed, cut out, or repeated."""
        changed, rng = bytearray(content), self.rng
        for _ in range(rng.randrange(1, 9)):
            at = rng.randrange(len(changed) + 1)
            match rng.randrange(3):
                case 0:
                    changed[at : at + 1] = rng.randbytes(1)
                case 1:
                    del changed[at : at + rng.randrange(1, 200)]
                case 2:
                    changed[at:at] = changed[at : at + rng.randrange(1, 200)]
        return bytes(changed)

    # ------------------------------------------------------------------------------------------------- kinds of requests

    def sound(self) -> bytes:
        return self.head("GET", self.rng.choice(GETS))

    def garbage(self) -> bytes:
        return self.rng.randbytes(self.rng.randrange(1, 3000)) + self.rng.choice([b"", b"\r\n\r\n"])

    def path(self) -> bytes:
        dots = self.rng.choice(["../", "..%2f", "..\\", "%2e%2e/", "....//", "/", "\x00/", "..;/"])
        target = self.rng.choice(["etc/passwd", "secret.txt", "run.json", "proc/self/environ", "MainTest.py"])
        return self.head(
            self.rng.choice(["GET", "POST", "HEAD", "PUT", "TRACE", "CONNECT"]), "/" + dots * self.rng.randrange(1, 9) + target
        )

    def headers(self) -> bytes:
        return self.mutated(self.head("POST", self.rng.choice(POSTS), "Content-Length: 3") + b"abc")

    def names(self) -> bytes:
        host = self.rng.choice(
            ["evil.example", f"evil.example:{self.port}", "127.0.0.1", "[::1", f"127.0.0.1:{self.port}@evil.example", ""]
        )
        return f"GET /studio.json HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()

    def sizes(self) -> bytes:
        size = self.rng.choice(["-1", "0x10", "1e9", str(2**31), str(2**63), str(10**50), "1\r\nContent-Length: 2", " ", "३"])
        extra = self.rng.choice(["X: y", "Transfer-Encoding: chunked", "Expect: 100-continue", "Content-Encoding: gzip"])
        return self.head("POST", self.rng.choice(POSTS), f"Content-Length: {size}", extra) + self.rng.randbytes(50)

    def wishes(self) -> bytes:
        asked = {"mask": base64.b64encode(self.mask).decode(), "reference": 0, "name": "x", "seed": 0, "options": {"steps": 2}}
        asked |= {"adapters": [], "color_match": "none", "quick": False}
        for _ in range(self.rng.randrange(3)):
            asked[self.rng.choice([*asked])] = self.rng.choice(ODD)
        if self.rng.random() < 0.3:
            asked["options"] = {self.rng.choice(["steps", "guidance", "sampler", "tile", "__class__", "prompt"]): self.rng.choice(ODD)}
        body = json.dumps(asked).encode()
        body = self.mutated(body) if self.rng.random() < 0.3 else body
        return self.head("POST", "/paint", f"Content-Length: {len(body)}") + body

    def pictures(self) -> bytes:
        body = self.mutated(self.rng.choice([self.mask, self.photo]))
        return self.head("POST", self.rng.choice(["/labels", "/photos"]), f"Content-Length: {len(body)}") + body

    def cut_short(self) -> bytes:
        """A request that ends before it is whole."""
        whole = self.wishes()
        return whole[: self.rng.randrange(len(whole))]

    def send(self, kind: str) -> tuple[str, bytes]:
        """Sends a request of a kind; returns what became of it, and the answer."""
        request = (self.cut_short if kind in ("vanished", "slow") else getattr(self, kind))()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as connection:
                if kind == "slow":
                    until = time.monotonic() + 3
                    for byte in request[:200]:
                        connection.sendall(bytes([byte]))
                        time.sleep(0.05)
                        if time.monotonic() > until:
                            break
                    return "given up", b""
                connection.sendall(request)
                if kind == "vanished":
                    return "hung up", b""
                if kind in ("garbage", "headers", "cut_short", "sizes"):
                    connection.shutdown(socket.SHUT_WR)
                pieces = []
                while piece := connection.recv(2**16):
                    pieces.append(piece)
        except TimeoutError:
            return "no answer", b""
        except OSError:
            return "cut off", b""
        answer = b"".join(pieces)
        return answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "cut off", answer


KINDS = {  # how many of each in a hundred
    **{"sound": 10, "garbage": 10, "path": 15, "headers": 15, "names": 5, "sizes": 10},
    **{"wishes": 15, "pictures": 10, "cut_short": 5, "vanished": 4, "slow": 1},
}


def attack(served: Served, count: int, seed: int, clients: int) -> Counts:
    """Sends so many requests, of kinds as often as KINDS says, so many at once."""
    counts, rng = Counts(), random.Random(seed)
    kinds = rng.choices([*KINDS], weights=[*KINDS.values()], k=count)
    seeds = [rng.randrange(2**32) for _ in kinds]

    def one(kind: str, own_seed: int) -> tuple[str, str, bytes]:
        return kind, *Attacker(served, random.Random(own_seed)).send(kind)

    with ThreadPoolExecutor(clients) as pool:
        for kind, result, answer in pool.map(one, kinds, seeds):
            counts.answers[f"{kind}: {result}"] += 1
            if result in ("500", "no answer") or b"Traceback" in answer or SECRET.encode() in answer or b"root:x:" in answer:
                counts.harm.append(f"{kind} {result} {answer[-300:]!r}")
    if served.process.poll() is not None:
        counts.harm.append(f"the server has ended with {served.process.returncode}")
    printed = served.output.read_text(errors="replace")
    counts.harm += [line for line in printed.splitlines() if "Traceback" in line or "could not be answered" in line]
    return counts


def state_of(*folders: Path) -> dict[str, tuple[int, int]]:
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=50, help="at once (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "secret.txt").write_text(SECRET)
        write_dataset(root / "data", train=10, test=5, seed=1, size=(128, 96), progress=False)
        write_small_run(root / "run")
        before = state_of(root / "data", root / "run", Path(__file__).resolve().parents[2] / "utils")
        with serving(root / "data", root / "run", root / "output.txt", "--steps", 3) as served:
            attack(served, min(500, args.requests), args.seed + 1, args.clients)  # what is allocated once is allocated
            memory, start = served.memory(), time.monotonic()
            counts = attack(served, args.requests, args.seed, args.clients)
            seconds, grown = time.monotonic() - start, served.memory()
        if state_of(root / "data", root / "run", Path(__file__).resolve().parents[2] / "utils") != before:
            counts.harm.append("files have changed")
        printed = (root / "output.txt").read_text().splitlines()
    for what, number in sorted(counts.answers.items()):
        print(f"{number:7d}  {what}")
    print(f"{args.requests} requests, {args.clients} at once, in {seconds:.0f} s")
    print(f"The server's memory: {memory / 2**20:.0f} MiB before, {grown / 2**20:.0f} MiB after")
    print(f"The server has printed {len(printed)} lines. Harm: {len(counts.harm)}", *counts.harm[:20], sep="\n")


if __name__ == "__main__":
    main()
