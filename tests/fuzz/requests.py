"""Requests generated from the proto descriptors: mostly plausible values by a field's name, now and then nasty ones.

Also checks messages that come back: ``check_answer`` walks any message of the contract and asserts what holds of all of them.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway.server import SERVICES
from gateway.validation import TIME_MS_MAX, id_problem
from tests.fuzz import nasty
from tests.fuzz.registry import Random

METHODS: dict[str, Any] = {
    method.name: method for file, service, _ in SERVICES for method in file.DESCRIPTOR.services_by_name[service].methods
}
# What can be called without a host's shell behind it, whose long polls a stream of changes needs.
CALLED = {name: method for name, method in METHODS.items() if method.client_streaming or not method.server_streaming}
EVENT: Any = METHODS["IngestEvents"].input_type.fields_by_name["events"].message_type
IDS = {
    "sku": ("A", "B", "C"),
    "warehouse_id": ("main", "om"),
    "to_warehouse_id": ("main", "om", "far"),
    "from_warehouse_id": ("main", "om", "far"),
    "channel_id": ("web", "edi"),
    "source_id": ("wms", "erp"),
    "stream_id": ("", "s1"),
    "line_id": ("0", "1", "2", "a"),
    "document_line": ("", "1", "2"),
    "order_reference": ("", "o1", "o2"),
    "shipment_id": ("s1", "s2"),
    "transfer_id": ("t1", "t2"),
    "base_unit": ("", "pc"),
    "page_token": ("",),
    "note": ("", "a note"),
}
RESERVED = ("owner_id", "quantity_multiple", "bundle_id", "unit_code", "lot_id", "replaces_reservation_id")
START_MS = 1_700_000_000_000
INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def request(random: Random, method: str, nastiness: float) -> Message:
    """A request of a method. ``nastiness``: how likely each value is a nasty one."""
    return filled(random, METHODS[method].input_type, nastiness, 0)


def stream(random: Random, method: str, nastiness: float) -> list[bytes]:
    """The messages of a caller's stream: mostly its opening, then some with what it brings."""
    descriptor = METHODS[method].input_type
    first = descriptor.fields[0]
    messages = []
    for at in range(random.choice((1, 2, 3, 5))):
        message: Any = filled(random, descriptor, nastiness, 0)
        if random.random() > nastiness / 2:
            if at:
                message.ClearField(first.name)
            else:
                message.Clear()
                getattr(message, first.name).CopyFrom(filled(random, first.message_type, nastiness, 1))
        messages.append(message.SerializeToString())
    return messages


def filled(random: Random, descriptor: Descriptor, nastiness: float, depth: int) -> Message:
    """A message of any type with its fields filled."""
    message: Message = GetMessageClass(descriptor)()
    chosen = {oneof.name: random.choice(oneof.fields).name for oneof in descriptor.oneofs if len(oneof.fields) > 1}
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if oneof is not None and chosen.get(oneof.name, field.name) != field.name:
            continue
        wanted = 0.05 if field.name in RESERVED and nastiness else 0.0 if field.name in RESERVED else 0.9
        if random.random() < wanted:
            _fill(random, message, field, nastiness, depth)
    return message


def _fill(random: Random, message: Any, field: Any, nastiness: float, depth: int) -> None:
    if field.is_repeated:
        count = (
            random.choice((1, 1, 2, 3))
            if random.random() > nastiness / 4
            else random.choice((0, 17, 1001, 2001) if depth == 0 else (0, 17))
        )
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for _ in range(min(count, 40)):
                getattr(message, field.name)[_text(random, "label", nastiness)] = _text(random, "label", nastiness)
        elif field.message_type is not None:
            few = min(count, 3)
            made = [filled(random, field.message_type, nastiness, depth + 1) for _ in range(few)] if depth < 4 else []
            if count > few and made:
                made = [random.choice(made) for _ in range(count)]
            getattr(message, field.name).extend(made)
        else:
            getattr(message, field.name).extend(_scalar(random, field, nastiness) for _ in range(count))
    elif field.message_type is not None:
        if field.message_type.name in ("Timestamp", "Duration"):
            _fill_time(random, getattr(message, field.name), field, nastiness)
        elif depth < 6:
            getattr(message, field.name).CopyFrom(filled(random, field.message_type, nastiness, depth + 1))
    else:
        setattr(message, field.name, _scalar(random, field, nastiness))


