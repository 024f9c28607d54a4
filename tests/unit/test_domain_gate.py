"""The sale gate: what comes in as sellable may be sold at once, or starts where somebody looks at it first, and is told why."""

from __future__ import annotations

import pytest

from actors.domain.outcomes import Disposition, Fact, ItemState, RejectReason, SaleGateReason
from actors.domain.rules import Rules
from tests.unit.world import World

HOLD, RECALLED, SELLABLE = Disposition.QUALITY_HOLD, Disposition.RECALLED, Disposition.SELLABLE


def reasons(told):
    return [SaleGateReason(reason).name for reason in told.view.gate_reasons]


class TestGate:
    def test_nothing_is_held_back_by_default(self):
        world = World()
        told = world.receive("A", 5)
        assert (reasons(told), told.view.booked_disposition, world.ats("A")) == ([], 0, 5)

    def test_a_policy_lets_units_start_in_quality_hold_and_an_inspection_lifts_it(self):
        world = World()
        world.set_gate("A", receipt_disposition=HOLD)
        told = world.receive("A", 5)
        assert (reasons(told), told.view.booked_disposition) == (["RECEIPT_POLICY"], HOLD)
        assert (world.ats("A"), world.on_hand("A", HOLD)) == (0, 5)
        world.tell(Fact.DISPOSITION_CHANGE, "A", 5, HOLD, SELLABLE)
        assert (world.ats("A"), world.on_hand("A", HOLD)) == (5, 0)
        world.restart()
        assert world.receive("A", 1).view.booked_disposition == HOLD

    def test_units_of_some_suppliers_always_start_there(self):
        world = World(Rules(quality_hold_suppliers=frozenset({"S-7"})))
        told = world.receive("A", 5, attributes=[["supplier_id", "S-7"]])
        assert reasons(told) == ["SUPPLIER_POLICY"]
        assert reasons(world.receive("A", 5, attributes=[["supplier_id", "S-8"]])) == []
        assert (world.ats("A"), world.on_hand("A", HOLD)) == (5, 5)

    def test_an_inactive_item_and_a_warehouse_that_does_not_sell_hold_back_too(self):
        world = World(Rules(warehouses_not_selling=frozenset({"main"})))
        world.set_gate("A", item_state=ItemState.INACTIVE)
        assert reasons(world.receive("A", 5)) == ["ITEM_INACTIVE", "WAREHOUSE_NOT_ELIGIBLE"]
        assert world.ats("A") == 0

    def test_units_of_a_recalled_lot_start_recalled_and_are_not_lifted(self):
        world = World()
        world.set_gate("A", recalled_lot_ids=["L-1"])
        told = world.receive("A", 5, lot_id="L-1")
        assert (reasons(told), told.view.booked_disposition) == (["LOT_RECALLED"], RECALLED)
        lifted = world.tell(Fact.DISPOSITION_CHANGE, "A", 5, RECALLED, SELLABLE, lot_id="L-1")
        assert (lifted.outcome, lifted.reason) == ("REJECTED", RejectReason.LOT_RECALLED.name)
        assert lifted.exception
        assert reasons(world.receive("A", 5, lot_id="L-2")) == []
        world.set_gate("A", recalled_lot_ids=[])
        assert world.tell(Fact.DISPOSITION_CHANGE, "A", 5, RECALLED, SELLABLE, lot_id="L-1").outcome == "APPLIED"
        assert world.ats("A") == 10

    def test_holds_back_transfers_and_returns_as_well_but_not_what_was_said_to_be_elsewhere(self):
        world = World()
        world.set_gate("A", receipt_disposition=HOLD)
        assert reasons(world.tell(Fact.TRANSFER_RECEIPT, "A", 2, "t1", "1", "overflow", False, SELLABLE)) == [
            "RECEIPT_POLICY"
        ]
        assert reasons(world.tell(Fact.CUSTOMER_RETURN, "A", 2, SELLABLE, [], "r1")) == ["RECEIPT_POLICY"]
        damaged = world.receive("A", 2, Disposition.DAMAGED)
        assert (reasons(damaged), world.on_hand("A", Disposition.DAMAGED)) == ([], 2)
        assert world.tell(Fact.ADJUSTMENT, "A", 3, SELLABLE, "found", "").outcome == "APPLIED"
        assert (world.ats("A"), world.on_hand("A", HOLD)) == (3, 4)

    def test_a_repeat_is_told_the_same_though_the_policy_changed(self):
        world = World()
        world.set_gate("A", receipt_disposition=HOLD)
        first = world.receive("A", 5, event="e1")
        world.set_gate("A", receipt_disposition=SELLABLE)
        again = world.receive("A", 5, event="e1")
        assert (again.outcome, reasons(again), world.on_hand("A", HOLD)) == ("DUPLICATE", reasons(first), 5)

    def test_a_count_compares_with_where_the_units_were_booked(self):
        world = World()
        world.set_gate("A", receipt_disposition=HOLD)
        world.receive("A", 5, sequence=1)
        world.tell(Fact.STOCK_COUNT, "A", 4, HOLD, 1, False, False, sequence=2)
        assert (world.on_hand("A", HOLD), world.on_hand("A")) == (4, 0)

    @pytest.mark.parametrize("use_snapshot", [False, True])
    def test_the_policy_survives(self, use_snapshot):
        world = World()
        world.set_gate("A", receipt_disposition=HOLD, recalled_lot_ids=["L-2", "L-1"], item_state=ItemState.INACTIVE)
        if use_snapshot:
            world.snapshot()
        world.restart()
        stock = world.stock("A")
        assert (stock.item_state, stock.receipt_disposition, list(stock.recalled_lot_ids)) == (2, HOLD, ["L-1", "L-2"])
        assert stock.policy_version == 2
        world.set_policy("A", safety_stock_quantity=1)
        assert list(world.stock("A").recalled_lot_ids) == ["L-1", "L-2"]
