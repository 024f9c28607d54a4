"""Whether an item's body fits its verb: the types, sizes and ranges that the domain's rules build on.

Gateways check what callers sent, field by field, and say what is wrong. This is the host's own guard: a gateway with a bug,
or of another version, must not end a host, nor put into the journal what replay and ``verify`` cannot read. It names no field.
More fields than are known do not fit: a newer gateway sends them only to hosts that know them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from actors.domain.commands import COMMANDS, Verb
from actors.domain.keys import UNIT_SEPARATOR
from actors.domain.outcomes import Disposition, Fact
from actors.domain.rules import ON_HAND_MAX, QUANTITY_PER_LINE_MAX, RECALLED_LOTS_MAX

Check = Callable[[Any], bool]

WHOLE_MAX = 2**62  # of numbers that nothing else bounds: sums of two still fit into 64 bits
TIME_MS_MAX = 253_402_300_799_999  # the end of the year 9999
DURATION_MS_MAX = 315_576_000_000_000  # 10,000 years
DISPOSITIONS = frozenset(map(int, Disposition))

_LINE = (str, str, int, int)
RECONCILE_LINES = int(Verb.RECONCILE_LINES)
RESERVE, INGEST = int(Verb.RESERVE), int(Verb.INGEST)  # compared a million times: plain numbers
US = UNIT_SEPARATOR
_RESERVE = (str, bytes, str, list, int, bool, int, int, str, str, str, list)
_INGEST = (str, str, str, int, int, str, bytes, int, list, str, str, str, int, list, int)
RESERVE_FIELDS_MIN, INGEST_FIELDS_MIN = 8, 9
_INGEST_PLAIN = _INGEST[:INGEST_FIELDS_MIN]


def fits(item: Sequence[Any]) -> bool:
    """Whether the engine may be given this item, whose own fields are of the right types already."""
    verb, _, _, _, cause, body = item
    if cause and not (type(cause) is list and len(cause) == 3 and all(map(_text, cause))):  # noqa: PLR2004
        return False
    if verb == RESERVE:
        return _reserve(body)
    if verb == INGEST:
        return _ingest(body)
    fields = _FIELDS.get(verb)
    if fields is None or not _REQUIRED[verb] <= len(body) <= len(fields):
        return False
    fit = all(check(value) for check, value in zip(fields, body, strict=False))
    return fit and (verb != RECONCILE_LINES or _reconcile_lines(body))


def _reserve(body: Sequence[Any]) -> bool:
    """The hot path: types in one comparison, then what has a range."""
    count = len(body)
    if (
        tuple(map(type, body)) != (_RESERVE if count == len(_RESERVE) else _RESERVE[:count])
        or count < RESERVE_FIELDS_MIN
    ):
        return False
    request_id, _, channel_id, lines, ttl_ms, _, fill_policy, admission = body[:RESERVE_FIELDS_MIN]
    if not (request_id and channel_id and lines and 0 <= ttl_ms <= DURATION_MS_MAX):
        return False
    if not (1 <= fill_policy <= 3 and 1 <= admission <= 2):  # noqa: PLR2004  FillPolicy and Admission
        return False
    if UNIT_SEPARATOR in request_id or UNIT_SEPARATOR in channel_id:
        return False
    for line in lines:
        if type(line) is not list or tuple(map(type, line)) != _LINE:
            return False
        line_id, key, quantity, minimum = line
        if not (line_id and 0 <= minimum <= quantity and 1 <= quantity <= QUANTITY_PER_LINE_MAX and key.count(US) == 2):  # noqa: PLR2004
            return False
    return count < len(_RESERVE) or not body[11] or _pairs(body[11])


def _ingest(body: Sequence[Any]) -> bool:
    """As hot, in a warehouse's rush hour, where most events have no paper and so no more fields than they need."""
    types = tuple(map(type, body))
    if types != _INGEST_PLAIN and (types != _INGEST[: len(types)] or len(types) < INGEST_FIELDS_MIN):
        return False
    rest = body[INGEST_FIELDS_MIN:]
    source_id, stream_id, event_id, sequence, occur_ms, key, _, fact, details = body[:INGEST_FIELDS_MIN]
    if not (
        source_id
        and event_id
        and 0 <= sequence <= WHOLE_MAX
        and 0 <= occur_ms <= TIME_MS_MAX
        and 0 <= fact <= WHOLE_MAX
    ):
        return False
    if key.count(US) != 2 or US in source_id or US in stream_id or US in event_id:  # noqa: PLR2004
        return False
    if rest and not all(check(value) for check, value in zip(_INGEST_REST, rest, strict=False)):
        return False
    check_details = _DETAILS.get(fact)  # an unknown fact is rejected on record, whatever its details are
    return check_details is None or check_details(details)


