"""Messages of ``stockade.v1`` ↔ items and replies of shard hosts.

One pass over a request checks it (``gateway.validation``) and builds the item; replies become messages. No IO, no
deciding.
"""
