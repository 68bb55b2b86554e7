"""The web server of the page: a handful of fixed paths, and nothing that another site could use."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from services.playground.api import PageError, PlaygroundApi
from services.server.addresses import is_loopback

LONGEST_BODY = 256 << 10
SECONDS_FOR_A_REQUEST = 30.0
PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/playground.js": ("playground.js", "text/javascript; charset=utf-8"),
    "/drawing.js": ("drawing.js", "text/javascript; charset=utf-8"),
    "/playground.css": ("playground.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

log = logging.getLogger(__name__)


class PlaygroundServer(ThreadingHTTPServer):
    """Listens at once; ``serve_forever`` answers.

    Args:
        host, port: where; 0 takes a free port.
        api: what the page calls.

    Raises:
        OSError: the port is in use.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int, api: PlaygroundApi) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.api = api
        self._page = {path: (files("services.playground") / "page" / name).read_bytes() for path, (name, _) in PAGE.items()}
        self._open: set[Any] = set()
        super().__init__((host, port), PageHandler)
        self.host = host

    @property
    def address(self) -> str:
        """What a person types into the browser."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.server_port}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Hang up on browsers too, which keep their connections for the next request."""
        super().server_close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def page(self, path: str) -> bytes | None:
        return self._page.get(path)

    def is_ours(self, host_header: str) -> bool:
        """Whether a Host header names this server: another site whose name was pointed at 127.0.0.1 does not."""
        try:
            host = urlsplit(f"//{host_header}").hostname or ""
        except ValueError:
            return False
        return host == self.host.strip("[]") or is_loopback(host) or not is_loopback(self.host)


class PageHandler(BaseHTTPRequestHandler):
    """One request."""

    server: PlaygroundServer
    server_version = "llmgr"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = SECONDS_FOR_A_REQUEST

    def do_GET(self) -> None:
        if not self._admitted():
            return
        parts = urlsplit(self.path)
        body = self.server.page(parts.path)
        if body is not None:
            self._send(HTTPStatus.OK, body, PAGE[parts.path][1])
        elif parts.path == "/api/state":
            self._answer(self.server.api.state)
        elif parts.path == "/api/items":
            query = parse_qs(parts.query).get("q", [""])[0]
            self._answer(lambda: self.server.api.find(query[:200]))
        else:
            self._refuse(PageError(HTTPStatus.NOT_FOUND, "There is nothing at this address."))

    def do_POST(self) -> None:
        methods = {
            "/api/rank": self.server.api.rank,
            "/api/insert": self.server.api.insert,
            "/api/delete": self.server.api.delete,
        }
        if not self._admitted():
            return
        method = methods.get(urlsplit(self.path).path)
        if method is None:
            self.close_connection = True
            self._refuse(PageError(HTTPStatus.NOT_FOUND, "There is nothing at this address."))
            return
        try:
            given = self._body()
        except PageError as error:
            self.close_connection = True
            self._refuse(error)
            return
        self._answer(lambda: method(given))

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)

    def _admitted(self) -> bool:
        """Turn away what another site sent through this person's browser, and what is no path."""
        if not self.path.startswith("/") or self.path.startswith("//"):
            reason = "There is no such path."
        elif not self.server.is_ours(self.headers.get("Host", "")):
            reason = "This server does not go by that name."
        elif self.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            reason = "Another site may not use this page."
        else:
            return True
        self.close_connection = True
        self._refuse(PageError(HTTPStatus.FORBIDDEN, reason))
        return False

    def _body(self) -> dict[str, Any]:
        # Other sites can send forms without asking first, but no JSON.
        if self.headers.get_content_type() != "application/json":
            raise PageError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The request is no JSON.")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise PageError(HTTPStatus.LENGTH_REQUIRED, "The request does not tell its length.")
        if int(length) > LONGEST_BODY:
            raise PageError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The request is longer than {LONGEST_BODY >> 10} KiB.")
        try:
            given = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise PageError(HTTPStatus.BAD_REQUEST, "The request is no JSON.") from None
        if not isinstance(given, dict):
            raise PageError(HTTPStatus.BAD_REQUEST, "The request is no JSON object.")
        return given

    def _answer(self, method: Callable[[], dict[str, Any]]) -> None:
        try:
            result = method()
        except PageError as error:
            self._refuse(error)
        except Exception:
            log.exception("the playground failed")
            self._refuse(PageError(HTTPStatus.INTERNAL_SERVER_ERROR, "The playground itself failed; its log says why."))
        else:
            self._send_json(HTTPStatus.OK, result)

    def _refuse(self, error: PageError) -> None:
        self._send_json(error.status, {"error": error.message, "field": error.field})

    def _send_json(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