# --- one value --------------------------------------------------------------------------------------------------------------


def _text(value: Any) -> bool:
    return type(value) is str


def _identifier(value: Any) -> bool:
    return type(value) is str and value != "" and UNIT_SEPARATOR not in value


def _no_or_identifier(value: Any) -> bool:
    return type(value) is str and UNIT_SEPARATOR not in value


def _key(value: Any) -> bool:
    return type(value) is str and value.count(UNIT_SEPARATOR) == 2  # noqa: PLR2004


def _no_or_key(value: Any) -> bool:
    return value == "" or _key(value)


def _digest(value: Any) -> bool:
    return type(value) is bytes


def _flag(value: Any) -> bool:
    return type(value) is bool


def _within(least: int, most: int) -> Check:
    return lambda value: type(value) is int and least <= value <= most


_whole = _within(-WHOLE_MAX, WHOLE_MAX)
_count = _within(0, WHOLE_MAX)
_time = _within(0, TIME_MS_MAX)
_duration = _within(0, DURATION_MS_MAX)
_units = _within(1, QUANTITY_PER_LINE_MAX)
_stock_units = _within(1, ON_HAND_MAX)
_stock_units_or_none = _within(0, ON_HAND_MAX)
_policy = _within(-1, ON_HAND_MAX)
_selling = _within(0, 2)
_receipt_disposition = _within(0, 2)  # as it is, SELLABLE or QUALITY_HOLD
_page_size = _within(0, 100_000)


def _disposition(value: Any) -> bool:
    return type(value) is int and value in DISPOSITIONS


# --- lists ------------------------------------------------------------------------------------------------------------------


def _list_of(check: Check) -> Check:
    return lambda value: type(value) is list and all(map(check, value))


def _tuple_of(*checks: Check) -> Check:
    def fits_all(value: Any) -> bool:
        return (
            type(value) is list
            and len(value) == len(checks)
            and all(check(part) for check, part in zip(checks, value, strict=True))
        )

    return fits_all


def _line(line: Any) -> bool:
    """A line of an amend; as in ``_reserve``."""
    return (
        type(line) is list
        and tuple(map(type, line)) == _LINE
        and 1 <= line[2] <= QUANTITY_PER_LINE_MAX
        and 0 <= line[3] <= line[2]
        and line[0] != ""
        and line[1].count(UNIT_SEPARATOR) == 2  # noqa: PLR2004
    )


def _receipt(details: Any) -> bool:
    """Written out: most of a warehouse's events."""
    return (
        tuple(map(type, details)) == (int, int, str, str)
        and 1 <= details[0] <= ON_HAND_MAX
        and details[1] in DISPOSITIONS
    )


def _adjustment(details: Any) -> bool:
    """Written out as well, and the next."""
    return (
        tuple(map(type, details)) == (int, int, str, str)
        and -ON_HAND_MAX <= details[0] <= ON_HAND_MAX
        and details[1] in DISPOSITIONS
    )


def _stock_count(details: Any) -> bool:
    return (
        tuple(map(type, details)) == (int, int, int, bool, bool)
        and 0 <= details[0] <= ON_HAND_MAX
        and details[1] in DISPOSITIONS
        and 0 <= details[2] <= WHOLE_MAX
    )


