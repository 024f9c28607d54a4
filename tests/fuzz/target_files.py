"""Files that people hand in: a retailer's CSV (plain or gzipped), warehouse events as JSON lines, settings as TOML."""

from __future__ import annotations

import gzip
import json
import math
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from actors.runtime.settings import Settings, SettingsError, load_settings, parse_duration_ms, parse_size_bytes
from gateway.cli.client_commands import parse_line, parse_part
from gateway.cli.event_files import EventLine, read_event_lines
from gateway.trading import retail_plan
from gateway.trading.retail_file import COLUMNS, RetailFileError, read_retail_lines
from gateway.validation import id_problem
from tests.fuzz import nasty, requests
from tests.fuzz.registry import Random, target

FOLDER = Path(tempfile.mkdtemp(prefix="stockade-fuzz-"))


# --- a retailer's file ------------------------------------------------------------------------------------------------------


def make_csv(random: Random) -> bytes:
    """A few lines of the layout, some cells nasty; gzipped now and then."""
    nastiness = random.choice((0.0, 0.02, 0.2))
    rows = [",".join(COLUMNS)]
    for number in range(random.randrange(12)):
        cells = [
            random.choice((f"5{number}", f"C5{number}", f"A5{number}")), random.choice(("84406B", "22752", "POST", "gift_1")),
            "A LANTERN", str(random.choice((1, 6, -1, -6, 0))), random.choice(("2010-12-01 08:26", "2010-12-02 09:00")),
            random.choice(("2.55", "0", "")), random.choice(("17850", "17850.0", "")), random.choice(("United Kingdom", "France")),
        ]  # fmt: skip
        rows.append(",".join(f'"{nasty.text(random)}"' if random.random() < nastiness else cell for cell in cells))
    data = random.choice(("\n", "\r\n")).join(rows).encode()
    return gzip.compress(data, 1, mtime=0) if random.random() < 0.2 else data


@target(
    "retail-file",
    "a retailer's CSV, plain or gzipped: lines within bounds that make a plan, or what is wrong where",
    make_csv,
    nasty.spoiled,
)
def retail_file(data: bytes) -> None:
    """Read the file, and plan by what was read."""
    path = FOLDER / "orders.csv"
    path.write_bytes(data)
    lines = []
    try:
        for line in read_retail_lines(path, limit=200):
            assert not line.invoice or not id_problem(line.invoice)
            assert not line.sku or not id_problem(line.sku)
            assert abs(line.quantity) <= 10**9
            assert math.isfinite(line.price)
            assert 0 <= line.minute < 60 * 24 * 366 * 10_000
            lines.append(line)
    except RetailFileError as error:
        told = str(error)
    except OSError:
        return
    else:
        retail_plan.make_plan(lines, 1)
        return
    assert str(path) in told
    assert "line" in told
    assert len(told) < 500


# --- events -----------------------------------------------------------------------------------------------------------------


def make_events(random: Random) -> bytes:
    """Lines, each a WarehouseEvent more or less."""
    descriptor: Any = requests.METHODS["IngestEvents"].input_type.fields_by_name["events"].message_type
    lines = []
    for _ in range(random.randrange(1, 5)):
        try:
            said = json_format.MessageToDict(requests.filled(random, descriptor, random.choice((0.0, 0.1)), 0))
        except (ValueError, json_format.SerializeToJsonError):  # a time that cannot be said
            said = {"eventId": "e1"}
        if random.random() < 0.5 and said:
            said[random.choice(tuple(said))] = nasty.value(random, 2)
        lines.append(json.dumps(said, default=str, ensure_ascii=random.random() < 0.5).encode("utf-8", "replace"))
    return b"\n".join(lines)


@target(
    "event-lines",
    "JSON lines of warehouse events: events that can be sent, or the line and what is wrong",
    make_events,
    nasty.spoiled,
)
def event_lines(data: bytes) -> None:
    """Every line comes out once."""
    lines = data.splitlines(keepends=True)
    read = list(read_event_lines(lines, "wms", None))
    assert [one.number for one in read] == [number for number, line in enumerate(lines, 1) if line.strip()]
    for one in read:
        assert isinstance(one, EventLine)
        assert (one.event is None) == bool(one.problem)
        json.dumps({"event": one.text, "reason": one.problem}).encode()
        if one.event is not None:
            assert one.event.HasField("occur_time")
            assert one.event.source_id
            one.event.SerializeToString()


# --- settings ---------------------------------------------------------------------------------------------------------------


