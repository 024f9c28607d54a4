"""Streaming methods: what ``gateway.rpc`` does around unary calls, around calls of many messages.

A behaviour gets a ``Stream`` and reads or writes when it likes; not reading is the back-pressure: gRPC's own flow control
stops the sender. What is read, sent and bounded is the servicer's business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message

from actors.domain.outcomes import ErrorReason
from gateway.errors import CallFailed, Violation, invalid
from gateway.rpc import Rpc, Unreadable, Wrapper, answer_failure, log_fields, read_metadata, serialize, trailers

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[..., Awaitable[Any]]


class Stream(Protocol):
    """The messages of one call. At most one ``read`` and one ``write`` at a time."""

    async def read(self) -> Any:
        """The caller's next message; None when it has said all. Raises CallFailed for one that cannot be read."""

    async def write(self, message: Message | bytes) -> None:
        """Send a message, perhaps serialized already; returns when the transport has room for another."""


class CallStream:
    """A ``Stream`` over gRPC."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def read(self) -> Any:
        """See ``Stream``."""
        message = await self._context.read()
        if message is grpc.aio.EOF:
            return None
        if type(message) is Unreadable:
            raise invalid([Violation("", message.description)])
        return message

    async def write(self, message: Message | bytes) -> None:
        """See ``Stream``."""
        await self._context.write(message)


def handler(
    wrapper: Wrapper, method: Any, request_class: type[Message], behaviour: Behaviour
) -> grpc.RpcMethodHandler[Any, Any]:
    """The handler of any method, by its descriptor. Behaviours:

    unary: ``(request, rpc) -> response``; many answers: ``(request, stream, rpc) -> None``;
    many requests: ``(stream, rpc) -> response``; both: ``(stream, rpc) -> None``.
    """
    if not method.client_streaming and not method.server_streaming:
        return wrapper.unary(method.name, request_class, behaviour)
    deserializer = wrapper.deserializer(request_class)

    if not method.client_streaming:

        async def answer(request: Any, context: Context) -> None:
            async def run(rpc: Rpc) -> None:
                if type(request) is Unreadable:
                    raise invalid([Violation("", request.description)])
                await behaviour(request, CallStream(context), rpc)

            await _surrounded(wrapper, method.name, context, run)

        return grpc.unary_stream_rpc_method_handler(answer, deserializer, serialize)

    async def talk(_: Any, context: Context) -> Any:
        return await _surrounded(wrapper, method.name, context, lambda rpc: behaviour(CallStream(context), rpc))

    if method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(talk, deserializer, serialize)
    return grpc.stream_unary_rpc_method_handler(talk, deserializer, serialize)


async def _surrounded(wrapper: Wrapper, name: str, context: Context, run: Callable[[Rpc], Awaitable[Any]]) -> Any:
    """A behaviour with what surrounds it: the caller, metrics, errors as trailers. Returns its response, None when it
    failed or has none.
    """
    clock = asyncio.get_running_loop().time
    metrics = wrapper.metrics
    began = clock()
    remaining = context.time_remaining()
    rpc = Rpc(int(began * 1000), None if remaining is None else int(remaining * 1000))
    code, response = "OK", None
    metrics.streaming(name, 1)
    wrapper.entrance.inside += 1
    try:
        read_metadata(rpc, context, wrapper.access)
        response = await run(rpc)
        if rpc.cause:
            context.set_trailing_metadata(trailers(rpc))
    except CallFailed as failure:
        code = answer_failure(context, rpc, failure)
    except asyncio.CancelledError:
        metrics.answered(name, "CANCELLED", clock() - began)
        raise
    except Exception:
        if context.done():  # writing to a caller that has gone
            code = "CANCELLED"
        else:
            code = answer_failure(context, rpc, CallFailed(ErrorReason.INTERNAL))
            log.exception("%s failed", name, extra=log_fields(name, code, rpc))
    finally:
        metrics.streaming(name, -1)
        wrapper.entrance.inside -= 1
    metrics.answered(name, code, clock() - began)
    if wrapper.log_requests:
        log.info("%s %s", name, code, extra=log_fields(name, code, rpc))
    return response
