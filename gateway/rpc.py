"""What surrounds every method: size and parse checks, the caller, deadline, correlation id, metrics, and errors as
trailers.

Done once in a wrapper around each handler, not in gRPC interceptors, which cost several times as much a call. The
servicers inside get ``(request, Rpc)`` and either return a response or raise ``CallFailed``; nothing else leaves.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from actors.domain.outcomes import ErrorReason
from gateway.access import ANYBODY, Access, Principal
from gateway.config import GatewayConfig
from gateway.entrance import Entrance
from gateway.errors import CallFailed, Violation, code_of, invalid, status_of
from gateway.metrics import Metrics

REPLAYED_KEY = "stockade-replayed"
CORRELATION_KEY = "x-correlation-id"
TRACEPARENT_KEY = "traceparent"
_AUTHORIZATION_KEY = "authorization"
_STATUS_KEY = "grpc-status-details-bin"
_CORRELATION_BYTES_MAX = 128
_TRACEPARENT_BYTES_MAX = 64

log = logging.getLogger(__name__)

Behaviour = Callable[[Any, "Rpc"], Awaitable[Message]]


class Rpc:
    """One call, as a servicer sees it. Times are milliseconds of the gateway's monotonic clock.

    ``cause``: what is journaled beside the request id: [principal, correlation id, traceparent], or [] when all are
    empty. ``replayed``: set it when the answer is a first decision given again.
    """

    __slots__ = ("cause", "correlation_id", "now", "principal", "remaining_ms", "replayed")

    def __init__(self, now: int, remaining_ms: int | None) -> None:
        self.now = now
        self.remaining_ms = remaining_ms
        self.principal: Principal = ANYBODY
        self.correlation_id = ""
        self.cause: list[str] = []
        self.replayed = False

    def at(self, now: int) -> Rpc:
        """The same caller at another time of a stream, with the default deadline: of one batch within it."""
        later = Rpc(now, None)
        later.principal, later.correlation_id, later.cause = self.principal, self.correlation_id, self.cause
        return later

    def deadline(self, default_ms: int, max_ms: int) -> int:
        """When the call ends: the caller's deadline, else the default, at most ``max_ms`` from now."""
        remaining = default_ms if self.remaining_ms is None else self.remaining_ms
        return self.now + min(remaining, max_ms)


class Unreadable:
    """Stands for a request that was not parsed."""

    __slots__ = ("description",)

    def __init__(self, description: str) -> None:
        self.description = description


class Wrapper:
    """Makes gRPC handlers out of behaviours."""

    def __init__(self, config: GatewayConfig, access: Access, metrics: Metrics, entrance: Entrance) -> None:
        self.entrance = entrance
        self._bytes_max = config.bytes_per_call_max
        self.log_requests = config.log_requests
        self.access = access
        self.metrics = metrics

    def unary(self, method: str, request_class: type[Message], behaviour: Behaviour) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of one unary method. ``method``: its short name, a label of metrics."""
        clock = asyncio.get_running_loop().time
        metrics, access, log_requests, entrance = self.metrics, self.access, self.log_requests, self.entrance

        async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Message | None:
            began = clock()
            remaining = context.time_remaining()
            rpc = Rpc(int(began * 1000), None if remaining is None else int(remaining * 1000))
            code = "OK"
            try:
                entrance.enter()
                read_metadata(rpc, context, access)
                if type(request) is Unreadable:
                    raise invalid([Violation("", request.description)])
                response = await behaviour(request, rpc)
                if rpc.replayed or rpc.cause:
                    context.set_trailing_metadata(trailers(rpc))
            except CallFailed as failure:
                code = answer_failure(context, rpc, failure)
                response = None
            except asyncio.CancelledError:
                metrics.answered(method, "CANCELLED", clock() - began)
                raise
            except Exception:
                code = answer_failure(context, rpc, CallFailed(ErrorReason.INTERNAL))
                log.exception("%s failed", method, extra=log_fields(method, code, rpc))
                response = None
            finally:
                entrance.leave()
            metrics.answered(method, code, clock() - began)
            if log_requests:
                log.info("%s %s", method, code, extra=log_fields(method, code, rpc))
            return response

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=self.deserializer(request_class),
            response_serializer=serialize,
        )

    def deserializer(self, request_class: type[Message]) -> Callable[[bytes], Any]:
        """Bytes to a message, or to ``Unreadable``."""
        parse, bytes_max = request_class.FromString, self._bytes_max

        def deserialize(raw: bytes) -> Any:
            if len(raw) > bytes_max:
                return Unreadable(
                    f"the request has {len(raw)} bytes; at most {bytes_max} are accepted: send less in one call"
                )
            try:
                return parse(raw)
            except DecodeError:
                return Unreadable(
                    f"the request is not a {request_class.DESCRIPTOR.full_name} in protobuf, or a text is not UTF-8"
                )

        return deserialize


def log_fields(method: str, code: str, rpc: Rpc) -> dict[str, Any]:
    """What a log line about a call says beside its message."""
    caller = {"correlation_id": rpc.correlation_id, "principal": rpc.principal.name}
    return {"fields": {"method": method, "code": code, **{name: value for name, value in caller.items() if value}}}


def serialize(response: Message | bytes) -> bytes:
    """A message to bytes; bytes are one already."""
    return response if isinstance(response, bytes) else response.SerializeToString()


def read_metadata(rpc: Rpc, context: grpc.aio.ServicerContext[Any, Any], access: Access) -> None:
    """Who calls, and under which names it is followed. Raises CallFailed UNAUTHENTICATED."""
    traceparent = authorization = ""
    for key, value in context.invocation_metadata() or ():
        if key == CORRELATION_KEY:
            rpc.correlation_id = _plain(value, _CORRELATION_BYTES_MAX)
        elif key == TRACEPARENT_KEY:
            traceparent = _plain(value, _TRACEPARENT_BYTES_MAX)
        elif key == _AUTHORIZATION_KEY:
            authorization = _plain(value, 8192)
    if not access.open:
        rpc.principal = access.principal(authorization)
    if rpc.principal.name or rpc.correlation_id or traceparent:
        rpc.cause = [rpc.principal.name, rpc.correlation_id, traceparent]


def _plain(value: str | bytes, bytes_max: int) -> str:
    """A metadata value that may be journaled and logged; anything else counts as not given."""
    return (
        value if isinstance(value, str) and len(value) <= bytes_max and value.isascii() and value.isprintable() else ""
    )


def answer_failure(context: grpc.aio.ServicerContext[Any, Any], rpc: Rpc, failure: CallFailed) -> str:
    """Put the failure on the wire. Not by ``context.abort``: raising through gRPC costs more than the call."""
    if not rpc.correlation_id and failure.reason is ErrorReason.INTERNAL:
        rpc.correlation_id = str(uuid.uuid4())
    status = status_of(failure)
    code = code_of(failure)
    context.set_code(code)
    context.set_details(status.message)
    context.set_trailing_metadata((*trailers(rpc), (_STATUS_KEY, status.SerializeToString())))
    return code.name


def trailers(rpc: Rpc) -> tuple[tuple[str, str | bytes], ...]:
    """What every answer ends with."""
    trailers: list[tuple[str, str | bytes]] = []
    if rpc.replayed:
        trailers.append((REPLAYED_KEY, "true"))
    if rpc.correlation_id:
        trailers.append((CORRELATION_KEY, rpc.correlation_id))
    if rpc.cause and rpc.cause[2]:
        trailers.append((TRACEPARENT_KEY, rpc.cause[2]))
    return tuple(trailers)
