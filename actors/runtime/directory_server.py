"""How hosts and gateways of a cluster reach its directory: questions and answers over TCP, apart from Ray on purpose.

A head that comes back at its address is found again at once, whatever its Ray does meanwhile. Owns both ends: the
listener in front of a ``ClusterDirectory``, and the link that is made anew for ever. Framing (length, checksum, bound) is
``actors.shard.frames``'; what an answer means is its asker's. Nothing here is in the path of a request.

asker → directory  [DIRECTORY_HELLO, token, name] once, then [number, method, arguments]
directory → asker  [number, true, result] | [number, false, why] | [0, false, why] before it hangs up
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from actors.runtime.cluster_directory import ClusterDirectory, HostReport, HostWishes
from actors.shard import frames
from actors.shard.directory import HostRoute, Routes

__all__ = ["DirectoryLink", "DirectoryServer", "DirectoryUnreachable"]

DIRECTORY_HELLO = 64  # no frame kind of hosts: who dials the wrong port is told so by his first frame
REFUSAL = 0  # the number of what answers a hello; questions are numbered from 1
HELLO_WITHIN_S = 5.0
CONNECT_WITHIN_S = 2.0
ANSWER_WITHIN_S = 2.0
POLL_WITHIN_S = 15.0  # a long poll is answered after 10 s at the latest
READ_BYTES_MAX = 64 * 1024
QUESTIONS_MAX = 64  # of one asker at a time
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.05, 0.5

log = logging.getLogger(__name__)


class DirectoryUnreachable(ConnectionError):
    """Nobody answers at the directory's address, or not in time. Nothing but news is lost."""


class DirectoryRefused(Exception):
    """The directory answered, and the answer is no; says why."""


class Messages:
    """What comes over one connection, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, bytes_max: int) -> None:
        self._reader = reader
        self.decoder = frames.FrameDecoder(bytes_max)
        self._waiting: deque[Sequence[Any]] = deque()

    async def next(self) -> Sequence[Any] | None:
        """The next one; None when the other side is gone. FrameError for what is none."""
        while not self._waiting:
            data = await self._reader.read(READ_BYTES_MAX)
            if not data:
                return None
            self._waiting.extend(self.decoder.feed(data))
        return self._waiting.popleft()


class DirectoryServer:
    """A directory behind a port. ``facts``: what a joining node must know of the head; plain data."""

    def __init__(self, directory: ClusterDirectory, token: str, facts: Mapping[str, Any] | None = None) -> None:
        self.port = 0
        self._token = token
        self._writers: set[asyncio.StreamWriter] = set()
        self._methods: dict[str, Callable[..., Awaitable[Any]]] = {
            "beat": lambda report: directory.beat(report_of(report)),
            "host_died": directory.host_died,
            "routes": directory.routes,
            "drain": lambda host_id, drain: directory.drain(host_id, drain=drain),
            "move_to": directory.move_to,
            "overview": lambda: answer(directory.overview()),
            "facts": lambda: answer(dict(facts or {})),
        }
        self._server: asyncio.Server

    async def start(self, address: str, port: int) -> None:
        """Listen (0: at any free port), also at one that the supervisor holds bound. OSError when the port is taken."""
        self._server = await asyncio.start_server(self._serve, address, port, reuse_port=True)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening and hang up on everybody: they come again."""
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        keep_alive(writer)
        self._writers.add(writer)
        asked: set[asyncio.Task[None]] = set()
        try:
            messages = Messages(reader, frames.HELLO_BYTES_MAX)
            hello = await asyncio.wait_for(messages.next(), HELLO_WITHIN_S)
            if hello is None or (refusal := self._refusal(hello)):
                if hello is not None:
                    log.warning("refusing an asker: %s", refusal)
                    writer.write(frames.encode([REFUSAL, False, refusal]))
                    await asyncio.wait_for(writer.drain(), HELLO_WITHIN_S)
                    writer.close()
                return
            messages.decoder.bytes_max = frames.FRAME_BYTES_MAX
            while (question := await messages.next()) is not None:
                if len(asked) >= QUESTIONS_MAX:
                    return
                task = asyncio.get_running_loop().create_task(self._answer(question, writer))
                asked.add(task)
                task.add_done_callback(asked.discard)
        except (OSError, TimeoutError, frames.FrameError, IndexError) as error:
            log.warning("hanging up on an asker: %r", error)
        finally:
            self._writers.discard(writer)
            for task in asked:
                task.cancel()
            writer.transport.abort()

    def _refusal(self, hello: Sequence[Any]) -> str:
        """Why an asker is not let in; empty when it is."""
        if hello[0] != DIRECTORY_HELLO:
            return "this is a cluster's directory: the first frame must be its hello"
        if not hmac.compare_digest(str(hello[1]).encode(), self._token.encode()):
            return "the token is not this cluster's: cluster_token must be the same on every node"
        return ""

    async def _answer(self, question: Sequence[Any], writer: asyncio.StreamWriter) -> None:
        number, method, arguments = question
        try:
            said = [number, True, await self._methods[method](*arguments)]
        except Exception as error:  # whatever it is, it is the asker's business
            said = [number, False, str(error) or repr(error)]
        if not writer.transport.is_closing():
            writer.write(frames.encode(said))


