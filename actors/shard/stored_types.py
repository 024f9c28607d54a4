"""Whether what was read from the journal has the types that were written: events, and entities of snapshots and rows.

A checksum tells that bytes are the ones that were written, not that the writer was sane, nor that it wrote this format. What
is not so is damage, said with its place by the caller; nothing is mended or guessed here, and no amounts are judged: that is
``verify``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_origin, get_type_hints

from actors.domain.commands import Ingest
from actors.domain.events import EVENT_KINDS
from actors.domain.history import FACT_BYTES

# What decoding or applying raises when a part is missing, of another type, unknown, or at odds with what came before.
UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, OverflowError)

Types = tuple[type, ...]


def _types_of(event: type[Any]) -> Types:
    hints = get_type_hints(event)
    return tuple(list if get_origin(hints[name]) is not None else hints[name] for name in event._fields)


EVENT_TYPES: dict[int, Types] = {kind: _types_of(event) for kind, event in EVENT_KINDS.items()}
_LINES_AT = {30: 7, 33: 1}  # ReservationOpened, ReservationAmended
_PLACES_AT = {80: 2, 81: 3}  # ConsumerStarted, ChangesAcknowledged
_NUMBERED = (30, 50)  # ReservationOpened, ExceptionOpened: their ids end with their numbers
_LINE: Types = (str, str, int, int)

# kind of event → tag (``encoding.Tag``) of the entity that it names
TAG_OF_KIND: dict[int, int] = {kind: kind // 10 for kind in EVENT_KINDS if kind < 70} | {  # noqa: PLR2004
    61: 7, 62: 7, 68: 1, 80: 9, 81: 9, 82: 9, 83: 9, 70: 1, 71: 1, 72: 1, 73: 1, 74: 6,
}  # fmt: skip
TAG_OF_KIND |= dict.fromkeys(range(90, 95), 10) | dict.fromkeys(range(95, 98), 11) | {100: 12, 101: 13, 102: 12, 121: 4}
TAG_OF_KIND |= dict.fromkeys(range(110, 114), 14)

# By tag (``encoding.Tag``): the types of what ``encoding.encode_…`` takes.
ENTITY_TYPES: dict[int, Types] = {
    0: (int, str, int, int, int, int),
    1: (str, int, list, int, int, int, str, int, list, list, list, list),
    2: (str, str, str, str, bool, list),
    3: (str, int, str, str, bytes, str, str, str, list, int, int, list, int, int, int, int, int, int, list, list),
    4: (str, bytes, list, int, int, int, int),
    5: (str, list, int, list, int, int, int, list, list, list),
    6: (str, int, list, int, int, str, list, list),
    7: (str, str, int, int, list, str, str, str),
    9: (str, str, list, int, int, int, str, int, str),
    10: (str, str, int, int, int, str, str, str, bytes, list, list, str, str, int, int, int),
    11: (str, int, int, int, int, int, bool, bool, str, list, list, int, int),
    12: (int, int, list),
    13: (int, int, int, list),
    14: (str, int, list, str, str, int, list, list, int, int, list),
}
FIELDS_MIN = {1: 9, 5: 7}  # by tag, where an older version wrote fewer
_CLAIM: Types = (str, int, int, int, int, int, int, int, int)
_PAIR: Types = (int, int)
_ADRIFT: Types = (str, int)
_OPENED: tuple[Types, ...] = ((int, int, int, list), (int, int, int, type(None)))
_CONSTANT: Types = (int, str, str, str, str, str, str, int)  # of an exception, what never changes
_STOCK, _CLAIMS, _RESERVATION, _EXCEPTION, _FEED, _DEFERRED, _CONSUMER = 1, 2, 3, 5, 6, 7, 9
_OUTBOUND, _INBOUND = 12, 13
_ERRAND: Types = (int, int, list, list, list, int)  # open, without the shard it is for
_KEPT: Types = (int, list)
_INTERVAL: Types = (int, int, int)
_SILENT: Types = (str, str)
_HISTORY: Types = (int, list, list, bytes, list)
_MARKER: Types = (int, str, int, int, bool, int, str)
_HANDLING: Types = (int, int, str, str, int)
_GATE: Types = (int, int, list)
_TRANSFER: Types = (str, str, int, int, bool, str, int)
_PART: Types = (str, int, int, int, int, int, int, int)  # of a feed, about one warehouse
_INGEST: Types = _types_of(Ingest)  # a waiting event


def check_event(kind: int, fields: Sequence[Any]) -> None:
    """Raises ValueError unless an event's fields are of its kind's types; KeyError for an unknown kind."""
    types = EVENT_TYPES[kind]
    if tuple(map(type, fields)) != types[: len(fields)]:
        raise ValueError(f"an event of kind {kind} with fields of other types: {_shown(fields)}")
    if kind in _NUMBERED and not _ends_with(fields[0], fields[1]):
        raise ValueError(f"an event of kind {kind} whose id is not that of its number: {_shown(fields)}")
    if kind == 61 and not _is_ingest(fields[4]):  # noqa: PLR2004  EventDeferred
        raise ValueError(f"a waiting event that is none: {_shown(fields)}")
    if kind in _PLACES_AT and not _all_of(fields[_PLACES_AT[kind]], _PAIR):
        raise ValueError(f"an event of kind {kind} with places that are none: {_shown(fields)}")
    if kind in _LINES_AT and not _all_of(fields[_LINES_AT[kind]], _LINE):
        raise ValueError(f"an event of kind {kind} with lines that are none: {_shown(fields)}")


def check_entity(tag: int, fields: Sequence[Any]) -> None:
    """Raises ValueError unless an entity's fields are of its tag's types."""
    if tag not in ENTITY_TYPES:
        raise ValueError(f"an entity of unknown tag {tag}")
    types = ENTITY_TYPES[tag]
    good = tuple(map(type, fields)) == types[: len(fields)] and len(fields) >= FIELDS_MIN.get(tag, len(types))
    if good and tag == _STOCK:
        good = (
            _all_of(fields[2], _PAIR)
            and _all_of(fields[8], _ADRIFT)
            and _is_history(fields[9:10])
            and _are_parts(fields[10:])
        )
    elif good and tag == _CLAIMS:
        good = bool(fields[5]) and _all_of(fields[5], _CLAIM)
    elif good and tag == _RESERVATION:
        good = (
            _all_of(fields[11], _LINE) and tuple(map(type, fields[18])) in _OPENED and _ends_with(fields[0], fields[1])
        )
    elif good and tag == _EXCEPTION:
        number = fields[0].rpartition("-")[2]
        good = tuple(map(type, fields[1])) == _CONSTANT and number.isascii() and number.isdigit()
        good = good and all(_all_of(handlings, _HANDLING) for handlings in fields[9:])
    elif good and tag == _FEED:
        good = _all_of(fields[2], _INTERVAL) and _all_of(fields[6], _SILENT) and _all_of(fields[7], _PART)
    elif good and tag == _CONSUMER:
        good = _all_of(fields[2], _PAIR)
    elif good and tag == _OUTBOUND:
        good = _all_of(fields[2], _ERRAND) and _follow(fields[2], fields[1] - len(fields[2]))
    elif good and tag == _INBOUND:
        good = _all_of(fields[3], _KEPT) and _follow(fields[3], fields[1] + 1 - len(fields[3]))
    elif good and tag == _DEFERRED:
        good = _is_ingest(fields[4])
    if not good:
        raise ValueError(f"an entity of tag {tag} with fields of other types: {_shown(fields)}")


def _follow(parts: Sequence[Any], first: int) -> bool:
    return all(part[0] == first + at for at, part in enumerate(parts))


def _ends_with(identifier: str, number: int) -> bool:
    return identifier.rpartition("-")[2] == str(number)


def _is_history(fields: Sequence[Any]) -> bool:
    if not fields or not fields[0]:
        return True  # an older version has none, a new stock key neither
    history = fields[0]
    return (
        tuple(map(type, history)) == _HISTORY
        and all(type(name) is str for name in (*history[1], *history[2]))
        and len(history[3]) % FACT_BYTES == 0
        and _all_of(history[4], _MARKER)
    )


def _are_parts(fields: Sequence[Any]) -> bool:
    """A sale gate and transfers, as far as the version that wrote them had them."""
    if fields and fields[0] and not (tuple(map(type, fields[0])) == _GATE and _texts(fields[0][2])):
        return False
    return len(fields) < 2 or _all_of(fields[1], _TRANSFER)  # noqa: PLR2004


def _texts(values: Sequence[Any]) -> bool:
    return all(type(value) is str for value in values)


def _is_ingest(body: Sequence[Any]) -> bool:
    return len(body) > 8 and tuple(map(type, body)) == _INGEST[: len(body)]  # noqa: PLR2004  what has no default


def _all_of(parts: Any, types: Types) -> bool:
    return isinstance(parts, list) and all(type(part) is list and tuple(map(type, part)) == types for part in parts)


def _shown(fields: Sequence[Any]) -> str:
    return repr(list(fields))[:200]
