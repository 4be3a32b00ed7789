"""A small HTTP server for a page that talks to this program: on the standard library, and wary of whoever else may talk to it.

Nothing is served from the file system by name: a `find` function says what answers a method and a path. Before that is asked,

- the Host must be this server's own, so that no other site's name can be pointed at it (DNS rebinding), and the Origin, which browsers send
  with every POST, that of its own pages (cross-site requests);
- where others than this machine can connect, the path must begin with a secret, /<token>/;
- a body is bounded by what the route allows, before a byte of it is read; the request has so many seconds in all, however slowly it comes.

A connection serves one request, on a thread of its own, of which there are at most CONNECTIONS; more are turned away.
"""

import hmac
import io
import ipaddress
import json
import select
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

UNFORESEEN = "Something went wrong; the terminal says what.", "internal"  # and its kind, as `Refused` has it
CONNECTIONS = 64  # at once
LARGE, LARGE_BODIES = 2**20, 4  # bytes above which a body is large, and how many of those are received at once
REQUEST_SECONDS = 20.0  # for a whole request to come in
SEND_SECONDS = 10.0  # for the client to take what it is sent, piece by piece
LINGER_SECONDS = 1.0  # for a client that is refused to see so, though it is still sending
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Connection": "close",
}


class Refused(Exception):
    """A request that is not served: the HTTP status, and a sentence for whoever sent it. `kind`, where there is one, is for a page that
    says it in another language."""

    def __init__(self, status: int, reason: str, kind: str = ""):
        self.status, self.reason, self.kind = status, reason, kind
        super().__init__(reason)


class Gone(Exception):
    """The client has hung up, or takes nothing any more."""


@dataclass(frozen=True)
class Reply:
    """What a request is answered with: `body` at once, or what `stream` sends piece by piece."""

    kind: str  # its Content-Type
    body: bytes = b""
    stream: "Callable[[Client], None] | None" = None
    headers: dict[str, str] = field(default_factory=dict)  # beside those that every reply has


@dataclass(frozen=True)
class Route:
    answer: Callable[[bytes], Reply]  # of the request's body; may raise Refused
    limit: int = 0  # bytes that the body may have


@dataclass(frozen=True)
class Client:
    """The other end of a stream."""

    connection: socket.socket

    def send(self, piece: bytes) -> None:
        """Raises Gone."""
        try:
            self.connection.settimeout(SEND_SECONDS)
            self.connection.sendall(piece)
        except OSError as error:
            raise Gone from error

    def check(self) -> None:
        """Raises Gone where the client has hung up: nothing more is to come from it but the end."""
        if select.select([self.connection], [], [], 0)[0]:
            raise Gone


def as_json(content: object) -> Reply:
    return Reply("application/json; charset=utf-8", json.dumps(content).encode())


