"""``verify``'s own rules about feeds: which sequences of a stream came, what waits for which, and what became of it.

Handlers as in ``verify_stock``, of the events of kinds 60–67. The watermark is in no event: it is added up here anew from the
sequences received, so that whoever let an event pass a hole is found.
"""

from __future__ import annotations

from typing import Any

from actors.journal.verify_format import WAREHOUSE_EVENT
from actors.journal.verify_ledger import Ledger
from actors.journal.verify_report import VerifyReport
from actors.journal.verify_stock import Event
from actors.journal.verify_transfers import TransferRules

APPLIED, DUPLICATE, DEFERRED, REJECTED, HANDED_ON = 1, 2, 3, 4, 5
DEFERRED_TOO_LONG = 12
OUTCOMES = (APPLIED, DUPLICATE, DEFERRED, REJECTED, HANDED_ON)


class Feed:
    """One stream. ``above``: sequences received beyond the watermark; ``counts``: by warehouse and outcome."""

    __slots__ = ("above", "counts", "told", "waiting", "watermark")

    def __init__(self) -> None:
        self.watermark = 0
        self.above: set[int] = set()
        self.told = 0
        self.counts: dict[str, list[int]] = {}
        self.waiting: dict[str, int] = {}  # event key → the place that it waits for

    def receive(self, sequence: int) -> bool:
        """Whether it is new."""
        if sequence <= self.watermark or sequence in self.above:
            return False
        self.above.add(sequence)
        self.close(self.watermark)
        return True

    def close(self, up_to: int) -> None:
        """Everything up to there came, or is lost."""
        if up_to > self.watermark:
            self.watermark = up_to
            self.above = {one for one in self.above if one > up_to}
        while self.watermark + 1 in self.above:
            self.watermark += 1
            self.above.remove(self.watermark)

    def count(self, warehouse_id: str, outcome: int, units: int = 1) -> None:
        """One more, or one less, with that outcome."""
        counts = self.counts.get(warehouse_id)
        if counts is None:
            counts = self.counts[warehouse_id] = [0, 0, 0, 0]
        counts[(DEFERRED if outcome == HANDED_ON else outcome) - 1] += units


class Waiting:
    """An event that waits."""

    __slots__ = ("feed_key", "place", "until_ms")

    def __init__(self, feed_key: str, place: int, until_ms: int) -> None:
        self.feed_key = feed_key
        self.place = place
        self.until_ms = until_ms


