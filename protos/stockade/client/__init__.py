"""The typed client: what it sends, what comes back, how it retries. ``stockade.Client`` and ``stockade.AsyncClient``."""

from stockade.client.asynchronous import AsyncClient
from stockade.client.change_results import (
    Acknowledged,
    AvailabilityChanged,
    ChangeBatch,
    Consumer,
    ReservationChanged,
    ResyncNeeded,
    WarehouseChanged,
    WatchUpdate,
)
from stockade.client.errors import RequestIdReused, StockadeError
from stockade.client.event_stream import AsyncEventStream, EventStream
from stockade.client.ids import new_request_id
from stockade.client.results import (
    Availability,
    BatchResult,
    Failed,
    Feed,
    Granted,
    HeartbeatTaken,
    Ingested,
    Line,
    LineWanted,
    Position,
    Refused,
    Reservation,
    Shortage,
    Stock,
    StockException,
    StockKey,
    Transfer,
    WarehouseFeed,
)
from stockade.client.synchronous import Client

__all__ = [
    "Acknowledged",
    "AsyncClient",
    "AsyncEventStream",
    "Availability",
    "AvailabilityChanged",
    "BatchResult",
    "ChangeBatch",
    "Client",
    "Consumer",
    "EventStream",
    "Failed",
    "Feed",
    "Granted",
    "HeartbeatTaken",
    "Ingested",
    "Line",
    "LineWanted",
    "Position",
    "Refused",
    "RequestIdReused",
    "Reservation",
    "ReservationChanged",
    "ResyncNeeded",
    "Shortage",
    "Stock",
    "StockException",
    "StockKey",
    "StockadeError",
    "Transfer",
    "WarehouseChanged",
    "WarehouseFeed",
    "WatchUpdate",
    "new_request_id",
]
