"""The client where there is no service: what it says of a call that was never sent, and of one that nobody answered."""

from __future__ import annotations

import asyncio
import socket

import grpc
import pytest

from stockade import AsyncClient, Client, StockadeError


def test_where_nobody_listens_nothing_has_happened() -> None:
    with socket.socket() as free:  # bound, but it does not listen
        free.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{free.getsockname()[1]}"
        with Client(target, channel_id="web", timeout_s=0.2) as client, pytest.raises(StockadeError) as caught:
            client.reserve([("A", "main", 1)])
        assert (caught.value.code, caught.value.outcome) == (grpc.StatusCode.UNAVAILABLE, "not_done")

        async def ask() -> None:
            async with AsyncClient(target, channel_id="web", timeout_s=0.2) as client:
                await client.reserve([("A", "main", 1)])

        with pytest.raises(StockadeError) as caught:
            asyncio.run(ask())
        assert (caught.value.code, caught.value.outcome) == (grpc.StatusCode.UNAVAILABLE, "not_done")


def test_where_something_else_listens_nobody_knows() -> None:
    """A port that takes the connection and never answers: the call may have been read."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        with Client(target, channel_id="web", timeout_s=0.3) as client, pytest.raises(StockadeError) as caught:
            client.reserve([("A", "main", 1)])
        assert caught.value.outcome == "unknown"
