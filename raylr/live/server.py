"""The server of the live page: GET and HEAD of a handful of paths, for readers who may see the study.

What it defends against: pages of other sites that the reader's browser has open. They cannot read an answer (no CORS
headers, `Cross-Origin-Resource-Policy`), and a name of theirs that points to this machine (DNS rebinding) is refused by
its Host header. Requests name no files: the paths are a fixed list, so that none leads out of anything. It does not
defend against other users of the same machine, or of the network if it listens there: there is no password.
"""

from __future__ import annotations

import errno
import gzip
import html
import ipaddress
import json
import socket
import socketserver
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from string import Template
from typing import Any
from urllib.parse import parse_qs, urlsplit

from raylr.errors import InputError
from raylr.live.board import Board
from raylr.report.page import plotly, resource
from raylr.store.files import digest

HOST = "127.0.0.1"
PORT = 8275
"""Beside Ray's dashboard (8265), and free in IANA's list of services."""
HIGHEST_PORT = 65535
IDLE_SECONDS = 30.0
"""A connection without a request is closed after this time."""
LEAST_PACKED = 1_000
"""Answers of fewer bytes are sent as they are."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: its own scripts, and plotly's styles and pictures. Texts of a study cannot run anything."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is sent for a path."""

    kind: str
    """Content type."""
    body: bytes
    keep: bool = False
    """Whether a browser may keep it: its address has the checksum of what it holds."""

    @cached_property
    def packed(self) -> bytes:
        """The body, compressed."""
        return gzip.compress(self.body, 6, mtime=0)


class LiveServer(ThreadingHTTPServer):
    """Serves a board.

    Args:
        board: What is shown.
        host: Name or address to listen at.
        port: Port; 0 takes a free one.
        requested: Called for each request of the board.

    Raises:
        InputError: If the port is taken or the host is not one of this machine.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self, board: Board, *, host: str = HOST, port: int = PORT, requested: Callable[[], None] = lambda: None
    ) -> None:
        if not 0 <= port <= HIGHEST_PORT:
            raise InputError(f"--port {port}: a port is a number from 0 to {HIGHEST_PORT}")
        self.board, self.requested, self.host = board, requested, host
        self.names = {"localhost", host.lower()}
        """Names that a Host header may have; addresses are always allowed, since no DNS server can make one its own."""
        if not _is_loopback(host):
            self.names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self.files = _files()
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family = found[0][0]
            address, number = found[0][4][:2]
            super().__init__((str(address), int(number)), LiveHandler)
        except OSError as error:
            raise InputError(_why(host, port, error)) from None

    def server_bind(self) -> None:
        """Bind without asking DNS for a name, as the base class would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    @property
    def url(self) -> str:
        """Address of the page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_port}/"

    @property
    def public(self) -> bool:
        """Whether other machines may reach it."""
        return not _is_loopback(self.host)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent about readers that went away; anything else is a bug and is printed."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class LiveHandler(BaseHTTPRequestHandler):
    """Answers one reader."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "raylr", ""
    timeout = IDLE_SECONDS
    server: LiveServer

    def do_GET(self) -> None:
        """Answer, or say what is wrong."""
        if not allowed(self.headers.get("Host", ""), self.server.names):
            self.send_error(HTTPStatus.FORBIDDEN, f"not served under this name; open {self.server.url}")
            return
        parts = urlsplit(self.path)
        if parts.path == "/state":
            self.server.requested()
            query = parse_qs(parts.query)
            news = self.server.board.news(query.get("server", [""])[0], _number(query.get("since", [""])[0]))
            body = json.dumps(news, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
            self._send(Answer(kind="application/json", body=body))
        elif parts.path in self.server.files:
            self._send(self.server.files[parts.path])
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "there is no such page; the study is at /")

    do_HEAD = do_GET

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Refuse every other method, which the base class looks up as do_METHOD."""
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def _refuse(self) -> None:
        self.close_connection = True  # what a request brings along is not read
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED, "this page is read only")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with an error as plain text."""
        text = f"{message or HTTPStatus(code).phrase}\n"
        self._send(Answer(kind="text/plain", body=text.encode("utf-8", "replace")), code)

    def _send(self, answer: Answer, code: int = HTTPStatus.OK) -> None:
        accepted = getattr(self, "headers", None) and self.headers.get("Accept-Encoding", "")
        packed = len(answer.body) >= LEAST_PACKED and "gzip" in (accepted or "")
        body = answer.packed if packed else answer.body
        self.send_response(code)
        for name, value in (
            ("Content-Type", f"{answer.kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "public, max-age=31536000, immutable" if answer.keep else "no-store"),
            ("Vary", "Accept-Encoding"),
            ("Content-Security-Policy", POLICY),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.send_header(name, value)
        if packed:
            self.send_header("Content-Encoding", "gzip")
        if code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: a page asks every other second."""


def allowed(host: str, names: set[str]) -> bool:
    """Return whether a Host header is an address, or one of the names.

    Example:
        >>> [allowed(host, {"localhost"}) for host in ("localhost:80", "127.0.0.1", "[::1]:9", "evil.example", "")]
        [True, True, True, False, False]
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if any(sign in host for sign in "/@?#\\ "):
            return False
        ipaddress.ip_address(name)
    except ValueError:
        return bool(name := host.rpartition(":")[0] or host) and name.lower().rstrip(".") in names
    return True


def _files() -> dict[str, Answer]:
    """Return path → what is there, made once."""
    live = resources.files("raylr.live")
    scripts = {
        "plotly": plotly(),
        "figures": resource("figures.js"),
        "live": live.joinpath("live.js").read_text("utf-8"),
    }
    answers, paths = {}, {}
    for name, text in scripts.items():
        body = text.encode()
        paths[name] = f"{name}-{digest(body)}.js"
        answers[f"/{paths[name]}"] = Answer(kind="text/javascript", body=body, keep=True)
    page = Template(live.joinpath("live.html").read_text("utf-8")).substitute(
        style=resource("page.css"), **{name: html.escape(path) for name, path in paths.items()}
    )
    return answers | {"/": Answer(kind="text/html", body=page.encode())}


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _why(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken; --port 0 takes a free one"
    if error.errno == errno.EACCES:
        return f"port {port} of {host} is not allowed; --port 0 takes a free one"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host} is not an address of this machine; 127.0.0.1 is for this machine alone, 0.0.0.0 for all"
    return f"cannot listen on {host}, port {port}: {error.strerror or error}"
