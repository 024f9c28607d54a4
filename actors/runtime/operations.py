"""What operators ask a node over HTTP: ``/livez``, ``/readyz`` and one ``/metrics`` for all its processes.

The supervisor serves it, so a node has one address to scrape however many gateways it runs and whatever of it is being
mended. Each process keeps its own registry on a loopback port of its own; their samples are merged here under the label
``process`` (host, gateway-0, …). Owns no metric but the supervisor's few, and reads no request body.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

__all__ = ["Answer", "OperationsServer", "merge_metrics", "scrape", "text_answer"]

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_BYTES_MAX = 8 * 1024  # a probe sends a few hundred
REQUEST_WITHIN_S = 5.0  # a slow peer must not keep a connection
SCRAPE_WITHIN_S = 2.0  # of each process; one that is being mended is left out
SCRAPE_BYTES_MAX = 16 * 1024 * 1024
REASON_PHRASES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    content_type: str
    body: bytes


Page = Callable[[], Awaitable[Answer]]


def text_answer(status: int, text: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", text.encode())


class OperationsServer:
    """Serves ``pages`` (path → answer), one answer a connection."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port. OSError when it is taken."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=REQUEST_BYTES_MAX)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), REQUEST_WITHIN_S)
            method, answer = await self._answer(request)
            head = (
                f"HTTP/1.1 {answer.status} {REASON_PHRASES[answer.status]}\r\nContent-Type: {answer.content_type}\r\n"
                f"Content-Length: {len(answer.body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + (b"" if method == "HEAD" else answer.body))
            await asyncio.wait_for(writer.drain(), REQUEST_WITHIN_S)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # no HTTP, or nobody left to answer
        finally:
            writer.close()

    async def _answer(self, request: bytes) -> tuple[str, Answer]:
        words = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3:
            return "GET", text_answer(400, "not an HTTP request\n")
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return method, text_answer(405, "only GET and HEAD\n")
        page = self._pages.get(target.split("?", 1)[0])
        return method, await page() if page else text_answer(404, f"no such page; there are {', '.join(self._pages)}\n")


async def scrape(endpoint: str) -> str:
    """The metrics of one process at "host:port"; empty when it does not answer in time."""
    host, _, port = endpoint.rpartition(":")
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(SCRAPE_WITHIN_S):
            reader, writer = await asyncio.open_connection(host, int(port), limit=SCRAPE_BYTES_MAX)
            try:
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = await reader.read(-1)
            finally:
                writer.close()
            head, _, body = answer.partition(b"\r\n\r\n")
            return body.decode() if b" 200 " in head.split(b"\r\n", 1)[0] else ""
    return ""


def merge_metrics(texts: Mapping[str, str]) -> str:
    """One exposition text out of many: each family's help and type once, each sample with its ``process``."""
    comments: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for process, text in texts.items():
        family = ""
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                name = line.split(" ", 3)[2]
                if line not in comments.setdefault(name, []) and len(comments[name]) < 2:
                    comments[name].append(line)
                family = name
            elif line and not line.startswith("#"):
                samples.setdefault(family, []).append(with_label(line, "process", process))
    lines = []
    for family in {**comments, **samples}:
        lines += [*comments.get(family, []), *samples.get(family, [])]
    return "\n".join(lines) + "\n"


def with_label(sample: str, name: str, value: str) -> str:
    """``sample`` with one more label."""
    metric, brace, rest = sample.partition("{")
    if brace and " " not in metric:
        separator = "" if rest.startswith("}") else ","
        return f'{metric}{{{name}="{value}"{separator}{rest}'
    metric, _, rest = sample.partition(" ")
    return f'{metric}{{{name}="{value}"}} {rest}'
