"""A Lua script that decides orders inside a Redis-compatible server, and a lean client for it.

The script is atomic, and with ``appendfsync always`` the server answers after its log is on the disk. The client keeps many calls under
way on one connection (pipelining), which Python's usual clients do only when told to, and does less for each call than they do.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Any

from bench.peers.orders import REFUSED, Decision, Order, OtherContent
from bench.peers.tables import Recorded

STOCK, RESERVATION = "s:", "r:"  # prefixes of keys
READ_AT_ONCE = 1_000

# ARGV: the time the holds expire, then request id, stock key, quantity of each order. Answers one text: the times, "0" for a
# refusal, negative for a replay, "x" for an id with other content, parted by spaces.
SCRIPT = """
local expire, answers = ARGV[1], {}
for at = 2, #ARGV, 3 do
  local record, key, quantity = 'r:' .. ARGV[at], 's:' .. ARGV[at + 1], ARGV[at + 2]
  local content = ARGV[at + 1] .. ' ' .. quantity
  local prior = redis.call('SET', record, content .. ' ' .. expire, 'NX', 'GET')
  if prior then
    local start = #content + 2
    answers[#answers + 1] = string.sub(prior, 1, start - 1) == content .. ' ' and '-' .. string.sub(prior, start) or 'x'
  elseif redis.call('DECRBY', key, quantity) < 0 then
    redis.call('INCRBY', key, quantity)
    redis.call('DEL', record)
    answers[#answers + 1] = '0'
  else
    answers[#answers + 1] = expire
  end
end
return table.concat(answers, ' ')
"""
SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


class ScriptError(Exception):
    """What the server said instead of an answer."""


def command(*words: str) -> bytes:
    """A command as RESP writes it."""
    parts = [f"*{len(words)}\r\n"]
    parts += [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return "".join(parts).encode()


class Connection(asyncio.Protocol):
    """One connection, any number of commands under way, whose answers are texts. Commands of one round of the event loop are
    written together.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[bytes]] = deque()
        self._received = b""
        self._unsent: list[bytes] = []
        self._transport: Any = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(error or ConnectionResetError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        received = self._received + data
        at = 0
        while (end := received.find(b"\r\n", at)) >= 0:
            kind, text = received[at], received[at + 1 : end]
            following = end + 2
            if kind == 0x24:  # "$": so many bytes follow
                length = int(text)
                if len(received) < following + length + 2:
                    break
                text = received[following : following + length]
                following += length + 2
            waiting = self._waiting.popleft()
            if not waiting.done():
                if kind == 0x2D:  # "-": an error
                    waiting.set_exception(ScriptError(text.decode()))
                else:
                    waiting.set_result(text)
            at = following
        self._received = received[at:]

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Send a command; its answer."""
        waiting: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting.append(waiting)
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(request)
        return waiting

    def _send(self) -> None:
        self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def close(self) -> None:
        self._transport.close()


class ValkeyScript:
    """A store of the script, over one pipelined connection."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._connection: Connection | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        _, self._connection = await loop.create_unix_connection(Connection, self._socket)
        await self._connection.ask(command("SCRIPT", "LOAD", SCRIPT))

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    async def reserve(self, orders: Sequence[Order], expire_time_ms: int) -> Sequence[Decision]:
        assert self._connection is not None
        words = [text for order in orders for text in (order.request_id, order.key, str(order.quantity))]
        answer = await self._connection.ask(command("EVALSHA", SHA, "0", str(expire_time_ms), *words))
        answers = answer.decode().split(" ")
        return [_decision(answer, order) for answer, order in zip(answers, orders, strict=True)]


def _decision(answer: str, order: Order) -> Decision:
    if answer == "0":
        return REFUSED
    if answer == "x":
        raise OtherContent(order.request_id)
    expire_time_ms = int(answer)
    return Decision(True, abs(expire_time_ms), replayed=expire_time_ms < 0)


def stock_up(client: Any, keys: Sequence[str], units_per_key: int) -> None:
    """Fill the shelf."""
    client.mset({STOCK + key: units_per_key for key in keys})


def audit(client: Any, keys: Sequence[str], units_per_key: int) -> Recorded:
    """Count reservations and hold them against the shelf."""
    units = dict.fromkeys(keys, 0)
    records = list(set(client.scan_iter(match=RESERVATION + "*", count=1_000)))  # a scan may name a key twice
    for start in range(0, len(records), READ_AT_ONCE):
        for content in client.mget(records[start : start + READ_AT_ONCE]):
            key, quantity, _ = content.rsplit(" ", 2)
            units[key] += int(quantity)
    left = client.mget([STOCK + key for key in keys])
    oversold = sum(int(left[at]) < 0 or int(left[at]) + units[key] != units_per_key for at, key in enumerate(keys))
    return Recorded(len(records), sum(units.values()), oversold)
