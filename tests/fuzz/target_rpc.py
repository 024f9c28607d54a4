"""The gRPC edge: a few calls of any methods with any bytes, on a fresh cluster, down to the engine and its journal.

An input is ``[[pass_ms, method, request bytes, metadata], …]``; ``pass_ms`` −1 restarts the host, −2 takes a snapshot.
Every call is answered, or refused by the error table; INTERNAL is a crash; INVALID_FIELD names fields that exist.
"""

from __future__ import annotations

import itertools
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from gateway.errors import ERRORS, NOT_DONE, UNKNOWN, reason_name
from gateway.paging import write_token
from tests.fuzz import nasty, requests
from tests.fuzz.guard import no_errors_logged
from tests.fuzz.registry import Random, target
from tests.fuzz.service import Service

LISTS = ("ListReservations", "ListStock", "ListExceptions")
READS = frozenset(name for name in requests.METHODS if name.startswith(("Get", "List", "Batch", "Explain"))) - {
    "BatchReserveStock"
}
OFTEN = (
    "ReserveStock",
    "ReserveStock",
    "BatchReserveStock",
    "IngestEvents",
    "IngestEvents",
    "AmendReservation",
    "FulfillReservation",
)
REASONS = {reason_name(reason): reason for reason in ERRORS}
METADATA = ("x-correlation-id", "traceparent", "authorization")
RESTART, SNAPSHOT = -1, -2
# Findings about a whole call, which no field names.
WHOLE_CALL = ("the call has ", "the request has ", "the request is not ", "more fields are bad")


def make(random: Random) -> bytes:
    """Stock first, then a mixture of calls, each more or less nasty."""
    steps: list[Any] = []
    nastiness = random.choice((0.0, 0.02, 0.1, 0.4))
    if random.random() < 0.8:
        steps.append([0, "IngestEvents", first_stock(), {}])
    for _ in range(random.choice((1, 2, 4, 12, 24))):
        method = random.choice(OFTEN if random.random() < 0.5 else tuple(requests.CALLED))
        steps.append([_pass_ms(random), method, _raw(random, method, nastiness), _metadata(random)])
        if random.random() < 0.15:
            steps.append([_pass_ms(random), *random.choice(steps)[1:]])  # the same bytes again
    return nasty.pack(steps)


def first_stock() -> bytes:
    """A request that puts 20 units of every SKU into every warehouse."""
    request: Any = GetMessageClass(requests.METHODS["IngestEvents"].input_type)()
    for number, (sku, warehouse_id) in enumerate(itertools.product("ABC", ("main", "om"))):
        event = request.events.add(source_id="wms", event_id=f"first-{number}")
        event.occur_time.FromMilliseconds(requests.START_MS)
        event.stock_key.sku, event.stock_key.warehouse_id = sku, warehouse_id
        event.receipt.quantity = 20
    raw: bytes = request.SerializeToString()
    return raw


def _pass_ms(random: Random) -> int:
    return random.choice((0, 0, 0, 0, 1, 500, 1_000, 5_000, 6_000, 900_000, 4_000_000, RESTART, SNAPSHOT))


def _metadata(random: Random) -> dict[str, str]:
    return {} if random.random() < 0.8 else {random.choice(METADATA): nasty.text(random)}


