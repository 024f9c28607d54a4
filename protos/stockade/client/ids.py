"""Request ids: UUIDv7 made once per call and kept across its retries; and the guard against reusing one for other content."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from hashlib import blake2b

from stockade.client.errors import RequestIdReused

IDS_REMEMBERED_MAX = 10_000


def new_request_id() -> str:
    """A UUIDv7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, 74 random bits. The service can tell its age from it."""
    random = int.from_bytes(os.urandom(10), "big")
    value = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | 0x7 << 76 | (random >> 64 & 0xFFF) << 64
    value |= 0b10 << 62 | random & (1 << 62) - 1
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class IdGuard:
    """Remembers the last ids a caller chose himself, so that one is never sent with other content. Thread-safe."""

    def __init__(self, most: int = IDS_REMEMBERED_MAX) -> None:
        self._most = most
        self._digests: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, scope: str, request_id: str, content: bytes) -> None:
        """Raise ``RequestIdReused`` when this id went out with other content before."""
        digest = blake2b(content, digest_size=16).digest()
        with self._lock:
            known = self._digests.setdefault((scope, request_id), digest)
            if known != digest:
                raise RequestIdReused(f"request_id {request_id!r} was already sent with other content: make a new one")
            self._digests.move_to_end((scope, request_id))
            if len(self._digests) > self._most:
                self._digests.popitem(last=False)
