"""Journal bytes: golden for ever, checksums over every column, and hostile payloads that cost nothing."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.journal.codec import (
    PAYLOAD_BYTES_MAX,
    decode_groups,
    encode_groups,
    entry_checksum,
    record_checksum,
    slice_checksum,
    snapshot_checksum,
)
from actors.journal.port import EntryRow, Record, Snapshot, SnapshotSlice

GOLDEN = json.loads((Path(__file__).parent / "golden" / "journal_format_1.json").read_text(encoding="utf-8"))

GROUPS = [
    [
        [1, "web", "0192f0c1-1111-7000-8000-000000000001", "shop", "trace-1", ""],
        [
            [20, "\x1fmain\x1fSKU-1", "1-9f3a-7-1", "a", 2, 0, 1, 0, 0, False, "web", "O-1"],
            [30, "1-9f3a-7-1", 1, "web", "0192f0c1-1111-7000-8000-000000000001", bytes(range(16)), 1, 1_700_000_060_000,
             [["a", "\x1fmain\x1fSKU-1", 2, 2]], "O-1", "", "", [["cart", "größe XL"]]],
        ],
    ],
    [[101, "", ""], [[41, "e\x1fwms\x1f4711"]]],
]  # fmt: skip
RECORD = Record(7, 3, 2, 40, 3, 1_700_000_000_000, encode_groups(GROUPS))
ENTRY = EntryRow("c\x1fweb\x1fr-1", 7, "1-9f3a-7-1", b"\x01\x02", 1_700_000_000_001)
SLICE = SnapshotSlice(7, 42, 1, 43, 5, b"entities")
SNAPSHOT = Snapshot(7, 42, 2, 42, 43, 4, 1_700_000_000_002, 2)


def test_a_payload_is_written_as_it_always_was() -> None:
    assert RECORD.payload.hex() == GOLDEN["payload"]
    assert decode_groups(bytes.fromhex(GOLDEN["payload"])) == GROUPS


def test_checksums_are_made_as_they_always_were() -> None:
    made = {
        "record": record_checksum(RECORD),
        "entry": entry_checksum(ENTRY),
        "slice": slice_checksum(SLICE),
        "snapshot": snapshot_checksum(SNAPSHOT),
    }
    assert made == GOLDEN["checksums"]


@pytest.mark.parametrize(
    ("checksum", "row"),
    [(record_checksum, RECORD), (entry_checksum, ENTRY), (slice_checksum, SLICE), (snapshot_checksum, SNAPSHOT)],
)
def test_a_checksum_covers_every_column(checksum: Any, row: Any) -> None:
    whole = checksum(row)
    for name, value in row._asdict().items():
        other = value + 1 if isinstance(value, int) else value + (b"x" if isinstance(value, bytes) else "x")
        assert checksum(row._replace(**{name: other})) != whole, name


def test_text_moved_from_one_column_to_the_next_changes_the_checksum() -> None:
    assert entry_checksum(ENTRY._replace(key="ab", reservation_id="c")) != entry_checksum(
        ENTRY._replace(key="a", reservation_id="bc")
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x91",
        b"\x93\x01",
        b"\x90\x90",
        b"\x01",
        b"\xa1\xff",
        b"\x81\x01\x02",
        b"\xc7\x01\x05\x00",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 5_000,
        (b"\xdd\x00\x0f\x00\x00" * 500) + b"\x00",
        bytes(PAYLOAD_BYTES_MAX + 1),
    ],
    ids=range(15),
)
def test_bytes_that_are_no_payload_are_refused_without_eating_memory(payload: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            decode_groups(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024 * 1024


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=30,
)


@given(st.lists(PLAIN, max_size=5))
def test_what_was_encoded_is_decoded(groups: list[Any]) -> None:
    assert decode_groups(encode_groups(groups)) == groups


@given(st.binary(max_size=300))
def test_any_bytes_are_groups_or_a_value_error(payload: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(decode_groups(payload), list)