def _raw(random: Random, method: str, nastiness: float) -> bytes:
    if requests.METHODS[method].client_streaming:
        messages = requests.stream(random, method, nastiness)
        return nasty.pack([nasty.spoiled(random, one) if random.random() < nastiness / 4 else one for one in messages])
    message = requests.request(random, method, nastiness)
    if method in LISTS and random.random() < 0.5:
        _forge_token(random, method, message)
    raw = message.SerializeToString()
    if random.random() < nastiness / 2:
        other = requests.request(random, method, nastiness).SerializeToString()
        raw = random.choice(
            (raw + other, other[: len(other) // 2] + raw, nasty.spoiled(random, raw))
        )  # fields twice, torn
    return raw


def _forge_token(random: Random, method: str, message: Any) -> None:
    """A token with the right fingerprint for empty filters, and any cursor."""
    message.Clear()
    filters: dict[str, list[Any]] = {
        "ListReservations": ["", "", "", []],
        "ListStock": ["", False],
        "ListExceptions": [[], "", "", []],
    }
    cursor = random.choice(
        ("0:1", "2:", ":", "1:x", "3:\x1fmain\x1fA", f"0:{nasty.text(random)}", f"{nasty.number(random)}:1")
    )
    message.page_token = write_token(random.choice(("host-a", "", "z", "a")), cursor, filters[method])


def change(random: Random, data: bytes) -> bytes:
    """Spoil one request, or the order of them, or the bytes of the whole."""
    steps = nasty.unpack(data)
    if not isinstance(steps, list) or not steps or random.random() < 0.02:
        return nasty.spoiled(random, data)
    at = random.randrange(len(steps))
    if not isinstance(steps[at], list) or len(steps[at]) != 4:
        return make(random)
    how = random.random()
    if how < 0.6 and isinstance(steps[at][2], bytes):
        steps[at][2] = nasty.spoiled(random, steps[at][2])
    elif how < 0.75:
        steps[at][0] = _pass_ms(random)
    elif how < 0.85:
        steps.insert(random.randrange(len(steps) + 1), steps[at])
    elif how < 0.95 and steps[at][1] in requests.CALLED:
        steps[at][2] = _raw(random, steps[at][1], 0.2)
    else:
        steps[at][1] = random.choice(tuple(requests.CALLED))
    return nasty.pack(steps)


@target(
    "rpc",
    "gRPC requests of every method, down to the engine: answered or refused by the table, state stays sound",
    make,
    change,
)
def run(data: bytes) -> None:
    """One history on a fresh cluster."""
    steps = nasty.unpack(data)
    if not isinstance(steps, list):
        return
    service = Service()
    with no_errors_logged("actors", "gateway"):
        for step in steps[:60]:
            if isinstance(step, list) and len(step) == 4:
                _step(service, *step)
        service.check()


def _step(service: Service, pass_ms: Any, method: Any, raw: Any, metadata: Any) -> None:
    if not isinstance(raw, bytes) or method not in requests.CALLED:
        return
    if pass_ms == RESTART:
        service.restart()
    elif pass_ms == SNAPSHOT:
        service.snapshot()
    elif isinstance(pass_ms, int) and 0 < pass_ms <= 10_000_000:
        service.pass_ms(pass_ms)
    pairs = [(str(key), value) for key, value in metadata.items()] if isinstance(metadata, dict) else []
    context, response = service.call(method, raw, pairs)
    descriptor: Descriptor = requests.METHODS[method].input_type
    if response is None:
        check_failure(context, descriptor)
        return
    assert context.code is grpc.StatusCode.OK, (method, context.code)
    requests.check_answer(response)
    if method == "StreamEvents":  # whose results speak of their event, by its id
        descriptor = requests.EVENT
    for status in _statuses(response):
        check_status(status, descriptor)


def check_failure(context: Any, descriptor: Descriptor) -> None:
    """A failed call carries one status with its details, and the code of the table."""
    assert context.code is not grpc.StatusCode.OK
    status = status_pb2.Status.FromString(context.trailers["grpc-status-details-bin"])
    assert context.code.value[0] == status.code, (context.code, status.code)
    assert len(context.trailers["grpc-status-details-bin"]) < 6_000, "more trailers than clients take"
    check_status(status, descriptor)


def check_status(status: status_pb2.Status, descriptor: Descriptor) -> None:
    """One ErrorInfo with a reason of the table; what is invalid is named."""
    infos, bad = [], []
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            infos.append(error_details_pb2.ErrorInfo.FromString(detail.value))
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad += error_details_pb2.BadRequest.FromString(detail.value).field_violations
    assert len(infos) == 1, status
    reason = infos[0].reason
    assert reason in REASONS, reason
    assert reason != "INTERNAL", f"INTERNAL: {status.message}"
    assert infos[0].metadata["outcome"] in (NOT_DONE, UNKNOWN)
    assert ERRORS[REASONS[reason]].code.value[0] == status.code
    assert bool(bad) == (reason == "INVALID_FIELD"), (reason, bad)
    for violation in bad:
        whole = not violation.field and any(start in violation.description for start in WHOLE_CALL)
        assert violation.description
        assert whole or _names_a_field(violation.field, descriptor), f"{violation.field!r}: {violation.description}"


def _names_a_field(path: str, descriptor: Descriptor) -> bool:
    return bool(path) and (path.endswith("…") or requests.names_a_field(path, descriptor))


def _statuses(response: Any) -> list[status_pb2.Status]:
    return [result.error for result in getattr(response, "results", ()) if result.HasField("error")]
