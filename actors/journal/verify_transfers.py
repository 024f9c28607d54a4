"""``verify``'s own rules about transfers, at the stock keys they go to: sums that only grow, and what is said to be lost.

Handlers as in ``verify_stock``, of the events of kinds 70–73. That a dispatch in one shard is noted in the other is not judged
here: the units that left are known there and those on their way here, and an exception may say that nobody can follow them.
"""

from __future__ import annotations

from actors.journal.verify_home import EXCEPTION_OPEN, HomeRules
from actors.journal.verify_ledger import Ledger
from actors.journal.verify_report import VerifyReport
from actors.journal.verify_state import Stock, Transfer
from actors.journal.verify_stock import TRANSFER_RECEIPT, Event

TRANSFER_SHORT = 10
LINES_MAX = 1_000  # of transfers to one stock key; beyond them a receipt is booked and not followed
SUM_MAX = 10**18
NOTED_AT = 14  # OnHandChanged: of a version that notes transfers, the time when it happened; else below 0 or not there


class TransferRules(HomeRules):
    """Judges and applies the events of kinds 70–73 of one shard."""

    def __init__(self, shard: int, report: VerifyReport, ledger: Ledger) -> None:
        super().__init__(shard, report, ledger)
        # of the group at hand: units that came in by stock key, units noted of transfers, and the lines that were touched
        self._came_in: dict[str, int] = {}
        self._noted: dict[str, int] = {}
        self._moved: dict[tuple[str, str], Event] = {}

    def _judge_fact(self, event: Event, key: str, fact: int, delta: int) -> None:
        super()._judge_fact(event, key, fact, delta)
        if fact == TRANSFER_RECEIPT and len(event) > NOTED_AT and event[NOTED_AT] >= 0:
            self._came_in[key] = self._came_in.get(key, 0) + delta
            self.due = True

    def end_group(self) -> None:
        if self.strict and (self._came_in or self._noted or self._moved):
            for key in self._came_in.keys() | self._noted.keys():
                self._judge_receipts(key, self._came_in.get(key, 0), self._noted.get(key, 0))
            for (key, name), event in self._moved.items():
                self._judge_transfer(event, key, name)
        for kept in (self._came_in, self._noted, self._moved):
            kept.clear()
        super().end_group()

    def transfer_dispatched(self, event: Event) -> None:
        """[stock_key, transfer_id, transfer_line, from_warehouse_id, quantity]"""
        _, key, transfer_id, line, _, quantity = event
        transfer = self._grown(event, key, transfer_id, line, quantity)
        transfer.dispatched += quantity

    def transfer_received(self, event: Event) -> None:
        """[stock_key, transfer_id, transfer_line, from_warehouse_id, quantity, final]"""
        _, key, transfer_id, line, _, quantity, final = event
        transfer = self._grown(event, key, transfer_id, line, quantity)
        transfer.received += quantity
        transfer.final = transfer.final or final
        self._noted[key] = self._noted.get(key, 0) + quantity

    def transfer_alarmed(self, event: Event) -> None:
        """[stock_key, transfer_id, transfer_line, exception_id]"""
        _, key, transfer_id, line, exception_id = event
        transfer = self._known(event, key, transfer_id, line)
        if transfer is None:
            return
        transfer.exception_id = exception_id
        self._moved[key, f"{transfer_id}\x1f{line}"] = event
        self.due = True
        exception = self.exceptions.get(exception_id)
        if self.strict and exception_id and (exception is None or exception[:2] != [TRANSFER_SHORT, key]):
            self.fault(event, "transfer", key, f"{transfer_id!r} names an exception that is not about it")

    def transfer_forgotten(self, event: Event) -> None:
        """[stock_key, transfer_id, transfer_line]"""
        _, key, transfer_id, line = event
        transfer = self._known(event, key, transfer_id, line)
        if transfer is None:
            return
        if self.strict and (transfer.in_transit or self._somebody_looks_at(transfer.exception_id)):
            text = f"{transfer_id!r} line {line!r} is forgotten, and somebody waits for its units"
            found = f"{transfer.dispatched} dispatched, {transfer.received} received"
            self.fault(event, "transfer", key, text, expected="nothing under way, nothing to look at", found=found)
        del self.stocks[key].transfers[f"{transfer_id}\x1f{line}"]

    def _grown(self, event: Event, key: str, transfer_id: str, line: str, quantity: int) -> Transfer:
        """The line that gets more, made if absent."""
        stock: Stock = self.stocks.get(key) or self._unregistered(event, key)
        if self.strict and quantity <= 0:
            text = f"{quantity} units of transfer {transfer_id!r}: its sums only grow"
            self.fault(event, "transfer", key, text, expected="1 or more", found=quantity)
        name = f"{transfer_id}\x1f{line}"
        transfer = stock.transfers.get(name)
        if transfer is None:
            if self.strict and len(stock.transfers) >= LINES_MAX:
                text = f"more than {LINES_MAX} lines of transfers are remembered"
                self.fault(event, "transfer", key, text, expected=LINES_MAX, found=len(stock.transfers) + 1)
            transfer = stock.transfers[name] = Transfer()
        self._moved[key, name] = event
        self.due = True
        return transfer

    def _known(self, event: Event, key: str, transfer_id: str, line: str) -> Transfer | None:
        stock: Stock = self.stocks.get(key) or self._unregistered(event, key)
        transfer = stock.transfers.get(f"{transfer_id}\x1f{line}")
        if transfer is None:
            self.fault(event, "transfer", key, f"{transfer_id!r} line {line!r} is not known here")
        return transfer

    def _somebody_looks_at(self, exception_id: str) -> bool:
        exception = self.exceptions.get(exception_id)
        return exception is not None and exception[3] == EXCEPTION_OPEN

    def _judge_receipts(self, key: str, came_in: int, noted: int) -> None:
        """What came in by transfers is what their lines were told, where there was room for the line."""
        lines = self.stocks[key].transfers
        full = len(lines) >= LINES_MAX or any(
            max(one.dispatched, one.received) > SUM_MAX - came_in for one in lines.values()
        )
        if came_in != noted and not (full and not noted):
            text = f"{came_in} units came in by transfers whose lines were told of {noted}"
            self.fault((), "transfer", key, text, expected=came_in, found=noted)

    def _judge_transfer(self, event: Event, key: str, name: str) -> None:
        """Units are lost exactly when an exception says so, and how many."""
        transfer = self.stocks[key].transfers.get(name)
        if transfer is None:
            return
        said = transfer.exception_id
        if bool(transfer.lost) != bool(said):
            text = f"{transfer.lost} units are lost, and the exception about them is {said or 'none'}"
            self.fault(event, "transfer", key, text, expected="one exactly when units are lost", found=said or "none")
        elif self._somebody_looks_at(said) and self.exceptions[said][2] != transfer.lost:
            text = f"{transfer.lost} units are lost; the exception says {self.exceptions[said][2]}"
            self.fault(event, "transfer", key, text, expected=transfer.lost, found=self.exceptions[said][2])
