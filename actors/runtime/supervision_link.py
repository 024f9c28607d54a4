"""The link between the supervisor and each process of its node: JSON lines over loopback TCP, apart from Ray on
purpose.

A process tells who it is and how it is; the supervisor tells it what to do. The end of the link is the news of the
other side's death, within milliseconds, whatever state Ray is in. Owns the messages and both ends; decides nothing.

process → supervisor  {"token", "role", "pid", "generation"} once, then {"state", …facts} and {"beat": n} supervisor →
process  {"do": "activate", …what it needs} | {"do": "stop", "drain_ms": n}
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import Any

__all__ = ["BEAT_INTERVAL_S", "LinkServer", "MemberLink", "MemberState", "ProcessLink"]

LINE_BYTES_MAX = 64 * 1024
HELLO_WITHIN_S = 5.0
BEAT_INTERVAL_S = 1.0


class MemberState(StrEnum):
    """How a process of the node is, as it says itself."""

    PREPARED = "prepared"  # everything imported, nothing opened: waits to be activated
    STARTING = "starting"  # opening the journal, replaying, binding ports
    SERVING = "serving"
    STOPPING = "stopping"
    STOPPED = "stopped"  # holds nothing any more; lives on until it is ended
    FAILED = "failed"  # says why in "error", then ends


class ProcessLink:
    """The process's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int, token: str, role: str, generation: int) -> ProcessLink:
        """Connect and introduce this process. OSError when nobody listens: the supervisor is gone."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LINE_BYTES_MAX)
        link = cls(reader, writer)
        link._send({"token": token, "role": role, "pid": os.getpid(), "generation": generation})
        return link

    def report(self, state: MemberState, **facts: Any) -> None:
        """Tell the supervisor; ``facts`` stay known until another report replaces them."""
        self._send({"state": state.value, **facts})

    def beat(self, number: int) -> None:
        self._send({"beat": number})

    def last_words(self, **facts: Any) -> None:
        """Report FAILED at once, for a process that ends in the next moment without giving its loop another turn."""
        line = json.dumps({"state": MemberState.FAILED.value, **facts}).encode() + b"\n"
        with contextlib.suppress(OSError):
            os.write(self._writer.get_extra_info("socket").fileno(), line)

    async def commands(self) -> AsyncIterator[dict[str, Any]]:
        """What the supervisor says; ends when it is gone."""
        async for message in read_lines(self._reader):
            yield message

    async def flush(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def _send(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")


class MemberLink:
    """The supervisor's end, one for each process. ``facts``: what it said last."""

    def __init__(self, writer: asyncio.StreamWriter, role: str, pid: int, generation: int) -> None:
        self._writer = writer
        self.role = role
        self.pid = pid
        self.generation = generation
        self.state = MemberState.PREPARED
        self.facts: dict[str, Any] = {}
        self.heard_at = asyncio.get_running_loop().time()
        self.told_to_stop = False
        self.activated = False

    def activate(self, **needs: Any) -> None:
        """Let it open what it owns. Said once."""
        self.activated = True
        self._send({"do": "activate", **needs})

    def stop(self, drain_ms: int) -> None:
        """Ask it to drain, flush, close and report STOPPED. Asked once."""
        if not self.told_to_stop:
            self.told_to_stop = True
            self._send({"do": "stop", "drain_ms": drain_ms})

    def hang_up(self) -> None:
        """Close the link: the process ends at once."""
        self._writer.close()

    def take(self, message: dict[str, Any]) -> bool:
        """Note what it said; True when its state or facts changed."""
        self.heard_at = asyncio.get_running_loop().time()
        if "state" not in message:
            return False
        self.state = MemberState(message.pop("state"))
        self.facts = message
        return True

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._writer.write(json.dumps(message).encode() + b"\n")


class LinkServer:
    """Listens on a free loopback port. ``joined``, ``changed`` and ``left`` are called in the loop as things happen."""

    def __init__(
        self,
        token: str,
        joined: Callable[[MemberLink], None],
        changed: Callable[[MemberLink], None],
        left: Callable[[MemberLink], None],
    ) -> None:
        self._token = token
        self._joined, self._changed, self._left = joined, changed, left
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=LINE_BYTES_MAX)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        member: MemberLink | None = None
        try:
            member = await asyncio.wait_for(self._welcome(reader, writer), HELLO_WITHIN_S)
            if member is None:
                return
            self._joined(member)
            async for message in read_lines(reader):
                if member.take(message):
                    self._changed(member)
        except (TimeoutError, ValueError, KeyError, TypeError):
            pass  # not one of ours, or garbage: the connection ends, as if its process had
        finally:
            writer.close()
            if member is not None:
                self._left(member)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> MemberLink | None:
        hello = json.loads(await reader.readline())
        if not hmac.compare_digest(str(hello["token"]), self._token):
            return None
        return MemberLink(writer, str(hello["role"]), int(hello["pid"]), int(hello["generation"]))


async def read_lines(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """Decoded lines until the other side is gone. ValueError for garbage."""
    while True:
        try:
            line = await reader.readline()
        except OSError:
            return
        if not line.endswith(b"\n"):
            return
        yield json.loads(line)