class DirectoryLink:
    """The directory as hosts and gateways see it: one connection, made anew whenever it breaks.

    ``endpoint``: "host:port", fixed for the life of the cluster. Every method raises DirectoryUnreachable when there is no
    answer in time, DirectoryRefused when there is one.
    """

    def __init__(self, endpoint: str, token: str, name: str) -> None:
        self._address, _, port = endpoint.rpartition(":")
        self._port = int(port)
        self._hello = frames.encode([DIRECTORY_HELLO, token, name])
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._refused_until = 0.0
        self._backoff_s = BACKOFF_S_MIN

    async def beat(self, report: HostReport) -> HostWishes:
        """See ``ClusterDirectory.beat``."""
        said = await self._ask("beat", [list(report)], ANSWER_WITHIN_S)
        adopt, take, drain, others = said[:4]
        return HostWishes(tuple(adopt), tuple((one[0], one[1], one[2]) for one in take), drain, others)

    async def host_died(self, host_id: str, pid: int) -> None:
        """See ``ClusterDirectory.host_died``."""
        await self._ask("host_died", [host_id, pid], ANSWER_WITHIN_S)

    async def routes(self, after_version: int) -> Routes:
        """See ``actors.shard.directory.Directory``."""
        said = await self._ask("routes", [after_version], POLL_WITHIN_S)
        hosts = tuple(HostRoute(h[0], h[1], h[2], tuple(h[3]), tuple(h[4])) for h in said[4])
        return Routes(said[0], said[1], said[2], said[3], hosts)

    async def drain(self, host_id: str, *, drain: bool = True) -> bool:
        """See ``ClusterDirectory.drain``."""
        return bool(await self._ask("drain", [host_id, drain], ANSWER_WITHIN_S))

    async def move_to(self, shard: int, host_id: str) -> bool:
        """See ``ClusterDirectory.move_to``."""
        return bool(await self._ask("move_to", [shard, host_id], ANSWER_WITHIN_S))

    async def overview(self) -> dict[str, Any]:
        """See ``ClusterDirectory.overview``."""
        return dict(await self._ask("overview", [], ANSWER_WITHIN_S))

    async def facts(self) -> dict[str, Any]:
        """What the head says of itself: "ray", where its Ray is."""
        return dict(await self._ask("facts", [], ANSWER_WITHIN_S))

    def close(self) -> None:
        """Hang up."""
        if self._listening is not None:
            self._listening.cancel()
        self._hang_up("closed")

    async def _ask(self, method: str, arguments: list[Any], within_s: float) -> Any:
        await self._connect()
        writer = self._writer
        assert writer is not None
        number = next(self._numbers)
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            writer.write(frames.encode([number, method, arguments]))
            return await asyncio.wait_for(asked, within_s)
        except TimeoutError:
            if self._writer is writer:
                self._hang_up(
                    f"no answer within {within_s:g} s"
                )  # half-open: the next one is asked on a new connection
            raise DirectoryUnreachable(f"the directory does not answer within {within_s:g} s") from None
        finally:
            self._asked.pop(number, None)

    async def _connect(self) -> None:
        async with self._connecting:
            if self._writer is not None:
                return
            loop = asyncio.get_running_loop()
            if (pause_s := self._refused_until - loop.time()) > 0:
                await asyncio.sleep(pause_s)
            try:
                connecting = asyncio.open_connection(self._address.strip("[]"), self._port)
                reader, writer = await asyncio.wait_for(connecting, CONNECT_WITHIN_S)
            except (OSError, TimeoutError) as error:
                self._refused_until = loop.time() + self._backoff_s
                self._backoff_s = min(2 * self._backoff_s, BACKOFF_S_MAX)
                raise DirectoryUnreachable(f"no directory at {self._address}:{self._port}: {error!r}") from None
            keep_alive(writer)
            writer.write(self._hello)
            self._writer = writer
            self._listening = loop.create_task(self._listen(reader, writer))

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        messages = Messages(reader, frames.FRAME_BYTES_MAX)
        why = "the directory hung up"
        try:
            while (said := await messages.next()) is not None:
                if said[0] == REFUSAL:
                    why = f"the directory refuses this process: {said[2]}"
                    break
                self._backoff_s = BACKOFF_S_MIN
                asked = self._asked.get(said[0])
                if asked is not None and not asked.done():
                    if said[1]:
                        asked.set_result(said[2])
                    else:
                        asked.set_exception(DirectoryRefused(said[2]))
        except (OSError, frames.FrameError, IndexError) as error:
            why = repr(error)
        if self._writer is writer:
            self._refused_until = asyncio.get_running_loop().time() + self._backoff_s
            self._hang_up(why)

    def _hang_up(self, why: str) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.transport.abort()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(DirectoryUnreachable(why))


async def answer(value: Any) -> Any:
    """What is known at once."""
    return value


def report_of(said: Sequence[Any]) -> HostReport:
    """A report as it travelled; fields that a newer host adds are left out."""
    report = HostReport(*said[: len(HostReport._fields)])
    return report._replace(shards=tuple(report.shards), epochs=tuple(report.epochs), moving=tuple(report.moving))


def keep_alive(writer: asyncio.StreamWriter) -> None:
    """Small answers leave at once, and a machine that is gone is noticed."""
    with contextlib.suppress(OSError):
        connected = writer.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
