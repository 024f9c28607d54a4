"""Stockade: the contract (``stockade.v1``) and the client (``stockade.Client``, ``stockade.AsyncClient``)."""
