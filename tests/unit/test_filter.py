"""The filter never says "not stored" of what is, seldom "maybe" of what is not, and forgets what left the window."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.shard.filter import BITS_PER_KEY, FIRST_LAYER_KEYS, EntryFilter


@given(st.lists(st.text(max_size=40), max_size=200))
def test_what_was_added_is_always_maybe_stored(keys):
    entries = EntryFilter(keys)
    assert all(key in entries for key in keys)


def test_an_empty_filter_knows_that_nothing_is_stored():
    entries = EntryFilter()
    assert "anything" not in entries
    assert (entries.count, entries.size_bytes) == (0, 0)


def test_full_layers_answer_a_false_maybe_about_three_times_in_a_hundred_each():
    entries = EntryFilter()
    for layers in (1, 2, 3):
        while entries.count < FIRST_LAYER_KEYS * (2**layers - 1):
            entries.add(f"c\x1fweb\x1f{entries.count}")
        strangers = 20_000
        wrong = sum(f"c\x1fedi\x1f{number}" in entries for number in range(strangers))
        assert wrong / strangers < 0.035 * layers
        assert entries.size_bytes == entries.count * BITS_PER_KEY // 8


def test_nothing_is_lost_where_a_layer_ends():
    keys = [f"k{number}" for number in range(FIRST_LAYER_KEYS + 100)]
    entries = EntryFilter(keys)
    assert all(key in entries for key in keys[-200:])


def test_layers_are_forgotten_a_window_after_they_were_full():
    entries = EntryFilter(f"old{number}" for number in range(FIRST_LAYER_KEYS))
    entries.add("new")
    entries.forget(now_ms=1_000, window_ms=500)
    assert "old0" in entries
    entries.forget(now_ms=1_500, window_ms=500)
    assert "old0" in entries
    entries.forget(now_ms=1_501, window_ms=500)
    assert "old0" not in entries
    assert "new" in entries
    assert entries.count == 1


def test_the_layer_that_is_being_filled_is_never_forgotten():
    entries = EntryFilter(["only"])
    for now_ms in (1_000, 10_000):
        entries.forget(now_ms=now_ms, window_ms=1)
    assert "only" in entries


def test_memory_stays_bounded_when_ids_come_for_ever():
    entries = EntryFilter()
    sizes = []
    for hour in range(24):
        for number in range(FIRST_LAYER_KEYS // 2):
            entries.add(f"{hour}/{number}")
        entries.forget(now_ms=hour, window_ms=2)
        sizes.append(entries.size_bytes)
    assert max(sizes[12:]) <= max(sizes[:12])
