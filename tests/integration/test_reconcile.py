"""Reconcile over a gateway and a real host: streams of lines, row-level failures, whole lists, dry runs, going on."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from actors.domain.keys import stock_key
from stockade import AsyncClient, StockadeError
from stockade.client.reconciling import RECONCILE, channel_line, header_message, open_order_line, stock_line
from stockade.v1 import reconciliation_service_pb2 as pb
from stockade.v1 import stock_key_pb2
from stockade.v1 import warehouse_event_service_pb2 as event_pb
from tests.integration import host_world
from tests.integration.gateway_world import World, until
from tests.integration.test_gateway_with_host import available, node, receive, reserve, told


@contextlib.asynccontextmanager
async def service(**stock: int) -> AsyncIterator[tuple[AsyncClient, World, host_world.World]]:
    async with node() as (here, there), AsyncClient(f"127.0.0.1:{here.gateway.port}") as client:
        for sku, quantity in stock.items():
            await receive(here, quantity, sku)
        yield client, here, there


def events_of(there: host_world.World) -> int:
    return sum(shard.sequence for shard in there.host.engine.books.shards.values())


async def test_a_list_is_compared_booked_within_the_tolerance_and_quarantined_beyond_it():
    async with service(A=10, B=10, C=10) as (client, here, _):
        lines = [stock_line("A", 10), stock_line("B", 9), stock_line("C", 2), stock_line("D", 0)]
        done = await client.reconcile("main", lines, tolerance_units=1, request_id="night-1")
        counts = done.reconciliation.counts
        assert done.reconciliation.state == "DONE"
        assert (counts.lines, counts.matches, counts.genuine_drift, counts.booked, counts.quarantined) == (
            4,
            2,
            2,
            1,
            1,
        )
        assert [await available(here, sku) for sku in "ABC"] == [10, 9, 0]
        found, findings, token = await client.get_reconciliation(request_id="night-1")
        assert found == done.reconciliation
        assert sorted(findings, key=lambda one: one.stock_key.sku) == sorted(
            done.findings, key=lambda one: one.stock_key.sku
        )
        assert not token
        listed, _ = await client.list_reconciliations(warehouse_id="main", states=["done"])
        assert listed == [done.reconciliation]


async def test_the_same_request_again_changes_nothing_and_answers_the_same():
    async with service(A=10, B=10) as (client, here, there):
        lines = [stock_line("A", 9), stock_line("B", 1)]
        first = await client.reconcile("main", lines, tolerance_units=1, request_id="night-1")
        before = events_of(there)
        again = await client.reconcile("main", lines, tolerance_units=1, request_id="night-1")
        assert again.reconciliation == first.reconciliation
        assert events_of(there) == before
        assert await available(here, "A") == 9
        with pytest.raises(StockadeError) as failed:
            await client.reconcile("main", lines, tolerance_units=2, request_id="night-1")
        assert failed.value.reason == "REQUEST_ID_REUSED"


async def test_a_list_that_breaks_off_goes_on_when_it_is_sent_again():
    async with service(A=10, B=10) as (client, here, there):
        method: Any = here.channel.stream_unary(
            RECONCILE, request_serializer=pb.ReconcileRequest.SerializeToString, response_deserializer=bytes
        )
        call = method()
        header = header_message("main", tolerance_units=1, request_id="night-1")
        await call.write(pb.ReconcileRequest(header=header))
        await call.write(pb.ReconcileRequest(chunk=pb.ReconciliationChunk(stock_lines=[stock_line("A", 9)])))

        books = there.host.engine.books
        await until(lambda: books.stock[stock_key("main", "A")].sellable == 9)
        call.cancel()
        (run, _, _) = await client.get_reconciliation(request_id="night-1")
        assert run.state == "RUNNING"
        lines = [stock_line("A", 9), stock_line("B", 10)]
        done = await client.reconcile("main", lines, tolerance_units=1, request_id="night-1")
        assert (done.reconciliation.state, done.reconciliation.counts.lines) == ("DONE", 2)
        assert await available(here, "A") == 9


@pytest.mark.parametrize("end", [None, 2])
async def test_nothing_is_concluded_from_a_list_that_has_no_end_or_not_all_its_lines(end):
    async with service(A=10, B=10) as (client, here, _):
        method: Any = here.channel.stream_unary(
            RECONCILE, request_serializer=pb.ReconcileRequest.SerializeToString, response_deserializer=bytes
        )
        header = header_message("main", unlisted_keys="COUNT_AS_ZERO", request_id="night-1")
        said = [pb.ReconcileRequest(header=header)]
        said.append(pb.ReconcileRequest(chunk=pb.ReconciliationChunk(stock_lines=[stock_line("A", 10)])))
        if end is not None:
            said.append(pb.ReconcileRequest(end=pb.ReconciliationEnd(line_count=end)))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await method(iter(said))
        assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        (run, findings, _) = await client.get_reconciliation(request_id="night-1")
        assert (run.state, findings) == ("RUNNING", [])
        assert await available(here, "B") == 10


async def test_what_the_lines_raise_is_raised():
    async with service() as (client, _, _):

        def breaks_off() -> Iterator[Any]:
            yield stock_line("A", 0)
            raise ConnectionError("the sender dies")

        with pytest.raises(ConnectionError):
            await client.reconcile("main", breaks_off())


async def test_bad_rows_fail_alone():
    async with service(A=10) as (client, _, _):
        lines = [stock_line("A", 10), stock_line("", 1), stock_line("B", -1), stock_line("A", 10)]
        done = await client.reconcile("main", lines)
        assert [(one.line_index, one.problem) for one in done.failed_lines] == [(1, ""), (2, ""), (3, "LISTED_TWICE")]
        assert "sku" in done.failed_lines[0].description
        assert done.reconciliation.counts.failed == 3


async def test_a_dry_run_leaves_no_trace():
    async with service(A=10, B=10) as (client, here, there):
        before = events_of(there)
        lines = [stock_line("A", 9), stock_line("B", 1)]
        done = await client.reconcile("main", lines, tolerance_units=1, dry_run=True)
        assert sorted(one.state for one in done.findings) == ["WOULD_BOOK", "WOULD_QUARANTINE"]
        assert events_of(there) == before
        assert await available(here, "B") == 10


async def test_what_a_whole_list_does_not_name_is_not_there():
    async with service(A=10, B=3, C=4) as (client, here, _):
        done = await client.reconcile("main", [stock_line("A", 10)], unlisted_keys="COUNT_AS_ZERO", tolerance_units=3)
        assert (done.reconciliation.counts.booked, done.reconciliation.counts.quarantined) == (1, 1)
        assert await available(here, "B") == 0
        assert {one.stock_key.sku: one.state for one in done.findings} == {"B": "BOOKED", "C": "QUARANTINED"}


async def test_a_whole_list_of_the_shelf_says_nothing_of_damaged_and_picked_units():
    async with service(A=10, B=3) as (client, here, _):
        damaged = told(
            "damaged", "B", receipt=event_pb.Receipt(quantity=5, disposition=stock_key_pb2.DISPOSITION_DAMAGED)
        )
        picked = told("picked", "B", pick=event_pb.Pick(quantity=3))
        await here.call(event_pb.IngestEventsRequest(events=[damaged, picked]))
        done = await client.reconcile("main", [stock_line("A", 10)], unlisted_keys="COUNT_AS_ZERO")
        assert (done.reconciliation.counts.lines, done.findings) == (2, ())


async def test_open_orders_are_compared_both_ways():
    async with service(A=10) as (client, here, _):
        for number, quantity in ((1, 2), (2, 3)):
            await here.call(reserve(f"r{number}", quantity, confirm=True, order_reference=f"o-{number}"))
        lines = [open_order_line("web", "o-1", "A", 2), open_order_line("web", "o-9", "A", 1)]
        done = await client.reconcile("main", lines, kind="OPEN_ORDERS")
        found = {one.order_reference: (one.kind, one.found_quantity, one.expected_quantity) for one in done.findings}
        assert found == {"o-9": ("CLAIM_MISSING", 1, 0), "o-2": ("CLAIM_EXCESS", 0, 3)}
        assert await available(here) == 5


async def test_what_a_channel_shows():
    async with service(A=10, B=10) as (client, _, _):
        lines = [channel_line("A", 12), channel_line("B", 10)]
        done = await client.reconcile("main", lines, kind="CHANNEL_AVAILABILITY")
        assert [(one.stock_key.sku, one.kind) for one in done.findings] == [("A", "CHANNEL_SHOWS_MORE")]


async def test_the_wrong_list_is_given_up():
    async with service(**{f"S{number}": 10 for number in range(9)}) as (client, here, _):
        lines = [stock_line(f"S{number}", 1) for number in range(9)]
        done = await client.reconcile("main", lines, differences_max=3, beyond_tolerance="REPORT_ONLY")
        assert done.reconciliation.state == "FAILED"
        assert "right list" in done.reconciliation.note
        assert await available(here, "S0") == 10


async def test_a_list_as_of_a_place_in_its_feed():
    async with service() as (client, here, _):
        events = []
        for sequence, quantity in ((1, 10), (2, 4)):
            event = told(f"e{sequence}", receipt=event_pb.Receipt(quantity=quantity))
            event.source_sequence = sequence
            events.append(event)
        await here.call(event_pb.IngestEventsRequest(events=events))
        as_of: dict[str, Any] = {
            "source_id": "wms",
            "as_of_source_sequence": 1,
            "as_of_time_ms": events[1].occur_time.ToMilliseconds(),
        }
        done = await client.reconcile("main", [stock_line("A", 9)], tolerance_units=1, **as_of)
        assert done.findings[0].booked_delta == -1
        assert await available(here) == 13


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"as_of_source_sequence": 4}, "header.as_of_time"),
        ({"reconciliation_id": "what"}, "header.reconciliation_id"),
        ({"tolerance_permille": 2_000}, "header.tolerance.permille"),
    ],
)
async def test_a_bad_header_is_refused_by_its_fields(options, field):
    async with service() as (client, _, _):
        with pytest.raises(StockadeError) as failed:
            await client.reconcile("main", [], **options)
        assert field in failed.value.violations


async def test_many_lines_in_bounded_waves():
    async with service(A=10) as (client, _, _):
        lines = (stock_line(f"K{number}", 0) for number in range(20_000))
        done = await client.reconcile("main", itertools.chain(lines, [stock_line("A", 10)]))
        assert done.reconciliation.counts.matches == 20_001
