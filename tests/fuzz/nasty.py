"""Values that break things, drawn by a seed, and ways to spoil bytes and plain values (lists, texts, numbers).

It knows no edge: what a field means is ``tests.fuzz.requests``' and the targets' business.
"""

from __future__ import annotations

from typing import Any

import msgpack

from tests.fuzz.registry import Random

NUMBERS = (
    0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 1000, 1001, 2000, 2001, 65_535, 65_536, 10**9, 10**9 + 1, 10**15, 10**15 + 1,
    2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 253_402_300_799, 315_576_000_001,
)  # fmt: skip
TEXTS = (
    "", " ", "a", "0", "-1", " a", "a ", "\x00", "a\x00b", "\x1f", "a\x1fb", "\x7f", "\x85", "\xa0a", "\u2003", "a\nb", "\r",
    "\ufeff", "\u202e", "\u0000", "é", "e\u0301", "日本語", "😀", "👩‍👩‍👧", "\uffff", "\U0010ffff", "a" * 127, "a" * 128,
    "a" * 129, "é" * 64, "é" * 65, "😀" * 33, "x" * 5_000, "1-t1-0-1", "x-t1-0-1", "1-t1-99-1", "1--0-1", "1-t1-0-01",
    "1-t1-0-999999999999999999", "1-t1-٣-1", "²", "٣", "nan", "inf", "1e999", "1_000", "%s", "{}", "../..", "~nobody-here",
    "null", "[]", '{"a":1}', "<a>", "[bold]", "[/]", "'", '"', "\\", "*", "main", "web", "wms", "US",
)  # fmt: skip
TOKENS = (
    b"\x00", b"\xff", b"\xff\xff\xff\xff", b"\x80", b"\xc3\x28", b"\xed\xa0\x80", b"\n", b"\r\n", b"\r", b",", b'"', b"[", b"]",
    b"{", b"}", b"=", b"1e999", b"-", b"9" * 40, b"9" * 5_000, b"[" * 2_000, b'{"a":' * 500, b"\\u0000", b"\\ud800", b"nan",
    b"0x10", b"_", b"\x1f\x8b", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x90",
    b"\xc0", b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", b"\xe2\x80\xae",
)  # fmt: skip


def number(random: Random) -> int:
    """A number at or beside a bound."""
    chosen = random.choice(NUMBERS) + random.choice((0, 0, 0, 1, -1))
    return max(-(2**63), min(chosen, 2**63 - 1))


def text(random: Random) -> str:
    """A text that some code stumbles over."""
    if random.random() < 0.15:
        return random.choice(TEXTS) + random.choice(TEXTS)
    return random.choice(TEXTS)


def value(random: Random, depth: int = 3) -> Any:
    """Anything that msgpack can say."""
    kind = random.randrange(9 if depth else 7)
    if kind < 2:
        return number(random)
    if kind < 4:
        return text(random)
    if kind == 4:
        return random.choice((None, True, False, 0.5, -0.0, float("nan"), float("inf")))
    if kind == 5:
        return random.randbytes(random.choice((0, 1, 16, 40)))
    if kind == 6:
        return random.choice((2**64 - 1, [], {}, b"", ""))
    if kind == 7:
        return [value(random, depth - 1) for _ in range(random.randrange(4))]
    return {random.choice((text(random), number(random))): value(random, depth - 1) for _ in range(random.randrange(3))}


def spoiled_value(random: Random, given: Any) -> Any:
    """The value with one part of it replaced, dropped, doubled, or of another type."""
    if isinstance(given, list | tuple) and given and random.random() < 0.85:
        parts = list(given)
        at = random.randrange(len(parts))
        how = random.random()
        if how < 0.7:
            parts[at] = spoiled_value(random, parts[at])
        elif how < 0.8:
            del parts[at]
        elif how < 0.9:
            parts.insert(at, parts[random.randrange(len(parts))])
        else:
            parts.append(value(random, 1))
        return parts
    if isinstance(given, int) and not isinstance(given, bool) and random.random() < 0.6:
        return random.choice(
            (number(random), min(given + 1, 2**64 - 1), max(given - 1, -(2**63)), max(-given, -(2**63)))
        )
    if isinstance(given, str) and random.random() < 0.6:
        return text(random)
    return value(random)


def spoiled(random: Random, data: bytes) -> bytes:
    """Bytes with a few of them flipped, cut, doubled, moved, or replaced by bytes that parsers dislike."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        at = random.randrange(len(out) + 1)
        end = min(len(out), at + random.choice((1, 2, 4, 16, 64)))
        how = random.randrange(8)
        if how == 0 and at < len(out):
            out[at] ^= 1 << random.randrange(8)
        elif how == 1 and at < len(out):
            out[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
        elif how == 2:
            del out[at:end]
        elif how == 3:
            out[at:at] = random.choice(TOKENS)
        elif how == 4:
            out[at:end] = random.choice(TOKENS)
        elif how == 5:
            out[at:at] = out[at:end] * random.choice((1, 2, 50))
        elif how == 6:
            del out[at:]
        else:
            other = random.randrange(len(out) + 1)
            out[other:other] = out[at:end]
    return bytes(out)


def pack(value_: Any) -> bytes:
    """A container of an input's parts."""
    packed: bytes = msgpack.packb(value_, use_bin_type=True)
    return packed


def unpack(data: bytes) -> Any:
    """The parts of a container, or None when the bytes are none (a spoiled one: the target then has nothing to feed)."""
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False, unicode_errors="replace")
    except (ValueError, TypeError, msgpack.UnpackException):
        return None
