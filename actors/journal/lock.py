"""The lock on a journal directory: with one SQLite file it is the fence, because a second writer could not be told
apart.

The kernel holds it (flock) and lets go when the process ends. The file says who holds it: a successor waits for that
process and, when told to, kills it after a while: only when the pid still is the process that wrote its name there
(start time, boot), has this very file open, and serves the same cluster. A holder that cannot be seen from here
(another machine, another pid namespace) is never killed: the lock is then refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from actors.journal.port import JournalError, JournalLocked

LOCK_FILE = "journal.lock"
LOOK_AGAIN_S = 0.05
DEATH_TAKES_S = 5.0  # after SIGKILL a process may still have to let go of its memory
HOLDER_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lock, as it wrote itself down. ``start_time``: clock ticks since boot, as in /proc/<pid>/stat."""

    pid: int
    start_time: int
    boot_id: str
    cluster_id: str
    role: str
    data_dir: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.role}, cluster {self.cluster_id or 'not known yet'})"


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the lock sees it, in seconds."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class JournalLock:
    """A lock that this process holds. Make it with ``take_lock``."""

    def __init__(self, descriptor: int, path: Path, holder: Holder) -> None:
        self._descriptor = descriptor
        self._path = path
        self.holder = holder
        self._write()

    @property
    def directory(self) -> Path:
        """The directory that is locked."""
        return self._path.parent

    def name_cluster(self, cluster_id: str) -> None:
        """Say which cluster it is, once that is known."""
        self.holder = replace(self.holder, cluster_id=cluster_id)
        self._write()

    def release(self) -> None:
        """Let go. Twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self) -> None:
        content = json.dumps(asdict(self.holder)).encode() + b"\n"
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same; nobody can be told who has it
            os.pwrite(self._descriptor, content.ljust(os.fstat(self._descriptor).st_size, b" "), 0)


def take_lock(
    directory: Path,
    *,
    role: str,
    wait_s: float,
    kill_holder_after_s: float | None,
    say: Callable[[str], None],
    cluster_id: str = "",
    clock: Clock | None = None,
) -> JournalLock:
    """Lock a journal directory (made when absent), waiting up to ``wait_s`` for whoever holds it.

    ``kill_holder_after_s``: kill the holder once it was waited for that long; None: never. ``say`` gets a line for
    people at every turn of the wait. ``cluster_id``: the cluster that is expected here, empty when not known; a holder
    of another one is never killed. Raises ``JournalLocked`` that names the holder, ``JournalError`` when the directory
    cannot be used.
    """
    clock = clock or Clock()
    path = directory / LOCK_FILE
    descriptor = _open(path)
    try:
        _wait(
            descriptor,
            path,
            cluster_id,
            wait_s=wait_s,
            kill_holder_after_s=kill_holder_after_s,
            say=say,
            clock=clock,
        )
        me = Holder(os.getpid(), start_time(os.getpid()) or 0, _boot_id(), cluster_id, role, str(directory.resolve()))
        return JournalLock(descriptor, path, me)
    except BaseException:
        os.close(descriptor)
        raise


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise JournalError(f"the journal's directory {path.parent} cannot be used: {error.strerror}") from error


def _wait(
    descriptor: int,
    path: Path,
    cluster_id: str,
    *,
    wait_s: float,
    kill_holder_after_s: float | None,
    say: Callable[[str], None],
    clock: Clock,
) -> None:
    began = clock.monotonic()
    deadline = began + wait_s
    told: Holder | None = None
    killed: Holder | None = None
    while not _try(descriptor, path):
        holder = read_holder(path)
        waited = clock.monotonic() - began
        spared = ""
        if wait_s > 0 and holder is not None and holder != told:
            told = holder
            until = (
                "until it ends" if kill_holder_after_s is None else f"then ending it after {kill_holder_after_s:g} s"
            )
            say(f"{path.parent} is held by {holder}; waiting up to {wait_s:g} s, {until}")
        due = kill_holder_after_s is not None and waited >= kill_holder_after_s
        if due and holder is not None and holder != killed:
            spared = _kill(holder, path, cluster_id)
            if not spared:
                say(f"killed {holder}, which held {path.parent} for {waited:.1f} s longer than it should")
                killed = holder
                deadline = max(deadline, clock.monotonic() + DEATH_TAKES_S)
        if clock.monotonic() >= deadline:
            who = f"{holder or 'another process'}{spared}"
            raise JournalLocked(f"{path.parent} is held by {who}; waited {waited:.1f} s")
        clock.sleep(LOOK_AGAIN_S)


def _try(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise JournalError(f"{path} cannot be locked: {error.strerror}") from error
    return True


def read_holder(path: Path) -> Holder | None:
    """Who last wrote itself into a lock file (it may have let go since); None when that cannot be told."""
    try:
        content = path.read_bytes()[:HOLDER_BYTES_MAX]
        fields = json.loads(content)
        return Holder(
            int(fields["pid"]),
            int(fields["start_time"]),
            str(fields["boot_id"]),
            str(fields["cluster_id"]),
            str(fields["role"]),
            str(fields["data_dir"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _kill(holder: Holder, path: Path, cluster_id: str) -> str:
    """SIGKILL to the holder, if it surely is the one; else why it was left alone.

    A process that has only just taken the lock may not have written its name yet: the caller asks again until its
    deadline.
    """
    if cluster_id and holder.cluster_id and holder.cluster_id != cluster_id:
        return f", which is not cluster {cluster_id}: it is left alone"
    if holder.pid == os.getpid():
        return ", this very process"
    try:
        process = os.pidfd_open(holder.pid)  # from here on the pid cannot come to mean another process
    except OSError:
        return ", which cannot be seen from here: it is left alone"
    try:
        if not _is_holder(holder, path):
            return ", which cannot be seen from here: it is left alone"
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
    except PermissionError:
        return ", which this user may not end"
    finally:
        os.close(process)
    return ""


def _is_holder(holder: Holder, path: Path) -> bool:
    """Whether the process of that pid started when the holder did, in this boot, and has this lock file open."""
    if start_time(holder.pid) != holder.start_time or holder.boot_id != _boot_id():
        return False
    wanted = path.stat()
    try:
        descriptors = os.listdir(f"/proc/{holder.pid}/fd")
    except OSError:
        return False
    for name in descriptors:
        with contextlib.suppress(OSError):
            found = Path(f"/proc/{holder.pid}/fd/{name}").stat()
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    return False


def start_time(pid: int) -> int | None:
    """When a process started, clock ticks since boot (tells a reused pid from the one meant); None: no such one."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])  # field 22; the name in brackets may hold anything


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
