"""What webhooks count, in a registry of their own. Labels: the webhook's id, which the settings bound, and outcomes."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.webhooks.outbox import Outbox
from gateway.webhooks.verdicts import Verdict

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class WebhookMetrics:
    """Of all webhooks of one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "stockade_webhook_requests", "Requests made, by how they ended", ["webhook", "outcome"], registry=registry
        )
        self._changes = Counter(
            "stockade_webhook_changes", "Changes settled: accepted by the endpoint, or given up", ["webhook", "outcome"],
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "stockade_webhook_request_duration_seconds", "Time of a request until its answer", ["webhook"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._source_failures = Counter(
            "stockade_webhook_source_failures", "Times that the change feed could not be read or acknowledged",
            ["webhook"], registry=registry,
        )  # fmt: skip
        self._circuit_open = Gauge(
            "stockade_webhook_circuit_open",
            "1 while the circuit of an endpoint is open",
            ["webhook"],
            registry=registry,
        )
        self._disabled = Gauge(
            "stockade_webhook_disabled", "1 after the endpoint said Gone", ["webhook"], registry=registry
        )
        self._unsettled = Gauge(
            "stockade_webhook_unsettled_changes", "Changes read and neither accepted nor given up", ["webhook"],
            registry=registry,
        )  # fmt: skip
        self._oldest = Gauge(
            "stockade_webhook_oldest_unsettled_seconds", "How long the oldest of them has waited here", ["webhook"],
            registry=registry,
        )  # fmt: skip

    def watch(self, webhook_id: str, outbox: Outbox, now_ms: Callable[[], int]) -> None:
        """Where the gauges of a webhook get their values from; its counters begin at 0."""

        def oldest_s() -> float:
            read_at_ms = outbox.oldest_unsettled_ms
            return 0.0 if read_at_ms is None else (now_ms() - read_at_ms) / 1000

        self._circuit_open.labels(webhook_id).set_function(lambda: float(not outbox.circuit.closed))
        self._disabled.labels(webhook_id).set_function(lambda: float(outbox.disabled))
        self._unsettled.labels(webhook_id).set_function(lambda: outbox.unsettled)
        self._oldest.labels(webhook_id).set_function(oldest_s)
        self._source_failures.labels(webhook_id)
        for outcome in ("accepted", "given_up"):
            self._changes.labels(webhook_id, outcome)

    def ended(self, webhook_id: str, verdict: Verdict, changes: int, seconds: float) -> None:
        """A request ended."""
        self._requests.labels(webhook_id, verdict.outcome.value).inc()
        self._seconds.labels(webhook_id).observe(seconds)
        if verdict.outcome.value == "accepted":
            self._changes.labels(webhook_id, "accepted").inc(changes)

    def given_up(self, webhook_id: str, changes: int) -> None:
        if changes:
            self._changes.labels(webhook_id, "given_up").inc(changes)

    def source_failed(self, webhook_id: str) -> None:
        self._source_failures.labels(webhook_id).inc()

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)
