"""Who is calling and what that caller may do: bearer tokens → principals with roles.

Without credentials in the settings everything is allowed, which ``config.check_binding`` permits on loopback only. It
does not know which channel a reservation belongs to: ``servicers`` find that out and ask here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from actors.domain.outcomes import ErrorReason
from gateway.config import Credential
from gateway.errors import CallFailed

ALL = "*"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. ``name`` is journaled as the cause of what it does."""

    name: str
    channels: frozenset[str]
    sources: frozenset[str]
    operator: bool
    sells_everywhere: bool = field(init=False)  # no channel needs to be looked up for it

    def __post_init__(self) -> None:
        object.__setattr__(self, "sells_everywhere", self.operator or ALL in self.channels)

    def require_channel(self, channel_id: str) -> None:
        """Raises CallFailed PERMISSION_DENIED unless it sells in that channel."""
        if not (self.sells_everywhere or channel_id in self.channels):
            raise CallFailed(ErrorReason.PERMISSION_DENIED, f"{self.name} does not sell in channel {channel_id!r}")

    def require_source(self, source_id: str) -> None:
        """Raises CallFailed PERMISSION_DENIED unless it may tell warehouse facts as that source."""
        if not (self.operator or ALL in self.sources or source_id in self.sources):
            raise CallFailed(
                ErrorReason.PERMISSION_DENIED, f"{self.name} may not tell warehouse events as source {source_id!r}"
            )

    def require_operator(self) -> None:
        """Raises CallFailed PERMISSION_DENIED unless it is an operator."""
        if not self.operator:
            raise CallFailed(ErrorReason.PERMISSION_DENIED, f"{self.name} is not an operator")


ANYBODY = Principal("", frozenset((ALL,)), frozenset((ALL,)), operator=True)


class Access:
    """The credentials of the settings, looked up by a hash of the token, so that time tells nothing about a token."""

    def __init__(self, credentials: Sequence[Credential]) -> None:
        self.open = not credentials
        self._principals = {
            _fingerprint(each.token): Principal(each.principal, each.channels, each.sources, each.operator)
            for each in credentials
        }

    def principal(self, authorization: str) -> Principal:
        """The caller behind an ``authorization`` header. Raises CallFailed UNAUTHENTICATED."""
        if self.open:
            return ANYBODY
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer":
            found = self._principals.get(_fingerprint(token.strip()))
            if found is not None:
                return found
        raise CallFailed(ErrorReason.UNAUTHENTICATED)


def _fingerprint(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
