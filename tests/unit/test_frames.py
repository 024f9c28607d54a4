"""Frames come out as they went in, however the bytes are cut; what is no frame is refused with a reason."""

from __future__ import annotations

import contextlib
import struct

import google_crc32c
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.shard import frames
from actors.shard.frames import FrameDecoder, FrameError
from actors.shard.messages import FrameKind

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)
MESSAGES = st.lists(VALUES, min_size=1, max_size=6).map(lambda rest: [int(FrameKind.REQUEST), *rest])


def raw(payload: bytes, *, version: int = frames.FRAME_VERSION, checksum: int | None = None) -> bytes:
    """A frame around any payload, its length right."""
    crc = google_crc32c.value(payload) if checksum is None else checksum
    return struct.pack(">IBI", len(payload) + 5, version, crc) + payload


def decoded(data: bytes) -> list:
    return list(FrameDecoder().feed(data))


@given(st.lists(MESSAGES, max_size=5), st.data())
def test_messages_come_out_as_they_went_in_however_the_bytes_are_cut(messages, data):
    stream = b"".join(frames.encode(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    decoder = FrameDecoder()
    out = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        out += decoder.feed(stream[start:end])
    assert out == messages


@given(st.binary(max_size=200))
def test_garbage_gives_messages_or_a_frame_error_and_nothing_else(data):
    with contextlib.suppress(FrameError):
        decoded(data)


@given(st.binary(min_size=1, max_size=100))
def test_any_payload_with_a_right_checksum_gives_a_message_or_a_frame_error(payload):
    try:
        [message] = decoded(raw(payload))
    except FrameError:
        return
    assert isinstance(message[0], int)


@given(MESSAGES, st.data())
def test_a_flipped_bit_behind_the_length_is_always_found(message, data):
    frame = bytearray(frames.encode(message))
    bit = data.draw(st.integers(32, len(frame) * 8 - 1))
    frame[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(FrameError):
        decoded(bytes(frame))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (struct.pack(">I", 0), "0 bytes"),
        (struct.pack(">I", 5) + b"12345", "5 bytes"),  # a head and nothing in it
        (struct.pack(">I", frames.REPLY_BYTES_MAX + 1), "cannot be"),  # before anything of it came
        (struct.pack(">I", 2**32 - 1), "cannot be"),
        (b"GET / HTTP/1.1\r\n\r\n", "cannot be"),
        (raw(msgpack.packb([4, 1]), version=2), "version 2"),
        (raw(msgpack.packb([4, 1]), checksum=0), "checksum"),
        (raw(b"\xc1"), "msgpack"),
        (raw(msgpack.packb([4, 1]) + b"\x01"), "msgpack"),  # bytes left over
        (raw(msgpack.packb({"a": 1})), "array"),
        (raw(msgpack.packb([4])), "array"),
        (raw(msgpack.packb(["4", 1])), "array"),
        (raw(b"\x92\x04\xa1\xff"), "msgpack"),  # not UTF-8
        (raw(b"\xdd\xff\xff\xff\xff"), "msgpack"),  # an array of 2³² elements, it says
        (raw(b"\x91" * 5_000 + b"\x01"), "msgpack"),  # nested without end
        (raw(b"\x81\x80\x00"), "msgpack"),  # a map that is the key of a map: found by hypothesis
        (raw(b"\x92\x04\x81\x90\x00"), "msgpack"),  # an array that is
    ],
)
def test_what_is_no_frame_is_refused_with_a_reason(data, reason):
    with pytest.raises(FrameError, match=reason):
        decoded(data)


def test_messages_before_a_bad_frame_still_come_out():
    decoder = FrameDecoder()
    feed = decoder.feed(frames.encode([4, "good"]) + b"\xff\xff\xff\xff")
    assert next(feed) == [4, "good"]
    with pytest.raises(FrameError):
        next(feed)


def test_a_message_over_the_bound_is_not_encoded():
    largest = frames.FRAME_BYTES_MAX - 100
    assert len(frames.encode([4, b"x" * largest])) <= frames.FRAME_BYTES_MAX + 4
    with pytest.raises(FrameError, match="over the bound"):
        frames.encode([4, b"x" * frames.FRAME_BYTES_MAX])


def test_a_decoder_with_a_smaller_bound_refuses_at_the_length():
    decoder = FrameDecoder(100)
    assert list(decoder.feed(frames.encode([4, "x" * 50]))) == [[4, "x" * 50]]
    with pytest.raises(FrameError, match="cannot be"):
        list(decoder.feed(frames.encode([4, "x" * 100])[:4]))


def test_requests_and_replies_have_their_shapes():
    assert decoded(frames.encode_request(7, [[1, 2, 0, 1, [], []]])) == [[4, 7, [[1, 2, 0, 1, [], []]]]]
    assert decoded(frames.encode_reply(7, 1_000, [(0, False, ("id", 1))])) == [[5, 7, 1_000, [[0, False, ["id", 1]]]]]


# --- hello and welcome ------------------------------------------------------------------------------------------------


def said(**changes: str) -> list:
    hello = {"cluster_id": "c", "timeline": "t", "token": "secret", "peer_name": "gateway-1"} | changes
    [message] = decoded(frames.hello(**hello))
    return message


def test_a_hello_that_fits_is_believed():
    hello = frames.read_hello(said(), cluster_id="c", token="secret")
    assert (hello.cluster_id, hello.timeline, hello.peer_name) == ("c", "t", "gateway-1")


def test_a_hello_of_a_later_version_may_say_more():
    assert frames.read_hello([*said(), "new"], cluster_id="c", token="secret").peer_name == "gateway-1"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (said(token="other"), "token"),
        (said(token=""), "token"),
        (said(token="secret\N{LATIN SMALL LETTER E WITH ACUTE}"), "token"),
        ([*said()[:5], 7, "peer"], "token"),
        ([*said()[:5], None, "peer"], "token"),
        (said(cluster_id="another"), "cluster"),
        ([1, 3, 4, *said()[3:]], "protocols 1 to 2"),
        ([1, "1", "1", *said()[3:]], "numbers"),
        ([4, *said()[1:]], "hello"),
        ([1, 1], "hello"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused_with_the_reason(message, reason):
    with pytest.raises(FrameError, match=reason):
        frames.read_hello(message, cluster_id="c", token="secret")


def test_a_wrong_token_learns_nothing_of_the_cluster():
    with pytest.raises(FrameError) as refused:
        frames.read_hello(said(token="other", cluster_id="another"), cluster_id="c", token="secret")
    assert "c," not in str(refused.value)


def test_a_welcome_says_who_answers_for_what():
    [message] = decoded(
        frames.welcome(cluster_id="c", timeline="t", host_id="h", host_time_ms=5, shards=[0, 1], epochs=[3, 4])
    )
    welcome = frames.read_welcome(message)
    assert (welcome.host_id, welcome.shards, welcome.epochs, welcome.host_time_ms) == ("h", [0, 1], [3, 4], 5)


def test_a_goodbye_instead_of_a_welcome_gives_its_reason():
    [message] = decoded(frames.goodbye("the host stops"))
    with pytest.raises(FrameError, match="the host stops"):
        frames.read_welcome(message)
    with pytest.raises(FrameError, match="no welcome"):
        frames.read_welcome([5, 1])


@pytest.mark.parametrize(
    "welcome",
    [
        [2, 1, "c", "t", "h", "now", [0], [1]],
        [2, 1, "c", "t", 7, 5, [0], [1]],
        [2, 1, "c", "t", "h", 5, 9, [1]],
        [2, 1, "c", "t", "h", 5, ["0"], [1]],
        [2, 1, "c", "t", "h", 5, [0], [None]],
    ],
)
def test_a_welcome_of_other_types_is_none(welcome):
    with pytest.raises(FrameError, match="welcome"):
        frames.read_welcome(welcome)


@pytest.mark.parametrize(
    "message",
    [
        [5, 1],
        [5, "1", 5, []],
        [5, 1, None, []],
        [5, 1, 5, 7],
        [5, 1, 5, [7]],
        [5, 1, 5, [[0]]],
        [5, 1, 5, [[9, False, None]]],
        [5, 1, 5, [[[], False, None]]],
        [5, 1, 5, [[2, 11, "no hint"]]],
        [5, 1, 5, [[2, "11", "", 0]]],
    ],
)
def test_a_reply_frame_that_is_not_whole_is_refused(message):
    with pytest.raises(FrameError, match=r"reply|error"):
        frames.check_reply(message)


def test_a_whole_reply_frame_passes():
    frames.check_reply(
        [5, 1, 5, [[0, False, None], [1, True, [1, [], 0, 0, []]], [2, 11, "", 0], [2, 5, "", 100, "unknown"]]]
    )
