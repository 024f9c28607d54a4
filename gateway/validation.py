"""What a well-formed field is, and how every bad one is named: the only place that says so.

Owns the rules of spelling and size, and the names known from the settings. It reads no whole request:
``gateway.translate`` goes through a request once, checking here and building the item as it goes, and a request with
any finding is refused with all of them. What needs state (is the stock there, is the version right) is the shard's.

The predicates are cheap and used on the way of every call; the words for people are made only when one of them fails.
"""

from __future__ import annotations

import re
from collections.abc import Container

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from actors.domain.keys import parse_exception_id, parse_reservation_id, stock_key
from actors.domain.outcomes import ErrorReason
from actors.domain.rules import ON_HAND_MAX, QUANTITY_PER_LINE_MAX
from actors.shard.placement import consumer_shard_of, feed_shard_of, shard_of
from gateway.config import (
    ID_BYTES_MAX,
    LABEL_KEY_BYTES_MAX,
    LABEL_VALUE_BYTES_MAX,
    LABELS_MAX,
    NOTE_BYTES_MAX,
    PAGE_SIZE_DEFAULT,
    PAGE_SIZE_MAX,
    SOURCE_CACHE_MAX,
    STOCK_KEY_CACHE_MAX,
    GatewayConfig,
)
from gateway.errors import CallFailed, Violation
from stockade.v1 import stock_key_pb2

TIME_MS_MAX = 253_402_300_799_999  # the end of the year 9999: what a Timestamp can say
TIME_SECONDS_MAX = TIME_MS_MAX // 1000
NANOS_PER_SECOND = 1_000_000_000
DURATION_SECONDS_MAX = 315_576_000_000  # what a Duration can say
VERSION_MAX = 2**63 - 1
SEQUENCE_MAX = 2**63 - 1
_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")
NAMES_SHOWN_MAX = 12  # of the known channels or warehouses, in a message about an unknown one


def valid_id(text: str) -> bool:
    """1 to 128 bytes of UTF-8, no control characters, no blanks at the ends."""
    if text.isascii():
        return 0 < len(text) <= ID_BYTES_MAX and text.isprintable() and text[0] != " " and text[-1] != " "
    return not id_problem(text)


def id_problem(text: str) -> str:
    """What is wrong with an id, and how to fix it; empty when nothing is."""
    if not text:
        return "is required: 1 to 128 bytes"
    size = len(text.encode())
    if size > ID_BYTES_MAX:
        return f"has {size} bytes; at most {ID_BYTES_MAX} are accepted"
    if has_control_characters(text):
        return "contains a control character: remove it"
    if text != text.strip():
        return "begins or ends with a blank: remove it"
    return ""


def has_control_characters(text: str) -> bool:
    """Characters of the Unicode category Cc: U+0000 to U+001F and U+007F to U+009F."""
    return _CONTROL_CHARACTER.search(text) is not None


