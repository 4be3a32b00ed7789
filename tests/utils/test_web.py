"""The server keeps out whom it does not know, and takes no more than it allows."""

import json
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from utils import web
from utils.web import Refused, Reply, Route, Server, as_json


def broken(_: bytes) -> Reply:
    raise RuntimeError("a secret of ours")


def refusing(_: bytes) -> Reply:
    raise Refused(422, "not that")


def streaming(client: web.Client) -> None:
    for _ in range(1000):
        client.send(b"piece\n")
        client.check()
        time.sleep(0.01)


ROUTES = {
    ("GET", "/"): Route(lambda body: Reply("text/html", b"the page")),
    ("POST", "/echo"): Route(lambda body: as_json(len(body)), limit=1000),
    ("POST", "/large"): Route(lambda body: as_json(len(body)), limit=2**22),
    ("GET", "/broken"): Route(broken),
    ("GET", "/refusing"): Route(refusing),
    ("GET", "/stream"): Route(lambda body: Reply("text/plain", stream=streaming)),
}


@contextmanager
def serving(token: str = ""):
    with Server("127.0.0.1", 0, token, lambda method, path: ROUTES.get((method, path))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server():
    with serving() as server:
        yield server


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=10)


def everything(connection: socket.socket) -> bytes:
    pieces = []
    while piece := connection.recv(2**16):
        pieces.append(piece)
    return b"".join(pieces)


