"""Which journals this version may read, and what a journal asks of its readers once this version has written to it.

A journal's header names the reader it needs. An upgraded writer raises it before it writes anything that its predecessor cannot
read, so an old version is refused by name instead of taking new records for damage. There is no way back but a backup.
"""

from __future__ import annotations

from actors.journal.port import Header, JournalMismatch

READER_VERSION = 2  # 2: runs of warehouse events, errands between shards, operations of orders over hosts
MINIMUM_READER_VERSION = 2  # what is written now needs it


def check_reader(header: Header, where: object) -> None:
    """Raise ``JournalMismatch`` when this version must not read the journal."""
    if header.minimum_reader_version > READER_VERSION:
        raise JournalMismatch(
            f"{where} needs a reader of format {header.minimum_reader_version}; this version reads up to "
            f"{READER_VERSION}: install the release that wrote it, or a later one"
        )