class Server(ThreadingHTTPServer):
    """Serves `find(method, path)`; None there is a 404. Port 0 takes one that is free. Raises OSError where it cannot listen."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS

    def __init__(self, host: str, port: int, token: str, find: Callable[[str, str], Route | None]):
        self.host, self.token, self.find = host, token, find
        self.places, self.large = threading.BoundedSemaphore(CONNECTIONS), threading.BoundedSemaphore(LARGE_BODIES)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        """Without the look-up of this machine's full name that the base class makes, which takes seconds where there is no network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    @property
    def address(self) -> str:
        """Where the page is, as one types it into a browser."""
        host = socket.gethostname() if self.host in ("", "0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/{f'{self.token}/' if self.token else ''}"

    def process_request(self, request: socket.socket, client_address: tuple) -> None:
        if not self.places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.places.release()
            raise

    def process_request_thread(self, request: socket.socket, client_address: tuple) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()

    def handle_error(self, request: socket.socket, client_address: tuple) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # clients that vanish are no news
            print(f"A request could not be answered: {type(error).__name__}: {error}", file=sys.stderr)

    def is_own(self, host: str) -> bool:
        """Whether a Host header names this server.

        One that listens to other machines goes by many names, but they are this machine's or addresses: a site of somebody else's that
        has its name resolve to us is neither.
        """
        try:
            url = urlsplit(f"//{host}")
            name, port = url.hostname or "", url.port or 80
        except ValueError:
            return False
        if port != self.server_port or url.netloc != host or url.username is not None:
            return False
        names = {"localhost", self.host.lower()} | ({socket.gethostname().lower()} if self.token else {"127.0.0.1", "::1"})
        return name in names or (bool(self.token) and is_address(name))


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Patient(io.RawIOBase):
    """What a socket receives, until a deadline: then TimeoutError, however much there is to come."""

    def __init__(self, connection: socket.socket, seconds: float):
        self.connection, self.deadline = connection, time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "Shanshui", ""
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(Patient(self.connection, REQUEST_SECONDS))

    def handle(self) -> None:
        try:
            self.handle_one_request()
        except (OSError, Gone):
            return

    def log_message(self, *_) -> None:
        """Says nothing: what goes wrong here is the client's affair."""

    def do_GET(self) -> None:
        try:
            route = self.route()
            reply = route.answer(self.body(route.limit))
        except Refused as refused:
            self.refuse(refused)
        except OSError:
            raise
        except Exception as error:
            print(f"{self.command} {self.path[:100]!r} could not be answered: {type(error).__name__}: {error}", file=sys.stderr)
            self.refuse(Refused(500, *UNFORESEEN))
        else:
            self.reply(200, reply)

    do_HEAD = do_POST = do_GET

    def route(self) -> Route:
        """What answers this request. Raises Refused."""
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        if len(hosts) != 1 or not self.server.is_own(hosts[0]):
            raise Refused(421, "This is not the server's name: use the address that it printed.")
        if any(origin != f"http://{hosts[0]}" for origin in origins) or (self.command == "POST" and len(origins) != 1):
            raise Refused(403, "Only the server's own page may ask this.")
        path = self.path.partition("?")[0]
        if self.server.token:
            given, slash, path = path.removeprefix("/").partition("/")
            if not slash or not hmac.compare_digest(given.encode(errors="replace"), self.server.token.encode()):
                raise Refused(403, "Use the whole address that the server printed; its last part is a secret.")
            path = f"/{path}"
        route = self.server.find("GET" if self.command == "HEAD" else self.command, path)
        if route is None:
            raise Refused(404, "There is nothing here.")
        return route

    def body(self, limit: int) -> bytes:
        """The request's body, of at most so many bytes. Raises Refused."""
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or len({*lengths}) > 1:
            raise Refused(400, "Send a body with one Content-Length.")
        if not lengths:
            if self.command == "POST":
                raise Refused(411, "Send a body with its Content-Length.")
            return b""
        if not lengths[0].isascii() or not lengths[0].isdigit() or len(lengths[0]) > 18:
            raise Refused(400, "Content-Length is no number.")
        length = int(lengths[0])
        if length > limit:
            raise Refused(413, f"That is too large: at most {limit / 2**20:.3g} MB are taken here.", "too large")
        if length > LARGE and not self.server.large.acquire(blocking=False):
            raise Refused(503, "Too many are sending large files: try again.", "busy")
        try:
            content = self.rfile.read(length)
        finally:
            if length > LARGE:
                self.server.large.release()
        if len(content) < length:
            raise Refused(400, "The body has ended early.")
        return content

    def reply(self, status: int, reply: Reply) -> None:
        self.connection.settimeout(SEND_SECONDS)
        self.send_response(status)
        for name, value in (HEADERS | {"Content-Type": reply.kind} | reply.headers).items():
            self.send_header(name, value)
        if reply.stream is None:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.close_connection = True
        if self.command == "HEAD":
            return
        if reply.stream is None:
            self.wfile.write(reply.body)
        else:
            reply.stream(Client(self.connection))

    def refuse(self, refused: Refused) -> None:
        """Says why, and takes a little of what may still come: closed at once, the connection would break off before that is read."""
        self.reply(refused.status, as_json({"error": refused.reason, "kind": refused.kind}))
        self.connection.shutdown(socket.SHUT_WR)
        rest = Patient(self.connection, LINGER_SECONDS)
        while rest.read(2**16):
            pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class calls for requests that it cannot read; its own page would repeat what was sent."""
        self.command, self.request_version = self.command or "", "HTTP/1.1"
        self.refuse(Refused(int(code), "This is no request that is understood here."))
