"""Lists over all hosts: an opaque page token that remembers the host, its own cursor and the filters it belongs to.

A page goes on where the last one ended; what changes meanwhile may or may not be seen. Hosts are visited in the order
of their ids, so one that came or went does not confuse the walk.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgpack

from gateway.config import PAGE_TOKEN_BYTES_MAX
from gateway.validation import Findings

_VERSION = 1
_FINGERPRINT_BYTES = 6


def write_token(host_id: str, host_token: str, filters: Sequence[Any]) -> str:
    """The token of the page that begins at ``host_token`` of ``host_id``."""
    packed = msgpack.packb([_VERSION, host_id, host_token, _fingerprint(filters)])
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read_token(token: str, filters: Sequence[Any], findings: Findings) -> tuple[str, str]:
    """(host id, host's token); ("", "") for the first page."""
    if not token:
        return "", ""
    problem = "is not a token of this list: begin again without one"
    if len(token) > PAGE_TOKEN_BYTES_MAX:
        findings.add("page_token", problem)
        return "", ""
    try:
        raw = base64.b64decode((token + "=" * (-len(token) % 4)).encode("ascii"), altchars=b"-_", validate=True)
        version, host_id, host_token, fingerprint = msgpack.unpackb(raw)
    except (ValueError, TypeError, UnicodeError, binascii.Error, msgpack.UnpackException):
        findings.add("page_token", problem)
        return "", ""
    if version != _VERSION or not isinstance(host_id, str) or not isinstance(host_token, str):
        findings.add("page_token", problem)
    elif fingerprint != _fingerprint(filters):
        findings.add(
            "page_token", "belongs to a list with other filters: send the same filters, or begin without a token"
        )
    return host_id, host_token


def _fingerprint(filters: Sequence[Any]) -> bytes:
    packed: bytes = msgpack.packb(list(filters))
    return blake2b(packed, digest_size=_FINGERPRINT_BYTES).digest()