def _no_or_event(value: Any) -> bool:
    return value == [] or (type(value) is list and _ingest(value))


_pairs = _list_of(_tuple_of(_text, _text))
_numbers = _list_of(_whole)


def _lots(value: Any) -> bool:
    """[recalled lots], or []: as they are."""
    if type(value) is not list or not value:
        return type(value) is list
    lots = value[0]
    if len(value) != 1 or type(lots) is not list or len(lots) > RECALLED_LOTS_MAX:
        return False
    return all(map(_identifier, lots))


def _promise(value: Any) -> bool:
    return value == [] or _four_texts(value)


_four_texts = _tuple_of(_no_or_identifier, _no_or_identifier, _no_or_identifier, _no_or_identifier)


def fits_read_changes(body: Sequence[Any]) -> bool:
    """Whether the body of a READ_CHANGES is [timeline, [[shard, sequence], …], weight_max, wait_ms]."""
    return (
        len(body) == 4  # noqa: PLR2004
        and _text(body[0])
        and _places(body[1])
        and _within(1, 1_000_000)(body[2])
        and _within(0, 60_000)(body[3])
    )


_CAUSE = (int, str, str, str, str, str, str, str, int, int)  # ``commands.Cause``


def _whole_cause(value: Any) -> bool:
    return type(value) is list and tuple(map(type, value[: len(_CAUSE)])) == _CAUSE


_shard = _within(0, 4_095)
_number = _within(1, WHOLE_MAX)
_places = _list_of(_tuple_of(_shard, _within(-2, WHOLE_MAX)))


def _any_list(value: Any) -> bool:
    return type(value) is list


_reconciliation_header = _tuple_of(
    _no_or_identifier, _no_or_identifier, _count, _time, _stock_units_or_none, _within(0, 1_000), _within(1, 2),
    _within(1, 2), _no_or_identifier,
)  # fmt: skip
_RECONCILIATION_LINES: dict[int, Check] = {
    1: _list_of(_tuple_of(_key, _disposition, _stock_units_or_none, _flag)),
    2: _list_of(_tuple_of(_key, _identifier, _identifier, _stock_units_or_none)),
    3: _list_of(_tuple_of(_key, _stock_units_or_none)),
}


def _reconcile_lines(body: Sequence[Any]) -> bool:
    """Lines fit the kind of their reconciliation."""
    return _RECONCILIATION_LINES[body[2]](body[5])


# --- whole bodies -----------------------------------------------------------------------------------------------------------

