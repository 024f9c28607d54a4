"""Units come in, are held back, inspected and sold; and go between warehouses: through a real gateway, by the client."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from actors.runtime.settings import Settings, load_settings
from actors.runtime.wiring import InProcessNode, start_in_process
from stockade import AsyncClient, Refused, Reservation, StockadeError
from stockade.client import Ingested, facts

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

FIXED = {"grpc_port": 0, "http_port": 0, "gateways": 1, "disk_floor_bytes": 2**20, "ballast_bytes": 2**20}
WAREHOUSES = """
[warehouses.main]
[warehouses.overflow]
[warehouses.outlet]
eligible_for_selling = false
"""


def settings(folder: Path, text: str = WAREHOUSES, environment: dict[str, str] | None = None) -> Settings:
    """As read from a file and the environment."""
    (folder / "stockade.toml").write_text(text, encoding="utf-8")
    return load_settings(overrides=FIXED, environment=environment or {}, working_dir=folder).settings


class Shop:
    """A node, its client, and two warehouse systems that are one."""

    def __init__(self, node: InProcessNode) -> None:
        self.node = node
        self.client = AsyncClient(node.target, channel_id="web")
        self._events = 0

    def told(self, warehouse_id: str = "main", sku: str = "A", **paper: Any) -> facts.Told:
        """The next event."""
        self._events += 1
        return facts.Told("wms", f"e{self._events}", (sku, warehouse_id), time.time_ns() // 1_000_000, **paper)

    async def tell(self, event: Any) -> Ingested:
        """It is applied."""
        (result,) = await self.client.ingest([event])
        assert result.outcome == "APPLIED", result
        return result

    async def held_back(self, event: Any) -> tuple[str, tuple[str, ...]]:
        """Where its units start, and why not where they were told to."""
        result = await self.tell(event)
        return result.booked_disposition, result.gate_reasons

    async def sellable(self, warehouse_id: str = "main") -> int:
        """What a channel may sell of A there."""
        return (await self.client.availability(("A", warehouse_id))).available_quantity


@asynccontextmanager
async def shop(chosen: Settings) -> AsyncIterator[Shop]:
    node = await start_in_process(chosen)
    here = Shop(node)
    try:
        yield here
    finally:
        await here.client.close()
        await node.stop()


async def test_what_comes_in_is_held_until_it_was_inspected(tmp_path: Path):
    async with shop(settings(tmp_path)) as here:
        await here.client.register_stock([("A", "main")], receipt_disposition="QUALITY_HOLD")
        receipt = facts.receipt(here.told(), 10)
        assert await here.held_back(receipt) == ("QUALITY_HOLD", ("RECEIPT_POLICY",))
        refused = await here.client.reserve([("A", "main", 1)])
        assert isinstance(refused, Refused)
        assert (refused.reason, await here.sellable()) == ("INSUFFICIENT_STOCK", 0)

        assert await here.held_back(facts.disposition_change(here.told(), 8, "QUALITY_HOLD", "SELLABLE")) == ("", ())
        assert await here.held_back(facts.disposition_change(here.told(), 2, "QUALITY_HOLD", "DAMAGED")) == ("", ())
        assert (await here.client.get_stock(("A", "main"))).on_hand == {"SELLABLE": 8, "DAMAGED": 2}
        assert isinstance(await here.client.reserve([("A", "main", 8)]), Reservation)
        (again,) = await here.client.ingest([receipt])
        assert again.outcome == "DUPLICATE"
        assert (await here.client.get_stock(("A", "main"))).on_hand == {"SELLABLE": 8, "DAMAGED": 2}


async def test_a_recalled_lot_is_not_sold_nor_lifted(tmp_path: Path):
    async with shop(settings(tmp_path)) as here:
        await here.tell(facts.receipt(here.told(lot_id="L-1"), 5))
        stock = await here.client.set_policy(("A", "main"), recalled_lot_ids=["L-1", "L-0"])
        assert not isinstance(stock, Refused)
        assert stock.recalled_lot_ids == ("L-0", "L-1")
        assert await here.held_back(facts.receipt(here.told(lot_id="L-1"), 3)) == ("RECALLED", ("LOT_RECALLED",))
        assert await here.held_back(facts.receipt(here.told(lot_id="L-2"), 4)) == ("", ())
        assert await here.sellable() == 9, "what is on the shelf is not moved by the policy: somebody pulls it"
        await here.tell(facts.disposition_change(here.told(lot_id="L-1"), 5, "SELLABLE", "RECALLED"))
        lift = facts.disposition_change(here.told(lot_id="L-1"), 5, "RECALLED", "SELLABLE")
        (refused,) = await here.client.ingest([lift])
        assert (refused.outcome, refused.reason) == ("REJECTED", "LOT_RECALLED")
        assert refused.exception_id
        assert await here.sellable() == 4
        cleared = await here.client.set_policy(("A", "main"), recalled_lot_ids=[])
        assert not isinstance(cleared, Refused)
        assert cleared.recalled_lot_ids == ()
        await here.tell(facts.disposition_change(here.told(lot_id="L-1"), 5, "RECALLED", "SELLABLE"))
        assert await here.sellable() == 9


@pytest.mark.parametrize("by", ["file", "environment"])
async def test_suppliers_and_warehouses_hold_back_by_settings(tmp_path: Path, by: str):
    if by == "file":
        chosen = settings(tmp_path, 'quality_hold_suppliers = ["S-7", "S-8"]\n' + WAREHOUSES)
    else:
        warehouses = {"main": {}, "overflow": {}, "outlet": {"eligible_for_selling": False}}
        variables = {
            "STOCKADE_QUALITY_HOLD_SUPPLIERS": json.dumps(["S-7", "S-8"]),
            "STOCKADE_WAREHOUSES": json.dumps(warehouses),
        }
        chosen = settings(tmp_path, "", variables)
    assert chosen.quality_hold_suppliers == ["S-7", "S-8"]
    async with shop(chosen) as here:
        of_supplier = here.told(attributes={"supplier_id": "S-7"})
        assert await here.held_back(facts.receipt(of_supplier, 5)) == ("QUALITY_HOLD", ("SUPPLIER_POLICY",))
        assert await here.held_back(facts.receipt(here.told(attributes={"supplier_id": "S-9"}), 5)) == ("", ())
        outlet = here.told("outlet", attributes={"supplier_id": "S-8"})
        reasons = ("SUPPLIER_POLICY", "WAREHOUSE_NOT_ELIGIBLE")
        assert await here.held_back(facts.customer_return(outlet, 1, into="SELLABLE")) == ("QUALITY_HOLD", reasons)
        await here.client.set_policy(("A", "main"), item_state="INACTIVE")
        assert await here.held_back(facts.receipt(here.told(), 1)) == ("QUALITY_HOLD", ("ITEM_INACTIVE",))
        assert (await here.sellable(), await here.sellable("outlet")) == (5, 0)


async def test_a_transfer_is_on_its_way_comes_in_short_and_heals(tmp_path: Path):
    async with shop(settings(tmp_path)) as here:
        await here.tell(facts.receipt(here.told(), 20))
        await here.client.register_stock([("A", "overflow")], receipt_disposition="QUALITY_HOLD")
        await here.tell(facts.transfer_dispatch(here.told(), 12, "T-1", "overflow", transfer_line="1"))
        stock = await here.client.get_stock(("A", "overflow"))
        assert (stock.in_transit_quantity, stock.available_quantity, await here.sellable()) == (12, 0, 8)
        (on_its_way,) = stock.transfers
        assert (on_its_way.transfer_id, on_its_way.from_warehouse_id, on_its_way.dispatched_quantity) == (
            "T-1",
            "main",
            12,
        )

        came = facts.transfer_receipt(here.told("overflow"), 7, "T-1", "main", transfer_line="1")
        assert await here.held_back(came) == ("QUALITY_HOLD", ("RECEIPT_POLICY",))
        last = facts.transfer_receipt(here.told("overflow"), 2, "T-1", "main", transfer_line="1", final=True)
        opened = (await here.tell(last)).exception_id
        stock = await here.client.get_stock(("A", "overflow"))
        assert (stock.in_transit_quantity, stock.transfers[0].lost_quantity) == (0, 3)
        assert (stock.on_hand, stock.transfers[0].exception_id) == ({"QUALITY_HOLD": 9}, opened)
        exceptions, _ = await here.client.list_exceptions(kinds=["transfer_short"], states=["open"])
        assert [(one.exception_id, one.quantity) for one in exceptions] == [(opened, 3)]

        await here.node.stop_host()
        await here.node.start_host()
        await here.tell(facts.transfer_receipt(here.told("overflow"), 3, "T-1", "main", transfer_line="1"))
        exceptions, _ = await here.client.list_exceptions(kinds=["transfer_short"], states=["open"])
        assert exceptions == []
        stock = await here.client.get_stock(("A", "overflow"))
        assert (stock.on_hand, stock.transfers) == ({"QUALITY_HOLD": 12}, ())


async def test_transfers_are_listed_by_pages_and_by_where_they_go(tmp_path: Path):
    async with shop(settings(tmp_path)) as here:
        for number in range(5):
            for sku, to_warehouse_id in (("A", "overflow"), ("B", "overflow"), ("A", "outlet")):
                told = here.told(sku=sku)
                await here.tell(facts.transfer_dispatch(told, 1 + number, f"T-{number}", to_warehouse_id))
        found, token = [], ""
        while True:
            page, token = await here.client.list_transfers(page_size=4, page_token=token)
            found += [(one.stock_key, one.transfer_id) for one in page]
            if not token:
                break
        assert len(found) == len(set(found)) == 15
        page, _ = await here.client.list_transfers(to_warehouse_id="outlet", transfer_id="T-3")
        assert [(one.stock_key.warehouse_id, one.in_transit_quantity) for one in page] == [("outlet", 4)]
        nothing, _ = await here.client.list_transfers(from_warehouse_id="overflow")
        assert nothing == []
        with pytest.raises(StockadeError) as unknown:
            await here.client.list_transfers(to_warehouse_id="mars")
        assert unknown.value.code == grpc.StatusCode.INVALID_ARGUMENT
        assert "to_warehouse_id" in unknown.value.violations


async def test_a_return_says_whose_it_was_and_is_found_again(tmp_path: Path):
    async with shop(settings(tmp_path)) as here:
        paper = {"document_id": "D-1", "document_line": "2", "lot_id": "L-4"}
        promised = facts.promise(channel_id="web", order_reference="O-9")
        back = facts.customer_return(here.told(**paper), 2, return_id="RMA-1", promised=promised)
        assert await here.held_back(back) == ("", ())
        await here.tell(facts.customer_return(here.told(**paper), 1, into="DAMAGED", return_id="RMA-1"))
        found = await here.client.explain(("A", "main"))
        returns = [event for event in found.events if event.reference == "RMA-1"]
        assert [(one.quantity, one.document_id, one.document_line, one.lot_id) for one in returns] == [
            (1, "D-1", "2", "L-4"),
            (2, "D-1", "2", "L-4"),
        ]
        assert [one.note for one in returns] == ["", "of order web/O-9"]
        assert (await here.client.get_stock(("A", "main"))).on_hand == {"QUALITY_HOLD": 2, "DAMAGED": 1}
