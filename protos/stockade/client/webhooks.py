"""The signature of a webhook request: made by the service, verified by whoever receives it. Only the standard library.

It is the scheme of Standard Webhooks, whose libraries for other languages verify it as well: HMAC-SHA256 over
``id.timestamp.body``, in base64, after ``v1,``; several signatures are parted by spaces. A request carries one for each
secret that is valid, in the order of ``stockade-key-ids``, so that secrets can be changed without a request lost.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping

__all__ = [
    "ATTEMPT_HEADER",
    "ID_HEADER",
    "KEY_IDS_HEADER",
    "SIGNATURE_HEADER",
    "TIMESTAMP_HEADER",
    "BadSignature",
    "secret_bytes",
    "signature_headers",
    "verify",
]

ID_HEADER = "webhook-id"  # of the delivery: the same on every attempt
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"
KEY_IDS_HEADER = "stockade-key-ids"
ATTEMPT_HEADER = "stockade-attempt"
TOLERANCE_S = 300  # of the timestamp: an old request that somebody recorded is not taken again
SIGNATURES_MAX = 16
_BASE64_PREFIX = "whsec_"


class BadSignature(ValueError):
    """A request that must not be believed. The message says why; answer it with 401 and nothing else."""


def secret_bytes(text: str) -> bytes:
    """The key behind a secret as people hand it around: ``whsec_`` and base64, or any other text as it is."""
    if not text.startswith(_BASE64_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(_BASE64_PREFIX), validate=True)
    except ValueError:
        raise ValueError(f"a secret that begins with {_BASE64_PREFIX} must go on in base64") from None


def signature_headers(
    delivery_id: str, timestamp_s: int, body: bytes, secrets: Iterable[tuple[str, bytes]]
) -> dict[str, str]:
    """The headers of a signed request. ``secrets``: (key id, key) each."""
    pairs = [(key_id, _signature(key, delivery_id, timestamp_s, body)) for key_id, key in secrets]
    return {
        ID_HEADER: delivery_id,
        TIMESTAMP_HEADER: str(timestamp_s),
        SIGNATURE_HEADER: " ".join(signature for _, signature in pairs),
        KEY_IDS_HEADER: " ".join(key_id for key_id, _ in pairs),
    }


def verify(
    headers: Mapping[str, str], body: bytes, secrets: Iterable[str], now_s: float, *, tolerance_s: float = TOLERANCE_S
) -> str:
    """The delivery id of a request signed with one of these secrets lately. Raises BadSignature.

    ``body``: the bytes as they arrived, before anything parsed them. ``secrets``: those that are valid now.
    """
    found = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER) if not found.get(name)]
    if missing:
        raise BadSignature(f"without {', '.join(missing)}")
    text = found[TIMESTAMP_HEADER]
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise BadSignature("the timestamp is not a number of seconds")
    if abs(now_s - int(text)) > tolerance_s:
        raise BadSignature(f"signed {now_s - int(text):+.0f} s from now; at most {tolerance_s:g} s are accepted")
    given = [one.encode() for one in found[SIGNATURE_HEADER].split(" ")[:SIGNATURES_MAX]]
    right = False
    for secret in secrets:
        wanted = _signature(secret_bytes(secret), found[ID_HEADER], int(text), body).encode()
        for one in given:
            right |= hmac.compare_digest(one, wanted)  # all are compared: how long it takes tells nothing
    if not right:
        raise BadSignature("no signature is of a known secret")
    return found[ID_HEADER]


def _signature(key: bytes, delivery_id: str, timestamp_s: int, body: bytes) -> str:
    signed = f"{delivery_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