_REQUEST = (_identifier, _digest)
_kind = _within(1, 3)
RECONCILIATION_FIELDS: dict[int, tuple[Check, ...]] = {
    Verb.BEGIN_RECONCILIATION: (*_REQUEST, _identifier, _identifier, _kind, _reconciliation_header),
    Verb.RECONCILE_LINES: (_identifier, _identifier, _kind, _reconciliation_header, _flag, _any_list),
    Verb.FINISH_RECONCILIATION: (_identifier, _identifier, _within(3, 4), _list_of(_count), _text),
    Verb.GET_RECONCILIATION: (_identifier,),
    Verb.LIST_RECONCILIATIONS: (_no_or_identifier, _numbers, _page_size, _text),
    Verb.LIST_FINDINGS: (_identifier, _numbers, _page_size, _text),
    Verb.LIST_COMPARABLE: (_identifier, _kind, _count, _within(1, 100_000), _time),
}
_FIELDS: dict[int, tuple[Check, ...]] = {
    Verb.CONFIRM: (*_REQUEST, _identifier, _no_or_identifier, _count),
    Verb.RELEASE: (
        *_REQUEST, _no_or_identifier, _no_or_identifier, _no_or_identifier, _list_of(_tuple_of(_identifier, _units)), _count,
        _text,
    ),
    Verb.EXTEND: (*_REQUEST, _identifier, _duration),
    Verb.AMEND: (*_REQUEST, _identifier, _list_of(_line), _list_of(_identifier), _count),
    Verb.FULFILL: (
        *_REQUEST, _identifier, _identifier, _list_of(_tuple_of(_identifier, _units, _no_or_identifier)), _flag, _time,
    ),
    Verb.GET_RESERVATION: (_identifier,),
    Verb.LIST_RESERVATIONS: (_no_or_identifier, _no_or_identifier, _no_or_key, _numbers, _page_size, _text),
    Verb.GET_AVAILABILITY: (_no_or_identifier, _list_of(_key)),
    Verb.EXPLAIN_AVAILABILITY: (_no_or_identifier, _key, _count),
    Verb.GET_STOCK: (_key,),
    Verb.LIST_STOCK: (_no_or_identifier, _flag, _page_size, _text),
    Verb.LIST_TRANSFERS: (_no_or_identifier, _no_or_identifier, _no_or_identifier, _page_size, _text),
    Verb.LIST_EXCEPTIONS: (
        _numbers, _no_or_identifier, _no_or_key, _numbers, _page_size, _text, _numbers, _text, _time, _time, _flag,
        _no_or_identifier,
    ),
    Verb.GET_EXCEPTION: (_identifier,),
    Verb.RESOLVE_EXCEPTION: (*_REQUEST, _identifier, _within(1, 4), _text, _text, _no_or_event),
    Verb.ACKNOWLEDGE_CHANGES: (
        _identifier, _text, _time, _list_of(_tuple_of(_within(0, 4_095), _within(-1, WHOLE_MAX))),
        _list_of(_tuple_of(_identifier, _text)), _text,
    ),
    Verb.LIST_CONSUMERS: (),
    Verb.ATTACH_CONSUMER: (_identifier,),
    Verb.LIST_AVAILABILITY: (_no_or_identifier, _page_size, _count),
    Verb.REGISTER_STOCK: (*_REQUEST, _key, _policy, _selling, _policy, _text, _selling, _receipt_disposition, _lots),
    Verb.SET_STOCK_POLICY: (
        *_REQUEST, _key, _policy, _policy, _text, _count, _selling, _selling, _receipt_disposition, _lots,
    ),
    Verb.SET_SELLING: (*_REQUEST, _key, _within(1, 2), _text),
    Verb.TAKE_ERRAND: (_shard, _number, _number, _number, _any_list, _whole_cause),
    Verb.ERRAND_ANSWERED: (_shard, _number, _any_list),
    Verb.READ_LINES: (_identifier, _list_of(_key), _count, _list_of(_tuple_of(_key, _identifier, _identifier))),
    Verb.HEARTBEAT: (_identifier, _no_or_identifier, _no_or_identifier, _count),
    Verb.GET_FEED_STATUS: (_no_or_identifier, _no_or_identifier, _no_or_identifier, _page_size, _text),
    **RECONCILIATION_FIELDS,
}  # fmt: skip
_INGEST_REST = (_no_or_identifier, _no_or_identifier, _no_or_identifier, _time, _pairs, _within(0, 1_000))
_REQUIRED = {verb: len(command._fields) - len(command._field_defaults) for verb, command in COMMANDS.items()}

_DETAILS: dict[int, Check] = {
    Fact.RECEIPT: _receipt,
    Fact.PICK: _tuple_of(_stock_units, _promise),
    Fact.UNPICK: _tuple_of(_stock_units, _promise),
    Fact.SHIPMENT: _tuple_of(_stock_units, _identifier, _promise, _flag, _disposition),
    Fact.ADJUSTMENT: _adjustment,
    Fact.STOCK_COUNT: _stock_count,
    Fact.DISPOSITION_CHANGE: _tuple_of(_stock_units, _disposition, _disposition),
    Fact.TRANSFER_DISPATCH: _tuple_of(_stock_units, _identifier, _text, _identifier, _disposition),
    Fact.TRANSFER_RECEIPT: _tuple_of(_stock_units, _identifier, _text, _identifier, _flag, _disposition),
    Fact.CUSTOMER_RETURN: _tuple_of(_stock_units, _disposition, _promise, _text),
}
