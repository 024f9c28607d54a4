"""Watches one run of a target: it must end within a bound of CPU time, and nothing in it may log an error of the product's."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import traceback
from collections.abc import Iterator
from types import FrameType

CPU_SECONDS_MAX = 4.0  # of one input; a busy machine does not count


class Hang(BaseException):
    """An input took too long. Not an Exception: no handler of the product may swallow it."""


class ErrorLogged(AssertionError):
    """The product logged an error with a traceback: a bug that it survived, which is still a bug."""


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise Hang(f"more than {CPU_SECONDS_MAX} s of CPU for one input")


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Raises ``Hang`` in the code inside when it uses too much CPU time. Only in a process's main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS_MAX)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def no_errors_logged(*loggers: str) -> Iterator[list[logging.LogRecord]]:
    """Raises ``ErrorLogged`` at the end when one of these loggers told of an exception. What it told is not printed."""
    collector = _Collector()
    watched = [logging.getLogger(name) for name in loggers]
    kept = [(logger, logger.propagate) for logger in watched]
    for logger in watched:
        logger.addHandler(collector)
        logger.propagate = False
    try:
        yield collector.records
    except Exception as error:
        _raise_logged(collector.records, error)
        raise
    finally:
        for logger, propagate in kept:
            logger.removeHandler(collector)
            logger.propagate = propagate
    _raise_logged(collector.records, None)


def _raise_logged(records: list[logging.LogRecord], beside: Exception | None) -> None:
    for record in records:
        if record.exc_info and record.exc_info[1] is not None:
            told = logging.Formatter().formatException(record.exc_info)
            frames = traceback.extract_tb(record.exc_info[2])
            where = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"
            raise ErrorLogged(f"at {where}: {record.name}: {record.getMessage()}\n{told}") from beside
