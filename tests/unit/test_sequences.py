"""Watermark and intervals of a stream, against a plain set."""

from __future__ import annotations

import random

import pytest

from actors.domain.sequences import Sequences, decode_sequences, encode_sequences


@pytest.mark.parametrize("draw_seed", range(30))
def test_it_is_a_set_of_numbers(draw_seed):
    draw = random.Random(draw_seed)
    known: set[int] = set()
    sequences = Sequences()
    for time_ms in range(1, 200):
        number = draw.randint(1, 60)
        assert sequences.has(number) == (number in known)
        before = sequences.watermark
        expected = sequences.watermark_with(number)
        assert sequences.add(number, time_ms) == (sequences.watermark != before)
        assert sequences.watermark == expected
        known.add(number)
        watermark = next(one for one in range(1, 100) if one not in known) - 1
        assert sequences.watermark == watermark
        assert sequences.highest == max(known)
        missing = [one for first, last in sequences.missing(100) for one in range(first, last + 1)]
        assert missing == [one for one in range(1, max(known)) if one not in known]
        assert sequences.since == sorted(sequences.since)
        if draw.random() < 0.1:
            sequences = decode_sequences(*encode_sequences(sequences))


def test_a_hole_is_as_old_as_the_news_of_it():
    sequences = Sequences()
    sequences.add(1, 10)
    assert sequences.missing_since_ms() == 0
    sequences.add(5, 20)
    sequences.add(9, 30)
    sequences.add(3, 40)
    assert (sequences.missing_since_ms(), sequences.since) == (20, [20, 20, 30])
    sequences.add(2, 50)
    sequences.add(4, 60)
    assert (sequences.watermark, sequences.missing_since_ms()) == (5, 30)
    assert sequences.missing_up_to(30) == 8
    assert sequences.missing_up_to(29) == 5


def test_what_the_source_says_it_gave_out_is_missing_from_then_on():
    sequences = Sequences()
    sequences.add(1, 10)
    sequences.tell(1, 15)
    sequences.add(4, 20)
    assert sequences.since == [20]
    sequences.tell(7, 30)
    assert sequences.missing(9) == [(2, 3), (5, 7)]
    assert (sequences.missing_up_to(20), sequences.missing_up_to(30)) == (3, 7)
    sequences.add(6, 40)
    assert sequences.since == [20, 30]
    sequences.close(7)
    assert (sequences.watermark, sequences.missing(9), sequences.missing_since_ms()) == (7, [], 0)


def test_giving_up_takes_what_was_received_above_with_it():
    sequences = Sequences()
    for number in (3, 4, 8):
        sequences.add(number, 1)
    sequences.close(2)
    assert (sequences.watermark, sequences.starts) == (4, [8])
