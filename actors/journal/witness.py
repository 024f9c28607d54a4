"""The witness: a small file beside the journal that remembers how far the journal had come.

A journal file that is behind its witness is an old copy put back: it would grant again what was granted already. It is
refused; ``stockade restore`` is the way, which makes a new timeline. A whole directory put back with its witness cannot
be found out. The witness is written after what it tells of is durable, so it is never ahead of a sound journal.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c

from actors.journal.disk import write_durably
from actors.journal.port import Header, JournalDamaged, ShardHead

WITNESS_FILE = "witness.json"
WITNESS_EVERY_S = 1.0
WITNESS_VERSION = 1


@dataclass(frozen=True, slots=True)
class Witness:
    """What was durable when it was written. ``heads``: shard → (epoch, record number)."""

    cluster_id: str
    timeline: str
    heads: dict[int, tuple[int, int]]
    server: str = ""  # of a database: its system identifier and its timeline, "7412345678901234567/1"


class WitnessFile:
    """The witness of one journal directory. ``monotonic`` gives seconds."""

    def __init__(self, directory: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = directory / WITNESS_FILE
        self._monotonic = monotonic
        self._due = monotonic() + WITNESS_EVERY_S
        self._written: Witness | None = None

    def is_due(self) -> bool:
        """Whether the last writing was long enough ago."""
        return self._monotonic() >= self._due

    def write(self, header: Header, heads: Sequence[ShardHead], server: str = "") -> None:
        """Remember these heads, all of them durable. A disk that refuses leaves the older witness, which stays true."""
        self._due = self._monotonic() + WITNESS_EVERY_S
        witness = Witness(
            header.cluster_id, header.timeline, {head.shard: (head.epoch, head.record_number) for head in heads}, server
        )
        if witness == self._written:
            return
        with contextlib.suppress(OSError):
            write_durably(self._path, _encoded(witness))
            self._written = witness

    def name(self, cluster_id: str, timeline: str) -> None:
        """Remember only which journal belongs here, nothing of how far it had come. Raises OSError."""
        write_durably(self._path, _encoded(Witness(cluster_id, timeline, {})))

    def read(self) -> Witness | None:
        """The witness, None when there is none. ``JournalDamaged`` when it cannot be understood."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise JournalDamaged(f"the witness {self._path} cannot be read: {error.strerror}") from error
        try:
            document = json.loads(content)
            body = document["witness"]
            if document["crc32c"] != _checksum(body):
                raise ValueError("its CRC is wrong")
            heads = {int(shard): (int(epoch), int(number)) for shard, epoch, number in body["heads"]}
            return Witness(body["cluster_id"], body["timeline"], heads, body.get("server", ""))
        except (ValueError, KeyError, TypeError) as error:
            raise JournalDamaged(
                f"the witness {self._path} is damaged ({error}); when the journal beside it is known to be the newest "
                f"one, "
                "remove the witness and start again"
            ) from error


def compare(witness: Witness, header: Header, heads: Sequence[ShardHead], where: str) -> None:
    """Raise ``JournalDamaged`` when the journal is not the witness's, or is behind it."""
    advice = "was an old copy put back? use `stockade restore`, which makes a new timeline"
    if (witness.cluster_id, witness.timeline) != (header.cluster_id, header.timeline):
        raise JournalDamaged(
            f"{where} is of cluster {header.cluster_id}, timeline {header.timeline}; its witness knows cluster "
            f"{witness.cluster_id}, timeline {witness.timeline}: {advice}"
        )
    stored = {head.shard: (head.epoch, head.record_number) for head in heads}
    for shard, (epoch, number) in sorted(witness.heads.items()):
        stored_epoch, stored_number = stored.get(shard, (-1, -1))
        if stored_number < number or stored_epoch < epoch:
            raise JournalDamaged(
                f"{where} is behind its witness: shard {shard} stands at record {stored_number}, epoch {stored_epoch}; "
                f"the "
                f"witness has seen record {number}, epoch {epoch}: {advice}"
            )


def _encoded(witness: Witness) -> bytes:
    body = {
        "version": WITNESS_VERSION,
        "cluster_id": witness.cluster_id,
        "timeline": witness.timeline,
        "heads": [[shard, epoch, number] for shard, (epoch, number) in sorted(witness.heads.items())],
        **({"server": witness.server} if witness.server else {}),
    }
    return json.dumps({"witness": body, "crc32c": _checksum(body)}).encode() + b"\n"


def _checksum(body: dict[str, Any]) -> int:
    checksum: int = google_crc32c.value(json.dumps(body, sort_keys=True).encode())
    return checksum