class FeedRules(TransferRules):
    """Judges and applies the events of kinds 60–67 of one shard."""

    def __init__(self, shard: int, report: VerifyReport, ledger: Ledger) -> None:
        super().__init__(shard, report, ledger)
        self.feeds: dict[str, Feed] = {}
        self.waiting: dict[str, Waiting] = {}
        self._outcome = 0  # of the event that the group at hand received or settled; 0: none, or its id was spent
        self._ended: tuple[str, Waiting] | None = None  # what waited and is decided in the group at hand

    def end_group(self) -> None:
        if self._outcome and self.strict:
            self.fault((), "feed", "", "a warehouse event was received, and its id was not spent")
        self._outcome, self._ended = 0, None
        super().end_group()

    def feed(self, key: str) -> Feed:
        """That stream's, made if absent."""
        feed = self.feeds.get(key)
        if feed is None:
            feed = self.feeds[key] = Feed()
        return feed

    def feed_received(self, event: Event) -> None:
        """[feed_key, sequence, warehouse_id, occur_time_ms, outcome]"""
        _, feed_key, sequence, warehouse_id, occur_ms, outcome = event
        feed = self.feed(feed_key)
        new = feed.receive(sequence) if sequence else True
        feed.count(warehouse_id, outcome)
        self._outcome, self.due = outcome, True
        if not self.strict:
            return
        cause = self.cause
        if (
            cause[0] != WAREHOUSE_EVENT
            or f"{cause[6]}\x1f{cause[7]}" != feed_key
            or tuple(cause[8:10]) != (sequence, occur_ms)
        ):
            found = f"{cause[6:10]}"
            self.fault(event, "cause", feed_key, "is of another event of a source than its cause", found=found)
        if outcome not in OUTCOMES:
            self.fault(event, "feed", feed_key, f"outcome {outcome}", expected="a known outcome", found=outcome)
        if not new and outcome != REJECTED:
            text = f"sequence {sequence} had been received; this one was not rejected"
            self.fault(event, "feed", feed_key, text, expected=f"outcome {REJECTED}", found=outcome)

    def event_deferred(self, event: Event) -> None:
        """[event_key, feed_key, place, until_ms, body, …]"""
        _, event_key, feed_key, place, until_ms, *_ = event
        feed = self.feed(feed_key)
        if self.strict:
            if event_key in self.waiting:
                self.fault(event, "feed", event_key, "waits, and waited already")
            if place <= feed.watermark:
                text = f"waits for {place}, and everything up to {feed.watermark} was received"
                self.fault(event, "feed", event_key, text, expected=f"more than {feed.watermark}", found=place)
            if until_ms < self.time_ms:
                self.fault(event, "feed", event_key, f"waits until {until_ms}, and it is {self.time_ms}")
        self.waiting[event_key] = Waiting(feed_key, place, until_ms)
        feed.waiting[event_key] = place

    def deferred_ended(self, event: Event) -> None:
        """[event_key, outcome]"""
        _, event_key, outcome = event
        waiting = self.waiting.pop(event_key, None)
        if waiting is None:
            self.fault(event, "feed", event_key, "waits no more, and did not wait")
            return
        self.feed(waiting.feed_key).waiting.pop(event_key, None)
        self._ended, self._outcome, self.due = (event_key, waiting), outcome, True

    def feed_settled(self, event: Event) -> None:
        """[feed_key, warehouse_id, outcome]"""
        _, feed_key, warehouse_id, outcome = event
        feed = self.feed(feed_key)
        feed.count(warehouse_id, DEFERRED, -1)
        feed.count(warehouse_id, outcome)
        if self.strict and (feed.counts[warehouse_id][DEFERRED - 1] < 0 or outcome == DEFERRED):
            text = f"settled with outcome {outcome}, {feed.counts[warehouse_id][DEFERRED - 1]} others wait"
            self.fault(event, "feed", feed_key, text, expected="one that waited, decided")

    def feed_corrected(self, event: Event) -> None:
        """[feed_key, warehouse_id, outcome]: a rejected event was decided once more"""
        _, feed_key, warehouse_id, outcome = event
        feed = self.feed(feed_key)
        feed.count(warehouse_id, REJECTED, -1)
        feed.count(warehouse_id, outcome)
        if self.strict and (feed.counts[warehouse_id][REJECTED - 1] < 0 or outcome not in (APPLIED, DUPLICATE)):
            text = f"corrected with outcome {outcome}, {feed.counts[warehouse_id][REJECTED - 1]} others are rejected"
            self.fault(event, "feed", feed_key, text, expected="one that was rejected, booked")

    def feed_stale_set(self, event: Event) -> None:
        """[feed_key, warehouse_id, stale, exception_id]"""
        if not 4 <= len(event) <= 5:
            raise ValueError("number of fields")
        self.feed(event[1])

    def feed_gap_closed(self, event: Event) -> None:
        """[feed_key, up_to]"""
        _, feed_key, up_to = event
        feed = self.feed(feed_key)
        if self.strict and up_to < feed.watermark:
            text = f"what is missing up to {up_to} is lost, and everything up to {feed.watermark} came"
            self.fault(event, "feed", feed_key, text, expected=f"at least {feed.watermark}", found=up_to)
        feed.close(up_to)

    def feed_gap_set(self, event: Event) -> None:
        """[feed_key, exception_id]"""
        _, feed_key, _ = event
        self.feed(feed_key)

    def feed_heard(self, event: Event) -> None:
        """[feed_key, warehouse_id, last_source_sequence]"""
        _, feed_key, warehouse_id, last = event
        feed = self.feed(feed_key)
        feed.told = max(feed.told, last)
        feed.counts.setdefault(warehouse_id, [0, 0, 0, 0])

    # --- ids ----------------------------------------------------------------------------------------------------------

    def entry_spent(self, event: Event) -> None:
        _, key, _, answer = event
        if key[0] == "e" and self._outcome:
            outcome, self._outcome = self._outcome, 0
            if self.strict and answer[1] != outcome:
                text = f"outcome {answer[1]} is told, it was {outcome}"
                self.fault(event, "feed", key, text, expected=outcome, found=answer[1])
        if self._ended is not None and self._ended[0] == key:
            self._judge_settled(event, answer, self._ended[1])
            self.entries.add(key)
            return  # its id was spent when it came
        super().entry_spent(event)

    def entry_settled(self, event: Event) -> None:
        """[entry_key, digest, answer]: what was handed on to another host was decided"""
        _, key, _, answer = event
        if self.strict and (key[0] != "e" or answer[1] not in (APPLIED, DUPLICATE, REJECTED)):
            self.fault(
                event, "feed", key, f"settled with outcome {answer[1]}", expected="one that was handed on, decided"
            )
        self.entries.add(key)

    def _judge_settled(self, event: Event, answer: Any, waiting: Waiting) -> None:
        if not self.strict:
            return
        feed, key = self.feed(waiting.feed_key), event[1]
        if answer[4] == DEFERRED_TOO_LONG:
            if self.time_ms < waiting.until_ms or waiting.place <= feed.watermark:
                text = f"was given up at {self.time_ms}; it might wait for {waiting.place} until {waiting.until_ms}"
                expected = f"not before, and only below {waiting.place}"
                self.fault(event, "feed", key, text, expected=expected, found=f"whole up to {feed.watermark}")
            return
        if waiting.place > feed.watermark:
            text = f"waited for {waiting.place} and was decided when the stream was whole up to {feed.watermark}"
            self.fault(event, "feed", key, text, expected=f"at least {waiting.place}", found=feed.watermark)
        earlier = min(feed.waiting.values(), default=waiting.place)
        if earlier < waiting.place:
            text = f"was decided in place {waiting.place}, and one of place {earlier} still waits"
            self.fault(event, "feed", key, text, expected=f"at most {earlier}", found=waiting.place)