def ask(server: Server, head: str, body: bytes = b"", host: str | None = "", end: str = "\r\n\r\n") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to a request; `host` None sends none."""
    own = f"127.0.0.1:{server.server_port}"
    lines = [head] if host is None else [head, f"Host: {host or own}"]
    with connect(server) as connection:
        connection.sendall(("\r\n".join(lines).replace("OWN", own) + end).encode("latin-1") + body)
        answer = everything(connection)
    top, _, content = answer.partition(b"\r\n\r\n")
    status, *headers = top.decode("latin-1").split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in headers), content


def test_what_there_is_is_served_with_its_guards(server):
    status, headers, body = ask(server, "GET /?anything HTTP/1.1")
    assert (status, body, headers["Content-Type"]) == (200, b"the page", "text/html")
    assert headers["X-Content-Type-Options"] == "nosniff" and "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Python" not in str(headers)
    assert ask(server, "HEAD / HTTP/1.1")[::2] == (200, b"")
    assert ask(server, "POST /echo HTTP/1.1\r\nOrigin: http://OWN\r\nContent-Length: 3", b"abc")[::2] == (200, b"3")


FOREIGN = ["evil.example", "evil.example:PORT", "127.0.0.1", "127.0.0.1:1", "a@127.0.0.1:PORT", "127.0.0.1:PORT/x", "[", None]


@pytest.mark.parametrize("host", FOREIGN)
def test_another_name_than_its_own_is_refused(server, host):
    assert ask(server, "GET / HTTP/1.1", host=host and host.replace("PORT", str(server.server_port)))[0] == 421


def test_the_name_that_it_was_given_is_its_own():
    with Server("127.0.0.2", 0, "", lambda method, path: None) as server:
        names = {name: server.is_own(f"{name}:{server.server_port}") for name in ("127.0.0.2", "localhost", "127.0.0.1", "127.0.0.3")}
    assert names == {"127.0.0.2": True, "localhost": True, "127.0.0.1": True, "127.0.0.3": False}
    assert not server.is_own("127.0.0.2:1")


def test_two_names_are_refused(server):
    assert ask(server, "GET / HTTP/1.1\r\nHost: OWN")[0] == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://OWN", "http://OWN.evil.example", None])
def test_other_sites_may_not_post(server, origin):
    line = f"\r\nOrigin: {origin}" if origin else ""
    assert ask(server, f"POST /echo HTTP/1.1{line}\r\nContent-Length: 3", b"abc")[0] == 403


def test_a_secret_address(capsys):
    with serving("s3cret") as server:
        assert server.address == f"http://127.0.0.1:{server.server_port}/s3cret/"
        assert ask(server, "GET /s3cret/ HTTP/1.1")[0] == 200
        assert ask(server, "GET /s3cret/ HTTP/1.1", host=f"192.168.7.7:{server.server_port}")[0] == 200  # it may have any address
        assert ask(server, "GET /s3cret/ HTTP/1.1", host=f"rebound.example:{server.server_port}")[0] == 421
        for path in ("/", "/s3cre/", "/s3cret", "/S3cret/", "//s3cret/../", "/%733cret/"):
            status, _, body = ask(server, f"GET {path} HTTP/1.1")
            assert status in (403, 404) and b"s3cret" not in body, path
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "head, status",
    [
        ("Content-Length: 1001", 413), ("Content-Length: 99999999999999999", 413), ("Content-Length: 99999999999999999999999", 400),
        ("Content-Length: -1", 400), ("Content-Length: ²", 400), ("Content-Length: 3, 3", 400), ("X: y", 411),
        ("Content-Length: 3\r\nContent-Length: 4", 400), ("Transfer-Encoding: chunked\r\nContent-Length: 3", 400),
    ],
)  # fmt: skip
def test_bodies_are_bounded_before_they_are_read(server, head, status):
    assert ask(server, f"POST /echo HTTP/1.1\r\nOrigin: http://OWN\r\n{head}", b"abc")[0] == status


PATHS = ["/../../etc/passwd", "/..%2f..%2fetc/passwd", "//etc/passwd", "http://OWN/etc/passwd", "/\\..\\x", "/%00"]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_to_a_file(server, path):
    assert ask(server, f"GET {path} HTTP/1.1")[0] == 404


GARBAGE = [
    b"\x00\xff\xfe" * 50 + b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"G\xc3\xa9T / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / " + b"a" * 70_000,
    b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 500 + b"\r\n",
    b"GET / HTTP/1.1\r\n" + b"x" * 70_000 + b"\r\n\r\n",
    b"<script>alert(1)</script> / HTTP/1.1\r\n\r\n",
    b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
]


@pytest.mark.parametrize("raw", GARBAGE)
def test_garbage_gets_a_refusal_that_does_not_repeat_it(server, raw, capsys):
    with connect(server) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = everything(connection)
    assert b"Traceback" not in answer and b"<script>" not in answer and b" 200 " not in answer.split(b"\r\n")[0]
    assert ask(server, "GET / HTTP/1.1")[0] == 200
    assert "Traceback" not in capsys.readouterr().err


def test_what_breaks_is_told_to_the_terminal_alone(server, capsys):
    status, _, body = ask(server, "GET /broken HTTP/1.1")
    assert status == 500 and b"secret" not in body
    assert "a secret of ours" in capsys.readouterr().err
    assert ask(server, "GET /refusing HTTP/1.1")[::2] == (422, json.dumps({"error": "not that", "kind": ""}).encode())


def test_a_request_that_trickles_in_is_cut_off(monkeypatch):
    monkeypatch.setattr(web, "REQUEST_SECONDS", 0.5)
    with serving() as server, connect(server) as connection:
        start = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < start + 8:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() < start + 4


def test_no_more_connections_than_there_are_places(monkeypatch):
    monkeypatch.setattr(web, "CONNECTIONS", 3)
    with serving() as server:
        idle = [connect(server) for _ in range(3)]
        time.sleep(0.2)
        with connect(server) as fourth:
            fourth.settimeout(5)
            assert fourth.recv(1) == b""
        for connection in idle:
            connection.close()
        time.sleep(0.3)
        assert ask(server, "GET / HTTP/1.1")[0] == 200


def test_large_bodies_take_turns(monkeypatch):
    monkeypatch.setattr(web, "LARGE_BODIES", 1)
    with serving() as server:
        own = f"127.0.0.1:{server.server_port}"
        head = f"POST /large HTTP/1.1\r\nHost: {own}\r\nOrigin: http://{own}\r\nContent-Length: "
        with connect(server) as first:
            first.sendall(f"{head}2000000\r\n\r\n".encode())
            time.sleep(0.2)
            assert ask(server, "POST /large HTTP/1.1\r\nOrigin: http://OWN\r\nContent-Length: 2000000")[0] == 503
            assert ask(server, "POST /large HTTP/1.1\r\nOrigin: http://OWN\r\nContent-Length: 1", b"x")[0] == 200
            first.sendall(b"x" * 2_000_000)
            assert everything(first).endswith(b"2000000")


def test_who_hangs_up_ends_the_stream(server, capsys):
    with connect(server) as connection:
        connection.sendall(f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n".encode())
        assert connection.recv(100)
    deadline = time.monotonic() + 3
    while server.places._value < web.CONNECTIONS and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.places._value == web.CONNECTIONS
    assert capsys.readouterr().err == ""
