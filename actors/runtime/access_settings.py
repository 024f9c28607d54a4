"""Settings of who may call: bearer tokens and what their holders may do, and the certificates of the gRPC port.

Owns their shape and what of them may be shown. Who is let in is ``gateway.access``' business.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from actors.journal.database_url import HIDDEN
from actors.runtime.setting_values import Identifier

__all__ = ["Credential", "Tls", "hide_tokens"]


class Credential(BaseModel):
    """A bearer token and what its holder may do; "*" in ``channels`` or ``sources`` means all. ``operator``:
    everything.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    principal: Identifier
    token: SecretStr | None = None
    token_file: Path | None = None
    channels: list[str] = Field(default_factory=list)
    sources: list[str] = Field(default_factory=list)
    operator: bool = False

    @model_validator(mode="after")
    def _one_token(self) -> Credential:
        if (self.token is None) == (self.token_file is None):
            raise ValueError("give either token or token_file")
        return self

    def secret(self) -> str:
        """The token itself, read from its file when it is in one."""
        if self.token is not None:
            return self.token.get_secret_value()
        assert self.token_file is not None
        return self.token_file.read_text(encoding="utf-8").strip()


class Tls(BaseModel):
    """PEM files of the gRPC port. ``client_ca``: when set, callers must show a certificate signed by it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    certificate: Path
    private_key: Path
    client_ca: Path | None = None


def hide_tokens(credentials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Credentials as plain data with every token replaced."""
    return [{**one, "token": one["token"] and HIDDEN} for one in credentials]
