"""What ``serve`` tells people and programs: a line an event, as text or JSON, and the same as JSON in
``logs/serve.log``.

Owns the wording's form, not the events. Also sets up the logs of the node's other processes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

__all__ = ["Announcer", "log_to_file"]

LOG_BYTES_MAX = 16 * 1024 * 1024  # a file; with the kept ones 80 MiB for each process
LOG_FILES_KEPT = 4


class Announcer:
    """Says events. ``form`` "json": one object a line on standard output, for programs; "text": for people."""

    def __init__(
        self, form: Literal["text", "json"], stream: TextIO | None = None, wall_s: Callable[[], float] = time.time
    ) -> None:
        self._form = form
        self._wall_s = wall_s
        self._stream = stream or sys.stdout
        self._file = logging.Logger("stockade.serve")
        self._file.addHandler(logging.NullHandler())

    def log_to(self, path: Path) -> None:
        """From now on also into this file."""
        self._file.addHandler(json_file_handler(path))

    def say(self, event: str, message: str, **fields: Any) -> None:
        """``message`` is a whole sentence for people; ``event`` and ``fields`` are for programs."""
        self._file.info(message, extra={"fields": {"event": event, **fields}})
        if self._form == "json":
            time_text = datetime.fromtimestamp(self._wall_s(), UTC).isoformat(timespec="milliseconds")
            line = json.dumps({"time": time_text, "event": event, "message": message, **fields})
        else:
            line = f"{time.strftime('%H:%M:%S', time.localtime(self._wall_s()))}  {message}"
        with contextlib.suppress(OSError, ValueError):  # perhaps nobody reads any more: serving matters more
            print(line, file=self._stream, flush=True)


class JsonFormatter(logging.Formatter):
    """One JSON object a line; ``extra={"fields": {...}}`` becomes fields of the object."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def json_file_handler(path: Path) -> logging.Handler:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES_MAX, backupCount=LOG_FILES_KEPT, delay=True)
    handler.setFormatter(JsonFormatter())
    handler.handleError = ignore_full_disk  # type: ignore[method-assign]
    return handler


def ignore_full_disk(record: logging.LogRecord) -> None:
    """A log that cannot be written must not end a service that can still serve."""


def log_to_file(path: Path, level: str) -> None:
    """Send this process's logs to a rotating file of JSON lines."""
    root = logging.getLogger()
    root.handlers[:] = [json_file_handler(path)]
    root.setLevel(level.upper())
