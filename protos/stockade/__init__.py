"""Stockade: the contract (``stockade.v1``) and the client (``stockade.Client``, ``stockade.AsyncClient``)."""

from stockade.client import (
    AsyncClient,
    Client,
    Failed,
    Granted,
    LineWanted,
    Refused,
    Reservation,
    ResyncNeeded,
    StockadeError,
    StockKey,
    new_request_id,
)

__all__ = [
    "AsyncClient",
    "Client",
    "Failed",
    "Granted",
    "LineWanted",
    "Refused",
    "Reservation",
    "ResyncNeeded",
    "StockKey",
    "StockadeError",
    "new_request_id",
]
