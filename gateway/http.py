"""A very small HTTP server for probes and metrics: ``/metrics``, ``/livez``, ``/readyz``; GET and HEAD, one answer a
connection.

It does not serve the API, and reads no body.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple

_REQUEST_BYTES_MAX = 8 * 1024  # request line and headers; probes send a few hundred
_REQUEST_SECONDS_MAX = 5.0  # a slow peer must not keep a connection


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    content_type: str
    body: bytes


Route = Callable[[], Answer]
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 400: "Bad Request", 503: "Service Unavailable"}


class HttpServer:
    """Serves ``routes`` (path → answer) until ``stop``."""

    def __init__(self, routes: dict[str, Route]) -> None:
        self._routes = routes
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_REQUEST_BYTES_MAX)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._server.wait_closed(), _REQUEST_SECONDS_MAX)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _REQUEST_SECONDS_MAX)
            answer, with_body = self._answer(head)
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            answer, with_body = text(400, "not an HTTP request\n"), True
        with contextlib.suppress(ConnectionError):
            reason = _REASONS.get(answer.status, "")
            writer.write(
                f"HTTP/1.1 {answer.status} {reason}\r\nContent-Type: {answer.content_type}\r\n"
                f"Content-Length: {len(answer.body)}\r\nConnection: close\r\n\r\n".encode()
            )
            if with_body:
                writer.write(answer.body)
            await writer.drain()
        writer.close()

    def _answer(self, head: bytes) -> tuple[Answer, bool]:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3:
            return text(400, "not an HTTP request\n"), True
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return text(405, "only GET and HEAD\n"), True
        route = self._routes.get(target.split("?", 1)[0])
        return (route() if route is not None else text(404, "no such page\n")), method == "GET"


def text(status: int, body: str) -> Answer:
    """A plain text answer."""
    return Answer(status, "text/plain; charset=utf-8", body.encode())
