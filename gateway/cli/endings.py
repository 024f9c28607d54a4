"""How a command ends: exit codes, and errors said in one line each to standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NoReturn

import typer

from stockade.client.errors import StockadeError


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    NOT_FOUND = 4
    UNAVAILABLE = 5
    UNKNOWN = 6  # it may have happened: ask again with the same request id
    VERIFY_FAILED = 7


def fail(message: str, code: Exit) -> NoReturn:
    """Say why and end."""
    typer.secho(f"stockade: {message}", fg="red" if sys.stderr.isatty() else None, err=True)
    raise typer.Exit(int(code))


USAGE_CODES = ("INVALID_ARGUMENT", "ALREADY_EXISTS", "FAILED_PRECONDITION", "UNAUTHENTICATED", "PERMISSION_DENIED")
UNAVAILABLE_CODES = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")


def ending_of(code: str, outcome: str) -> Exit:
    """Which exit code a call asks for that failed with this gRPC status."""
    if code == "NOT_FOUND":
        return Exit.NOT_FOUND
    if code in USAGE_CODES:
        return Exit.USAGE
    if outcome == "unknown":
        return Exit.UNKNOWN
    return Exit.UNAVAILABLE if code in UNAVAILABLE_CODES else Exit.FAILED


@contextlib.contextmanager
def told_plainly(target: str, *, as_json: bool, request_id: str = "", reads: bool = False) -> Iterator[None]:
    """Errors of a call as one line and an exit code. ``reads``: nothing can have happened, so none is "unknown"."""
    try:
        yield
    except StockadeError as error:
        code = ending_of(error.code.name, error.outcome)
        if reads and code == Exit.UNKNOWN:
            code = Exit.UNAVAILABLE
        if as_json:
            print_json(
                {
                    "error": {
                        "code": error.code.name,
                        "reason": error.reason,
                        "message": str(error),
                        "outcome": "not_done" if reads else error.outcome,
                        "violations": error.violations,
                        "correlation_id": error.correlation_id,
                        "request_id": request_id,
                    }
                }
            )
            raise typer.Exit(int(code)) from None
        for field, problem in error.violations.items() if len(error.violations) > 1 else ():  # one is in the message
            typer.echo(f"  {field}: {problem}", err=True)
        hint = ""
        if code == Exit.UNKNOWN:
            hint = (
                f" (it may have happened: run it again with --request-id {request_id})"
                if request_id
                else " (it may have happened)"
            )
        elif code == Exit.UNAVAILABLE and not error.reason:  # nobody of ours answered
            hint = f" (is the service running at {target}?)"
        fail(f"{error.reason}: {error}{hint}" if error.reason else f"{error}{hint}", code)
    except ValueError as error:
        fail(str(error), Exit.USAGE)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=None if not sys.stdout.isatty() else 2, default=str, ensure_ascii=False))


def quiet_broken_pipe() -> None:
    """``stockade … | head`` must not end in a traceback."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
