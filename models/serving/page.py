"""The page's server: which request is answered by what.

    GET  /, /<file of utils/paint_page>       the page itself, read once, at the start
    GET  /studio.json                         what there is to choose from
    GET  /references/<i>.jpg                  a small picture of each reference
    GET  /examples/<i>.png, /examples/<i>     each example's mask, small and coloured, and its labels
    POST /labels                              a mask's PNG → its labels: 384 rows of 512 bytes
    POST /photos                              a photo to paint after → {"id": …}
    POST /judge                               a photo → events, the last with the mask that the judge sees in it, a PNG
    POST /paint                               JSON → events, the last with the picture, a JPEG

Events are JSON, one a line, sent as they happen: {"event": "begun" | "step" | "picture" | "mask" | "superseded" | "error", …}.
"""

import base64
import ipaddress
import json
import queue
import re
import secrets
import threading
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from datasets.landscape import read_image, read_mask
from models.painters.pictures import SIZE
from models.serving.studio import Forgotten, Studio, Unknown
from models.serving.uploads import MOST_BYTES, uploaded_mask, uploaded_photo
from models.serving.worker import Job, Worker
from utils.errors import UserError
from utils.image import COLOR_MATCHES, colorize_mask, encode, jpeg, resize
from utils.web import Client, Refused, Reply, Route, Server, as_json

PAGE = Path(__file__).resolve().parents[2] / "utils" / "paint_page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".json": "application/json"}
PORT = 8384
SMALL = (160, 120)  # pictures to choose from
NAME = re.compile(r"[\w.\- ]{0,100}")  # of a mask's file, without its ending
PAINT_BYTES = 2**20  # of a request to paint: a mask's PNG and a few numbers


def add_arguments(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("in the browser")
    group.add_argument("--serve", action="store_true", help="serve a page to paint masks and pictures on, until Ctrl-C")
    group.add_argument("--port", type=int, default=PORT, help="(default: %(default)s)")
    group.add_argument(
        "--host",
        default="127.0.0.1",
        help="one that other machines can reach needs the secret that is printed (default: %(default)s)",
    )


def serve(studio: Studio, host: str, port: int) -> None:
    """Serves the page until KeyboardInterrupt. This thread computes, and others answer. Raises UserError where the port is taken."""
    worker = Worker()
    token = "" if is_loopback(host) else secrets.token_urlsafe(24)
    routes = routes_of(studio, worker)
    try:
        server = Server(host, port, token, lambda method, path: routes.get((method, path)))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot serve on {host}, port {port} ({reason}): choose another with --host and --port") from error
    with server:
        studio.warm_up()
        threading.Thread(target=server.serve_forever, name="server", daemon=True).start()
        print(f"Paint here: {server.address}   (Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            worker.work()
        server.shutdown()


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def routes_of(studio: Studio, worker: Worker) -> dict[tuple[str, str], Route]:
    """What answers each method and path."""
    routes = {("GET", f"/{path.name}"): Route(partial(constant, file_reply(path))) for path in PAGE.iterdir() if path.suffix in KINDS}
    routes[("GET", "/")] = routes[("GET", "/index.html")]
    routes[("GET", "/studio.json")] = Route(lambda _: as_json(studio.facts()))
    for i, photo in enumerate(studio.photos):
        routes[("GET", f"/references/{i}.jpg")] = Route(partial(small_photo, photo))
    for i, pair in enumerate(studio.examples):
        routes[("GET", f"/examples/{i}.png")] = Route(partial(small_mask, pair.mask))
        routes[("GET", f"/examples/{i}")] = Route(partial(labels_of_example, pair.mask))
    routes[("POST", "/labels")] = Route(lambda body: labels(uploaded_mask(body, SIZE)), MOST_BYTES)
    routes[("POST", "/photos")] = Route(lambda body: keep(studio, body), MOST_BYTES)
    routes[("POST", "/judge")] = Route(lambda body: judge(studio, worker, body), MOST_BYTES)
    routes[("POST", "/paint")] = Route(lambda body: paint(studio, worker, body), PAINT_BYTES)
    return routes


# ------------------------------------------------------------------------------------------------------ files and pictures


def file_reply(path: Path) -> Reply:
    return Reply(f"{KINDS[path.suffix]}; charset=utf-8", path.read_bytes())


def constant(reply: Reply, _: bytes) -> Reply:
    return reply


@lru_cache(maxsize=512)
def small_photo(path: Path, _: bytes) -> Reply:
    return Reply("image/jpeg", jpeg(read_image(path, SMALL), quality=85))


@lru_cache(maxsize=512)
def small_mask(path: Path, _: bytes) -> Reply:
    return Reply("image/png", encode(resize(colorize_mask(read_mask(path)), SMALL), "PNG"))


def labels_of_example(path: Path, _: bytes) -> Reply:
    return labels(read_mask(path, SIZE))


def labels(mask: np.ndarray) -> Reply:
    return Reply("application/octet-stream", mask.tobytes())


def keep(studio: Studio, body: bytes) -> Reply:
    photo = uploaded_photo(body, studio.painter.size)
    return as_json({"id": studio.keep(body, photo)})


# ------------------------------------------------------------------------------------------------------------------ events


def judge(studio: Studio, worker: Worker, body: bytes) -> Reply:
    if studio.judge is None:
        raise Refused(404, "No judge has been trained: MainTrain.py --system judge trains one, which sees the mask in a photo.")
    return events(worker, Job(studio.judging(uploaded_photo(body, SIZE))))


def paint(studio: Studio, worker: Worker, body: bytes) -> Reply:
    """{"mask": PNG in base64, "reference": number or id, "name", "seed", "options": {…}, "adapters": [weights], "color_match", "quick"}"""
    try:
        asked = json.loads(body)
        mask, reference, name, seed = (asked[key] for key in ("mask", "reference", "name", "seed"))
        options, adapters, color, quick = (asked[key] for key in ("options", "adapters", "color_match", "quick"))
        content = base64.b64decode(mask, validate=True)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Refused(400, "This is no request to paint.") from error
    right = [
        isinstance(reference, str) or type(reference) is int,
        isinstance(name, str) and NAME.fullmatch(name),
        type(seed) is int and 0 <= seed < 2**63,
        isinstance(options, dict) and isinstance(adapters, list),
        isinstance(color, str) and color in ("", *COLOR_MATCHES),
        isinstance(quick, bool),
    ]
    if not all(right):
        raise Refused(400, "This is no request to paint.")
    try:
        chosen, photo = studio.chosen(options, adapters), studio.reference(reference)
    except Unknown as unknown:
        raise Refused(422, str(unknown)) from unknown
    except Forgotten as forgotten:
        raise Refused(410, str(forgotten)) from forgotten
    return events(worker, Job(studio.painting(uploaded_mask(content, studio.painter.size), photo, name, seed, chosen, color, quick)))


def events(worker: Worker, job: Job) -> Reply:
    """Has the job done, and sends what it tells. One whose client is gone is given up."""

    def send(client: Client) -> None:
        worker.submit(job)
        try:
            for event in iter(partial(next_event, job, client.check), None):
                client.send(json.dumps(event).encode() + b"\n")
        finally:
            job.give_up()

    return Reply("application/x-ndjson; charset=utf-8", stream=send)


def next_event(job: Job, check: Callable[[], None]) -> dict | None:
    while True:
        try:
            return job.events.get(timeout=0.1)
        except queue.Empty:
            check()
