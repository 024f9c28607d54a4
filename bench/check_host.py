"""The workload of ``bench check`` that needs a whole host: numbered warehouse events, from the bytes of a frame to those of its
replies.

Everything of a host takes part but the socket, the thread and the disk: cutting frames, checking and queueing items, turns,
the look-up of ids, rules, records, the gate. Ids leave memory meanwhile, as they do on a host that has run for a while, so bytes
kept are mostly the records and rows that a real journal would have on its disk. An event passed by here costs a real host about
a third more: the disk, the kernel, and caches that it shares.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from actors.domain.commands import Verb
from actors.domain.keys import stock_key
from actors.domain.outcomes import Fact
from actors.domain.rules import Rules
from actors.journal.memory import MemoryJournal, memory_store
from actors.shard import frames
from actors.shard.clock import ShardClock
from actors.shard.host import ShardHost
from actors.shard.host_config import HostConfig
from actors.shard.host_links import HostLink, LinkOwner
from actors.shard.journal_thread import Done, JournalThread
from actors.shard.placement import feed_shard_of

SOURCE = "wms"
SHARDS = 64
NOW_MS = 1_750_000_000_000
KEYS = 1_000
STOCKED = 100_000
FRAMES = 12
FRAMES_UNDER_WAY = 4  # as many as a gateway that is busy keeps
WARM_FRAMES = 4  # not counted: first dictionaries, and until as many ids leave memory as come
IN_MEMORY_MAX = 2_000


def numbered_events(draw: random.Random, keys: Sequence[str], first: int, count: int) -> list[list[Any]]:
    """Items of receipts, corrections up and down, and counts: what ``python -m bench run ingest`` sends."""
    items = []
    for sequence in range(first, first + count):
        fact, details = draw.choices(
            (
                (Fact.RECEIPT, [5, 1, "", ""]),
                (Fact.ADJUSTMENT, [-1, 1, "broken", ""]),
                (Fact.ADJUSTMENT, [1, 1, "found", ""]),
                (Fact.STOCK_COUNT, [STOCKED, 1, 0, True, False]),
            ),
            (5, 2, 2, 1),
        )[0]
        event_id = str(uuid.UUID(int=draw.getrandbits(128)))
        body = [SOURCE, "", event_id, sequence, NOW_MS, draw.choice(keys), draw.randbytes(16), int(fact), details]
        items.append([int(Verb.INGEST), feed_shard_of(SOURCE, SHARDS), 0, 1, [], body])
    return items


class InLine(JournalThread):
    """No thread: each job is done where it is handed in, and told of by the loop's next pass."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def submit(self, work: Callable[[], Any], done: Done) -> None:
        self._loop.call_soon(done, work(), None)

    def stop(self) -> None:
        """There is nothing to end."""


class Wire(asyncio.Transport):
    """The other end of a link: what the host writes is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = 0
        self.last = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.answered += 1
        self.last = bytes(data)

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        raise OSError(name)  # there is no socket

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        """There is no socket."""


class HostBench:
    """A host that was warmed up. ``run`` is what is measured; ``units``: events, ``answers``: the statuses of their replies."""

    def __init__(self, per_frame: int) -> None:
        draw = random.Random("feed")
        self._loop = asyncio.new_event_loop()
        self._per_frame = per_frame
        self._wire = Wire()
        journal = MemoryJournal(memory_store("check", "timeline", SHARDS, 1, 1))
        config = HostConfig("check", "token")
        self._host = ShardHost(
            config,
            lambda: journal,
            Rules(ended_in_memory_max=IN_MEMORY_MAX),
            clock=ShardClock(lambda: NOW_MS, lambda: 0),
            thread_factory=InLine,
            own_process=False,
        )
        self._loop.run_until_complete(self._host.start())
        self._link = self._linked(config)
        keys = [stock_key("main", f"SKU-{number:07d}") for number in range(KEYS)]
        stocked = [numbered_events(draw, [key], number + 1, 1)[0] for number, key in enumerate(keys)]
        for item in stocked:
            item[5][7:9] = [int(Fact.RECEIPT), [STOCKED, 1, "", ""]]
        events = [numbered_events(draw, keys, KEYS + 1 + number * per_frame, per_frame) for number in range(FRAMES)]
        self._frames = [frames.encode_request(number, items) for number, items in enumerate([stocked, *events])]
        self.units = 0
        self.answers: set[int] = set()
        self._send(self._frames[: 1 + WARM_FRAMES])
        self.units = 0

    def _linked(self, config: HostConfig) -> HostLink:
        """A link that was greeted."""
        host = self._host
        owner = LinkOwner(
            config,
            welcome=host._welcome,
            accept=host._accept,
            now_ms=host._now,
            opened=host._opened,
            closed=host._closed,
        )
        link = HostLink(owner)
        self._loop.call_soon(link.connection_made, self._wire)
        hello = frames.hello(cluster_id="check", timeline="timeline", token="token", peer_name="bench")
        self._loop.call_soon(link.data_received, hello)
        self._loop.run_until_complete(asyncio.sleep(0))
        return link

    def run(self) -> None:
        """All frames, as many under way as a busy gateway has."""
        self._send(self._frames[1 + WARM_FRAMES :])

    def end(self) -> None:
        """Stop the host."""
        self._loop.run_until_complete(self._host.stop())
        self._loop.close()

    def _send(self, some: Sequence[bytes]) -> None:
        wire = self._wire
        answered = wire.answered
        for sent, frame in enumerate(some):
            self._until(answered + sent - FRAMES_UNDER_WAY + 1)
            self._link.data_received(frame)
        self._until(answered + len(some))
        self.units += len(some) * self._per_frame
        (message,) = frames.FrameDecoder().feed(wire.last)
        self.answers |= {reply[0] if reply[0] or reply[2][1] != 1 else 0 for reply in message[3]}

    def _until(self, answered: int) -> None:
        """Pass by pass of the loop, until so many frames were answered."""
        loop, wire = self._loop, self._wire
        passes = 0
        while wire.answered < answered:
            loop.call_soon(loop.stop)
            loop.run_forever()
            passes += 1
            assert passes < 1_000, "the host answers"
