"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stockade import Client

Target = Annotated[
    str,
    typer.Option(
        "--target", "-t", envvar="STOCKADE_TARGET", help="host:port of the gRPC port", rich_help_panel="Connection"
    ),
]
Channel = Annotated[
    str,
    typer.Option("--channel", "-c", envvar="STOCKADE_CHANNEL", help="the sales channel", rich_help_panel="Connection"),
]
Token = Annotated[
    str, typer.Option("--token", envvar="STOCKADE_TOKEN", help="bearer token", rich_help_panel="Connection")
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        help="seconds for the call with all its retries",
        rich_help_panel="Connection",
        min=0.01,
        max=86_400,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs instead of tables")]
RequestId = Annotated[
    str | None, typer.Option("--request-id", help="idempotency key: say the same again to learn how a call ended")
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", envvar="STOCKADE_CONFIG", help="settings file; default stockade.toml here", dir_okay=False
    ),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", "-d", help="data directory (setting data_dir)")]

TARGET = "127.0.0.1:7450"
CHANNEL = "web"
TIMEOUT_S = 10.0


def connect(target: str, channel: str, token: str, timeout_s: float) -> Client:
    """A blocking client. Raises ValueError for what cannot be sent."""
    if not target.strip():
        raise ValueError("--target: write it as HOST:PORT")
    if not (token.isascii() and token.isprintable()):
        raise ValueError("--token: a bearer token has no line breaks and only ASCII characters")
    return Client(target, channel_id=channel, token=token, timeout_s=timeout_s)