def make_settings(random: Random) -> bytes:
    """[TOML, environment, command line], each with a few settings."""
    toml = ""
    environment, overrides = {}, {}
    for name in random.sample(tuple(Settings.model_fields), random.randrange(6)):
        toml += f"{name} = {_toml(random, name)}\n"
    for name in random.sample(tuple(Settings.model_fields), random.randrange(4)):
        environment[f"STOCKADE_{name.upper()}"] = _said(random, name) if random.random() < 0.9 else random.choice(DEEP)
    for name in random.sample(tuple(Settings.model_fields), random.randrange(3)):
        overrides[name] = random.choice((_said(random, name), nasty.value(random, 1)))
    if random.random() < 0.2:
        toml += random.choice(
            (
                "[channels]\nweb = {}\n",
                "[warehouses.main]\nsources = { receipt = ['wms'] }\n",
                "[tls]\n",
                "[[credentials]]\nprincipal = 'a'\n",
            )
        )
    return nasty.pack([toml.encode("utf-8", "replace"), environment, overrides])


DEEP = (
    "[" * 50_000,
    '{"a":' * 50_000,
    "9" * 400,
    "9" * 400 + "d",
    "[1, 2]",
    '{"web": 1}',
    '{"web": {"may_impose": 3}}',
)


def _said(random: Random, name: str) -> str:
    plain = {"ms": ("15m", "1.5s", "500ms", "7d", "0"), "bytes": ("64 MiB", "1GiB", "100000000"), "port": ("0", "7450")}
    pool = (
        plain.get(name.rpartition("_")[2])
        or plain.get(name.rpartition("_")[0].rpartition("_")[2])
        or ("web,b2b", "1", "open", "info")
    )
    return random.choice(pool) if random.random() < 0.6 else nasty.text(random)


def _toml(random: Random, name: str) -> str:
    if random.random() < 0.5:
        return json.dumps(_said(random, name))
    return random.choice(
        ("1", "-1", "0", "true", "1.5", "nan", "inf", "[]", "{}", "[[]]", "'x'", "1979-05-27", "9" * 30, "[" * 300)
    )


@target(
    "settings",
    "settings from a file, the environment and the command line: usable ones, or an error that names them",
    make_settings,
    nasty.spoiled,
)
def settings(data: bytes) -> None:
    """Load them; what is accepted can be used and shown."""
    parts = nasty.unpack(data)
    if not (isinstance(parts, list) and len(parts) == 3 and isinstance(parts[0], bytes)):
        parts = [data, {}, {}]
    environment = parts[1] if isinstance(parts[1], dict) else {}
    environment = {str(key): str(value).replace("\0", "") for key, value in environment.items()}  # as a system has them
    overrides = {str(key): value for key, value in parts[2].items()} if isinstance(parts[2], dict) else {}
    (FOLDER / "stockade.toml").write_bytes(parts[0])
    try:
        loaded = load_settings(None, overrides, environment, FOLDER)
    except SettingsError:
        return
    json.dumps([[one.name, one.value, one.origin] for one in loaded.effective()]).encode()
    given = loaded.settings
    given.rules()
    for name in Settings.model_fields:
        if name.endswith(("_ms", "_ms_min", "_ms_max", "_bytes")):
            assert 0 <= getattr(given, name) < 2**61, name
    latest_ms = 4_102_444_800_000 + given.lifetime_ms_max + given.dedupe_window_ms + given.retention_ms
    datetime.fromtimestamp(min(latest_ms, 253_402_300_799_000) / 1000).isoformat()  # noqa: DTZ006


def make_words(random: Random) -> bytes:
    """What is written for a duration, a size, a line or a part of one."""
    pool = ("15m", "1.5h", "64 MiB", "A@main=3", "1:A@main=3", "0=2", "@=", "=", ":", "A@main=-3")
    text = (
        random.choice(pool)
        if random.random() < 0.6
        else nasty.text(random) + random.choice(("", "ms", " GiB", "@main=1", "=1"))
    )
    return text.encode("utf-8", "replace")


@target(
    "words",
    "durations, sizes, lines of an order as people write them: a number within bounds, or ValueError",
    make_words,
    nasty.spoiled,
)
def words(data: bytes) -> None:
    """Every parser on the same text."""
    text = data.decode("utf-8", "replace")
    for parse in (parse_duration_ms, parse_size_bytes):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert type(value) is int
        assert value >= 0
    try:
        line = parse_line(text)
        assert line.sku and line.warehouse_id
        assert abs(line.quantity) < 2**63
    except ValueError:
        pass
    try:
        line_id, quantity = parse_part(text)
        assert line_id
        assert 0 <= quantity < 2**63
    except ValueError:
        pass
