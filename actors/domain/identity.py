"""Ids of requests, events and shipments: how their dedupe keys are spelled, what a repeat gets, when an id is too old.

Keys start with a letter for their kind, so ids of different kinds can never meet: ``c`` a channel's request id, ``o`` an
operator call's, ``e`` a warehouse event's, ``s`` a shipment's identity, ``r`` an ended reservation's row in the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

OPERATOR_SCOPE = "operator"

# The first element of an EntrySpent's answer says what a repeat gets.
ANSWER_REFUSAL = 1  # [1, reason, shortages, state, version]: a refusal that spent its id
ANSWER_TOMBSTONE = 2  # [2, release request id]: a release by request id came first; the late reserve is RELEASED
# [3, IngestOutcome, shortage, exception id, reject reason, shard, epoch, sequence, time, booked disposition, gate reasons]:
# where the first answer stood; the first five alone: it stood where the entry stands
ANSWER_INGEST = 3
ANSWER_DONE = 4  # [4]: an operator call; its repeat shows the stock as it is now
ANSWER_SHIPMENT = 5  # [5, quantity]: a shipment's identity was booked with that quantity
ANSWER_TOMBSTONE_RELEASE = 6  # [6]: the release by request id that found nothing; its repeat answers the same
ANSWER_CHANGE_REJECTED = 7  # [7, exception id]: a consumer did not take a change

ANSWER_RESOLUTION = 8  # [8, …]: what became of an exception's event: ``answers.ResolutionView`` without the exception


def request_key(channel_id: str, request_id: str) -> str:
    """A request id in the scope of its channel."""
    return f"c\x1f{channel_id}\x1f{request_id}"


def expiry_key(reservation_id: str) -> str:
    """The operation that expires a reservation whose lines are on several hosts."""
    return f"x\x1f{reservation_id}"


def retirement_key(reservation_id: str) -> str:
    """The operation that asks how it ended, before it leaves memory."""
    return f"m\x1f{reservation_id}"


def operator_key(request_id: str, stock_key: str) -> str:
    """An operator call's id; a batch shares one id over its stock keys, so the key belongs to the identity."""
    return f"o\x1f{request_id}\x1f{stock_key}"


def event_key(source_id: str, event_id: str) -> str:
    """A warehouse event, at its source's feed shard."""
    return f"e\x1f{source_id}\x1f{event_id}"


def feed_key(source_id: str, stream_id: str) -> str:
    """One stream of a source."""
    return f"{source_id}\x1f{stream_id}"


def split_feed_key(key: str) -> tuple[str, str]:
    """(source id, stream id) of a feed key."""
    source_id, _, stream_id = key.partition("\x1f")
    return source_id, stream_id


def shipment_key(stock_key: str, shipment_id: str, document_line: str) -> str:
    """(warehouse, shipment id, stock key, document line or line id): one shipment, whichever door told it."""
    return f"s\x1f{stock_key}\x1f{shipment_id}\x1f{document_line}"


def rejection_key(consumer_id: str, change_id: str) -> str:
    """A change that a consumer did not take."""
    return f"x\x1f{consumer_id}\x1f{change_id}"


def reservation_row_key(reservation_id: str) -> str:
    """An ended reservation in the entries table."""
    return f"r\x1f{reservation_id}"


def order_key(channel_id: str, order_reference: str) -> str:
    """An order as the warehouse names it."""
    return f"{channel_id}\x1f{order_reference}"


def promise_text(promise: Sequence[Any]) -> str:
    """A promise spelled as one string: what adrift picks are kept under. Empty when there is none.

    Without the line id: the units of a promise on one stock key are one pile.
    """
    if not promise:
        return ""
    reservation_id, channel_id, order_reference, _ = promise
    return f"r\x1f{reservation_id}" if reservation_id else f"o\x1f{channel_id}\x1f{order_reference}"


def uuid7_time_ms(text: str) -> int | None:
    """When a UUIDv7 was made, Unix milliseconds (RFC 9562 §5.7); None when ``text`` is not one."""
    if len(text) != 36 or text[14] != "7" or text[8] != "-" or text[13] != "-" or text[18] != "-" or text[23] != "-":
        return None
    try:
        return int(text[0:8] + text[9:13], 16)
    except ValueError:
        return None


def uuid7_text_ceiling(time_ms: int) -> str:
    """A text that every UUIDv7 made before ``time_ms`` sorts before, however its hexadecimal digits are written."""
    return f"{max(0, time_ms):012x}"[:8] + "g"  # "g" sorts after every digit; coarse by 65 s, which only costs a look
