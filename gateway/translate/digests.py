"""The digest by which a repeated request is told from another one under the same id.

BLAKE2b-128 over the method's name, the digest's version and every field of the message but its id, as sent: defaults
are not filled in, lines stay in the order given. It is journaled, so neither the names nor the version may change
meaning.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from google.protobuf.message import Message

DIGEST_BYTES = 16
_PERSON = b"stockade-1"  # the version; at most 16 bytes


class Digest:
    """The digest of one method's requests. ``id_field``: the field that is left out, "" when there is none."""

    __slots__ = ("_id_field", "_start")

    def __init__(self, method: str, id_field: str = "request_id") -> None:
        self._start: Any = blake2b(method.encode() + b"\0", digest_size=DIGEST_BYTES, person=_PERSON)
        self._id_field = id_field

    def of(self, message: Message, *, has_map: bool = False) -> bytes:
        """16 bytes. The message loses its id field: read it before.

        ``has_map``: a map field is filled, whose order must be fixed. Without one the order is that of the fields, and
        asking for it costs half as much again.
        """
        if self._id_field:
            message.ClearField(self._id_field)
        state = self._start.copy()
        state.update(message.SerializeToString(deterministic=True) if has_map else message.SerializeToString())
        digest: bytes = state.digest()
        return digest


RESERVE = Digest("ReserveStock")
CONFIRM = Digest("ConfirmReservation")
RELEASE = Digest("ReleaseReservation")
EXTEND = Digest("ExtendReservation")
AMEND = Digest("AmendReservation")
FULFILL = Digest("FulfillReservation")
REGISTER = Digest("RegisterStock", id_field="")  # of one registration; its batch has the id
SET_POLICY = Digest("SetStockPolicy")
SUSPEND = Digest("SuspendSelling")
RESUME = Digest("ResumeSelling")
RECONCILE = Digest("Reconcile")  # of its header
RESOLVE_EXCEPTION = Digest("ResolveException")
EVENT = Digest("WarehouseEvent", id_field="event_id")