class Findings(list[Violation]):
    """The bad fields of one request. Paths are relative to the request; a batch puts ``requests[3].`` before them."""

    def add(self, field: str, description: str) -> None:
        """One more."""
        self.append(Violation(field, description))

    def id(self, field: str, text: str) -> None:
        """A required id."""
        if not valid_id(text):
            self.add(field, id_problem(text))

    def optional_id(self, field: str, text: str) -> None:
        """An id that may be absent."""
        if text and not valid_id(text):
            self.add(field, id_problem(text))

    def text(self, field: str, text: str, bytes_max: int = NOTE_BYTES_MAX) -> None:
        """Free text for people."""
        if text and len(text.encode()) > bytes_max:
            self.add(field, f"has {len(text.encode())} bytes; at most {bytes_max} are accepted")

    def quantity(self, field: str, quantity: int, least: int = 1, most: int = QUANTITY_PER_LINE_MAX) -> None:
        """Base units of one line."""
        if not least <= quantity <= most:
            self.add(field, f"is {quantity}; it must be between {least} and {most:_}".replace("_", ","))

    def stock_quantity(self, field: str, quantity: int, least: int = 1) -> None:
        """Base units of a warehouse fact."""
        self.quantity(field, quantity, least, ON_HAND_MAX)

    def choice(self, field: str, number: int, known: Container[int], *, required: bool = True) -> None:
        """An enum value; an unknown one is never taken for a default."""
        if number not in known and (number or required):
            self.add(
                field, "is required" if number == 0 else f"has the unknown value {number}: use a value of the enum"
            )

    def reserved(self, field: str, value: object) -> None:
        """A field that is in the contract for later."""
        if value:
            self.add(field, "is reserved and not supported yet: leave it empty")

    def version(self, field: str, version: int) -> None:
        """An expected version; 0 means any."""
        if version < 0:
            self.add(field, f"is {version}; it must be 0 (any version) or a version")

    def size(self, field: str, count: int, least: int, most: int, what: str) -> None:
        """How many elements a list has."""
        if not least <= count <= most:
            self.add(field, f"has {count} {what}; it must have between {least} and {most:,}: use several calls")

    def unique(self, field: str, texts: list[str], name: str) -> None:
        """No two elements with the same id. ``field``: with ``{}`` for the index, ``name``: what must be unique."""
        seen: dict[str, int] = {}
        for index, text in enumerate(texts):
            if not text:
                continue  # an absent one is another finding
            first = seen.setdefault(text, index)
            if first != index:
                self.add(field.format(index), f"{name} {text!r} is already used by element {first}: it must be unique")

    def duration_ms(self, field: str, duration: Duration, least: int, most: int) -> int:
        """A duration in milliseconds within bounds."""
        if abs(duration.seconds) > DURATION_SECONDS_MAX:
            self.add(field, "is out of range")
            return 0
        milliseconds = duration.seconds * 1000 + duration.nanos // 1_000_000
        if not least <= milliseconds <= most:
            self.add(field, f"is {milliseconds} ms; it must be between {least} and {most} ms")
        return milliseconds

    def time_ms(self, field: str, time: Timestamp) -> int:
        """A point in time as Unix milliseconds."""
        milliseconds = time.seconds * 1000 + time.nanos // 1_000_000
        if not 0 < milliseconds <= TIME_MS_MAX or not 0 <= time.nanos < NANOS_PER_SECOND:
            self.add(field, "must be a time after 1970 and before 10000, its nanos below 10^9")
            return 0
        return milliseconds

    def labels(self, field: str, labels: dict[str, str]) -> list[list[str]]:
        """Labels, sorted by key."""
        if len(labels) > LABELS_MAX:
            self.add(field, f"has {len(labels)} labels; at most {LABELS_MAX} are accepted")
        for key, value in labels.items():
            if not valid_id(key) or len(key.encode()) > LABEL_KEY_BYTES_MAX:
                problem = id_problem(key) or f"has more than {LABEL_KEY_BYTES_MAX} bytes"
                self.add(f"{field}[{key[:LABEL_KEY_BYTES_MAX]!r}]", f"the key {problem}")
            if len(value.encode()) > LABEL_VALUE_BYTES_MAX or has_control_characters(value):
                self.add(
                    f"{field}[{key[:LABEL_KEY_BYTES_MAX]!r}]",
                    f"the value must have at most {LABEL_VALUE_BYTES_MAX} bytes and no control characters",
                )
        return [[key, labels[key]] for key in sorted(labels)]

    def page_size(self, field: str, size: int) -> int:
        """How many elements a page may have; 0 means the default."""
        if not 0 <= size <= PAGE_SIZE_MAX:
            self.add(field, f"is {size}; it must be between 1 and {PAGE_SIZE_MAX}, or 0 for {PAGE_SIZE_DEFAULT}")
        return size or PAGE_SIZE_DEFAULT