def _fill_time(random: Random, message: Any, field: Any, nastiness: float) -> None:
    message.SetInParent()
    if random.random() < nastiness:
        message.seconds = nasty.number(random)
        message.nanos = max(-(2**31), min(nasty.number(random), 2**31 - 1))
    elif field.message_type.name == "Duration":
        message.seconds = random.choice((1, 2, 5, 60, 900))
    else:
        message.seconds = START_MS // 1000 + random.randrange(-10, 100)
        message.nanos = random.choice((0, 999_999_999))


def _scalar(random: Random, field: Any, nastiness: float) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return random.randbytes(random.randrange(20))
        return _text(random, field.name, nastiness)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.3
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        if random.random() < nastiness:
            return max(-(2**31), min(nasty.number(random), 2**31 - 1))
        return random.choice(field.enum_type.values).number
    if kind in INTEGERS:
        least, most = INTEGERS[kind]
        if random.random() < nastiness:
            return max(least, min(nasty.number(random), most))
        if "version" in field.name or field.name in ("minimum_quantity", "page_size"):
            return random.choice((0, 0, 1, 2))
        return max(least, random.choice((1, 1, 2, 3, 5, 8, -2 if field.name == "delta" else 4)))
    return random.random()


def _text(random: Random, name: str, nastiness: float) -> str:
    if random.random() < nastiness:
        return nasty.text(random)
    if name.endswith("reservation_id"):
        return f"1-t1-{random.randrange(4)}-{random.randrange(1, 4)}"
    pool = IDS.get(name)
    if pool is not None:
        return random.choice(pool)
    return f"{name[:1]}{random.randrange(6)}"


# --- what comes back --------------------------------------------------------------------------------------------------------

_STEP = re.compile(r"([a-z_]+)(?:\[(\d+)\])?(\[.*\])?", re.DOTALL)
ALWAYS_IDS = ("sku", "warehouse_id", "channel_id", "line_id", "order_reference", "customer_id", "base_unit")
MAY_BE_NEGATIVE = {"on_hand.quantity", "cover_quantity", "delta", "events.quantity"}


def names_a_field(path: str, descriptor: Descriptor) -> bool:
    """Whether a violation's path leads to a field of the request: ``lines[3].stock_key.sku``."""
    here: Descriptor | None = descriptor
    rest = path
    while rest:
        if here is None:
            return False
        step = _STEP.match(rest)
        if step is None or step[1] not in here.fields_by_name:
            return False
        field = here.fields_by_name[step[1]]
        here = field.message_type
        if step[3] and not (here is not None and here.GetOptions().map_entry):
            return False
        rest = rest[step.end() :]
        if step[3]:
            return True  # a label's key may hold anything
        if rest and not rest.startswith("."):
            return False
        rest = rest[1:]
    return True


def check_answer(message: Message, path: str = "") -> None:
    """Whatever is answered is well formed: ids, quantities, enum values and times."""
    for field, value in message.ListFields():
        here = f"{path}.{field.name}" if path else field.name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        for one in value if field.is_repeated else (value,):
            _check_value(field, one, here)


def _check_value(field: Any, value: Any, path: str) -> None:
    name = field.name
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Timestamp":
            milliseconds = value.seconds * 1000 + value.nanos // 1_000_000
            assert 0 < milliseconds <= TIME_MS_MAX and 0 <= value.nanos < 10**9, f"{path} is no time: {value}"
        elif not field.message_type.full_name.startswith("google.rpc."):
            check_answer(value, path)
    elif field.enum_type is not None:
        assert value in field.enum_type.values_by_number, f"{path} has the unknown value {value}"
    elif name.endswith("quantity") or name.endswith("_units"):
        tail = ".".join(path.split(".")[-2:])
        assert value >= 0 or name in MAY_BE_NEGATIVE or tail in MAY_BE_NEGATIVE, f"{path} is {value}"
    elif name in ALWAYS_IDS or (name in ("reservation_id", "exception_id") and value):
        assert not id_problem(value), f"{path} is {value!r}"