class KnownNames:
    """Channels and warehouses of the settings, and the stock keys seen lately with their shards.

    A stock key is spelled, checked and placed once (2 µs) and then found by two look-ups (0.1 µs). The cache is emptied
    when full. ``shard_count`` is the cluster's, told by the directory; 0 until then.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self.channels = config.channels
        self.warehouses = config.warehouses
        self.shard_count = 0
        # warehouse → SKU → (stock key, shard); hot paths look in it directly
        self.placed: dict[str, dict[str, tuple[str, int]]] = {warehouse: {} for warehouse in config.warehouses}
        self.feeds: dict[str, int] = {}  # well-formed source → its feed shard
        self._cached = 0

    def set_shard_count(self, shard_count: int) -> None:
        """Told by the directory. Another number than before means another cluster: nothing cached holds."""
        if shard_count != self.shard_count:
            self.shard_count = shard_count
            self._forget()

    def require_shards(self) -> None:
        """Raises CallFailed SHARD_UNAVAILABLE while nobody has told how many shards there are."""
        if not self.shard_count:
            raise CallFailed(ErrorReason.SHARD_UNAVAILABLE, "no shard host has been found yet")

    def channel(self, field: str, channel_id: str, findings: Findings) -> None:
        """A required, known channel."""
        if channel_id not in self.channels:
            findings.add(field, _unknown("channel", channel_id, list(self.channels)))

    def warehouse(self, field: str, warehouse_id: str, findings: Findings) -> None:
        """A required, known warehouse."""
        if warehouse_id not in self.warehouses:
            findings.add(field, _unknown("warehouse", warehouse_id, list(self.warehouses)))

    def find(self, key: stock_key_pb2.StockKey) -> tuple[str, int] | None:
        """A stock key that was placed lately: as the domain spells it, and its shard. The hot path of ``place``."""
        skus = self.placed.get(key.warehouse_id)
        return skus.get(key.sku) if skus is not None and not key.owner_id else None

    def place(self, key: stock_key_pb2.StockKey, field: str, findings: Findings) -> tuple[str, int]:
        """A stock key as the domain spells it, and its shard; ("", 0) with findings when it is not well formed."""
        placed = self.find(key)
        if placed is not None:
            return placed
        warehouse_id, sku = key.warehouse_id, key.sku
        before = len(findings)
        findings.id(f"{field}.sku", sku)
        self.warehouse(f"{field}.warehouse_id", warehouse_id, findings)
        findings.reserved(f"{field}.owner_id", key.owner_id)
        if len(findings) > before:
            return "", 0
        if self._cached >= STOCK_KEY_CACHE_MAX:
            self._forget()
        spelled = stock_key(warehouse_id, sku)
        placed = self.placed[warehouse_id][sku] = (spelled, shard_of(spelled, self.shard_count))
        self._cached += 1
        return placed

    def consumer_shard(self, consumer_id: str) -> int:
        """Where a consumer's place is kept."""
        return consumer_shard_of(consumer_id, self.shard_count)

    def place_anywhere(self, key: stock_key_pb2.StockKey, field: str, findings: Findings) -> tuple[str, int]:
        """As ``place``, of a warehouse that need not be known: events of an unknown one are rejected by its shard, on
        record.
        """
        if key.warehouse_id in self.warehouses:
            return self.place(key, field, findings)
        before = len(findings)
        findings.id(f"{field}.sku", key.sku)
        findings.id(f"{field}.warehouse_id", key.warehouse_id)
        findings.reserved(f"{field}.owner_id", key.owner_id)
        if len(findings) > before:
            return "", 0
        spelled = stock_key(key.warehouse_id, key.sku)
        return spelled, shard_of(spelled, self.shard_count)

    def feed_shard(self, source_id: str) -> int:
        """The shard where a source's events are told apart."""
        return feed_shard_of(source_id, self.shard_count)

    def feed(self, field: str, source_id: str, findings: Findings) -> int:
        """The same of a required id, which is remembered when it is well formed."""
        if not valid_id(source_id):
            findings.id(field, source_id)
            return 0
        if len(self.feeds) >= SOURCE_CACHE_MAX:
            self.feeds.clear()
        shard = self.feeds[source_id] = self.feed_shard(source_id)
        return shard

    def home(self, reservation_id: str) -> int:
        """The home shard that a well-formed id names. Raises CallFailed RESERVATION_NOT_FOUND when it is not one of
        ours.
        """
        parts = parse_reservation_id(reservation_id)
        if parts is None or parts.shard >= self.shard_count:
            raise CallFailed(ErrorReason.RESERVATION_NOT_FOUND, f"no reservation {reservation_id!r}")
        return parts.shard

    def exception_shard(self, exception_id: str) -> int:
        """The shard that a well-formed exception id names. Raises CallFailed EXCEPTION_NOT_FOUND when it is not one of ours."""
        shard = parse_exception_id(exception_id)
        if shard is None or shard >= self.shard_count:
            raise CallFailed(ErrorReason.EXCEPTION_NOT_FOUND, f"no exception {exception_id!r}")
        return shard

    def _forget(self) -> None:
        for skus in self.placed.values():
            skus.clear()
        self.feeds.clear()
        self._cached = 0


def _unknown(what: str, name: str, known: list[str]) -> str:
    problem = id_problem(name)
    if problem:
        return problem
    shown = ", ".join(sorted(known)[:NAMES_SHOWN_MAX]) + (", …" if len(known) > NAMES_SHOWN_MAX else "")
    return f"{what} {name!r} is not declared in the settings; known: {shown or 'none'}"
