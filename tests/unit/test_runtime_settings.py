"""Settings: precedence, origins, units, and errors that name the field, where it came from and the fix."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from actors.domain.outcomes import Door, Fact
from actors.runtime.settings import SettingsError, load_settings
from gateway.cli import options


def write_config(directory: Path, text: str) -> Path:
    path = directory / "stockade.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_any_source_the_defaults_serve_on_loopback(tmp_path: Path) -> None:
    loaded = load_settings(environment={}, working_dir=tmp_path)
    assert loaded.config_file is None
    assert set(loaded.settings.channels) == {"web", "b2b", "marketplace", "edi", "call-center"}
    assert set(loaded.settings.warehouses) == {"main", "overflow"}
    assert (loaded.settings.grpc_host, loaded.settings.http_host) == ("127.0.0.1", "127.0.0.1")
    assert {value.origin for value in loaded.effective()} == {"default"}


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = write_config(tmp_path, "gateways = 3\ngrpc_port = 1000\nhttp_port = 1001\n")
    environment = {"STOCKADE_GRPC_PORT": "2000", "STOCKADE_HTTP_PORT": "2001"}
    loaded = load_settings(
        overrides={"http_port": 3001, "shard_count": None}, environment=environment, working_dir=tmp_path
    )
    values = {value.name: (value.value, value.origin) for value in loaded.effective()}
    assert values["gateways"] == (3, f"{path}:1")
    assert values["grpc_port"] == (2000, "environment STOCKADE_GRPC_PORT")
    assert values["http_port"] == (3001, "command line")
    assert values["shard_count"] == (64, "default")


def test_the_file_is_found_by_argument_by_variable_and_in_the_working_directory(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = write_config(elsewhere, "gateways = 5\n")
    assert load_settings(config=path, environment={}).settings.gateways == 5
    assert load_settings(environment={"STOCKADE_CONFIG": str(path)}).settings.gateways == 5
    assert load_settings(environment={}, working_dir=elsewhere).settings.gateways == 5


def test_a_relative_data_directory_in_a_file_is_relative_to_the_file(tmp_path: Path) -> None:
    path = write_config(tmp_path, 'data_dir = "data"\n')
    assert load_settings(config=path, environment={}).settings.data_dir == tmp_path / "data"


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("1500", 1500), ("500ms", 500), ("90s", 90_000), ("15m", 900_000), ("24 h", 86_400_000), ("7d", 604_800_000)],
)
def test_durations_carry_their_unit(text: str, milliseconds: int) -> None:
    environment = {"STOCKADE_LEFTOVER_PATIENCE_MS": text}
    assert load_settings(environment=environment).settings.leftover_patience_ms == milliseconds


def test_sizes_carry_their_unit() -> None:
    assert load_settings(environment={"STOCKADE_DISK_FLOOR_BYTES": "2 GiB"}).settings.disk_floor_bytes == 2 * 1024**3


def test_channels_may_be_tables_a_list_or_names_with_commas(tmp_path: Path) -> None:
    path = write_config(tmp_path, "[channels.web]\n[channels.edi]\nmay_impose = true\n")
    channels = load_settings(config=path, environment={}).settings.channels
    assert [(name, channel.may_impose) for name, channel in channels.items()] == [("web", False), ("edi", True)]
    assert set(load_settings(environment={"STOCKADE_CHANNELS": "a, b"}).settings.channels) == {"a", "b"}
    assert set(load_settings(environment={"STOCKADE_CHANNELS": '["a", "b"]'}).settings.channels) == {"a", "b"}


def test_warehouses_name_their_door_and_who_may_tell_which_fact(tmp_path: Path) -> None:
    text = '[warehouses.north]\nfulfilment_door = "order_management"\n[warehouses.north.sources]\nreceipt = ["wms-1"]\n'
    settings = load_settings(config=write_config(tmp_path, text), environment={}).settings
    warehouse = settings.warehouses["north"]
    assert warehouse.door is Door.ORDER_MANAGEMENT
    assert warehouse.sources_by_fact == {Fact.RECEIPT: frozenset({"wms-1"})}
    assert settings.rules().doors == {"north": Door.ORDER_MANAGEMENT}


@pytest.mark.parametrize(
    ("environment", "overrides", "expected"),
    [
        ({"STOCKADE_GRPC_PORT": "http"}, {}, ["grpc_port", "environment STOCKADE_GRPC_PORT", "integer"]),
        ({"STOCKADE_GRPC_PORT": "70000"}, {}, ["grpc_port", "65535"]),
        ({}, {"grpc_prot": 1}, ["grpc_prot", "command line", "did you mean grpc_port?"]),
        ({"STOCKADE_TTL_DEFAULT_MS": "soon"}, {}, ["ttl_default_ms", "is not a duration", '"15m"']),
        ({"STOCKADE_TTL_DEFAULT_MS": "2d"}, {}, ["ttl_ms_min ≤ ttl_default_ms ≤ ttl_ms_max"]),
        ({"STOCKADE_CREDENTIALS": "{{"}, {}, ["credentials", "not valid JSON"]),
        (
            {"STOCKADE_WAREHOUSES": '{"w": {"sources": {"gift": []}}}'},
            {},
            ["warehouses.w", "unknown fact 'gift'", "receipt"],
        ),
        ({"STOCKADE_CHANNELS": '{"": {}}'}, {}, ["channels"]),
        ({"STOCKADE_CONFIG": "absent.toml"}, {}, ["absent.toml", "STOCKADE_CONFIG", "No such file"]),
        ({"STOCKADE_RAY_OBJECT_STORE_BYTES": "1 MiB"}, {}, ["ray_object_store_bytes", "78643200"]),
    ],
)
def test_an_error_names_the_field_its_source_and_what_would_be_right(
    environment: dict[str, str], overrides: dict[str, Any], expected: list[str]
) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(overrides=overrides, environment=environment)
    for part in expected:
        assert part in str(raised.value)


def test_every_fault_is_reported_at_once() -> None:
    environment = {"STOCKADE_GRPC_PORT": "x", "STOCKADE_GATEWAYS": "0"}
    with pytest.raises(SettingsError) as raised:
        load_settings(environment=environment)
    assert len(str(raised.value).splitlines()) == 2


def test_a_variable_nobody_knows_is_refused_with_the_nearest_known_name() -> None:
    environment = {"STOCKADE_GRPC_PROT": "1", "STOCKADE_JOURNAL_ULR": "x", "STOCKADE_GRPC_PORT": "z", "STOCKADE_X": ""}
    with pytest.raises(SettingsError) as raised:
        load_settings(environment=environment)
    assert [line.partition(": ")[2] for line in str(raised.value).splitlines()] == [
        "there is no such setting; did you mean STOCKADE_GRPC_PORT?",
        "there is no such setting; did you mean STOCKADE_JOURNAL_URL?",
        "Input should be a valid integer, unable to parse string as an integer",
    ]


@pytest.mark.parametrize(
    "variable",
    ["STOCKADE_PORT", "STOCKADE_SERVICE_HOST", "STOCKADE_GATEWAY_PORT_7450_TCP_ADDR", "STOCKADE_SERVICE_PORT_GRPC"],
)
def test_a_variable_that_kubernetes_makes_for_a_service_says_how_to_be_rid_of_it(variable: str) -> None:
    with pytest.raises(SettingsError, match="enableServiceLinks: false"):
        load_settings(environment={variable: "tcp://10.0.0.1:7450"})


def test_variables_of_the_command_line_and_of_the_nodes_own_processes_are_no_settings() -> None:
    others = ("TARGET", "CHANNEL", "TOKEN", "NODE_OF", "NODE_GENERATION")
    load_settings(environment={f"STOCKADE_{name}": "x" for name in others})
    named = set(re.findall(r'envvar="(STOCKADE_\w+)"', Path(options.__file__).read_text(encoding="utf-8")))
    assert named - {"STOCKADE_CONFIG"} == {"STOCKADE_TARGET", "STOCKADE_CHANNEL", "STOCKADE_TOKEN"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gatewys = 3", ["gatewys", ":1", "did you mean gateways?"]),
        ('[journal]\nulr = "x"', ["journal.ulr", ":2", "did you mean journal.url?"]),
        ("[channels.web]\nmay_impse = true", ["channels.web.may_impse", ":2", "channels.web.may_impose?"]),
        ('[[credentials]]\nprincipal = "a"\ntokn = "hush"', ["credentials.0.tokn", ":3", "credentials.0.token?"]),
        ("[clutser]\nhosts_per_node = 2", ["clutser", ":1", "did you mean cluster?"]),
        ("hosts_per_node = 2", ["hosts_per_node", "did you mean cluster.hosts_per_node?"]),
        ("[tls]\ncertificat = 'x'", ["tls.certificat", "did you mean tls.certificate?"]),
    ],
)
def test_a_key_nobody_knows_is_refused_with_its_line_and_the_nearest_known_name(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(config=write_config(tmp_path, text), environment={})
    for part in expected:
        assert part in str(raised.value)
    assert "hush" not in str(raised.value)


def test_every_value_says_which_line_it_came_from(tmp_path: Path) -> None:
    text = """# of the north
gateways = 3  # two would do
quality_hold_suppliers = [
    "S-7",  # with a ] in it
    "S-8",
]
tls = { certificate = "a", private_key = "b" }

[journal]
deadline_ms = "7s"

[channels.web]
[channels.edi]
may_impose = true

[[credentials]]
principal = \'\'\'shop\'\'\'
token = "t"
channels = ["web"]
"""
    path = write_config(tmp_path, text)
    origins = {one.name: one.origin for one in load_settings(config=path, environment={}).effective()}
    said = {name: origin.removeprefix(f"{path}:") for name, origin in origins.items() if origin != "default"}
    assert said == {
        "gateways": "2",
        "quality_hold_suppliers": "3",
        "tls.certificate": "7",
        "tls.private_key": "7",
        "journal.deadline_ms": "10",
        "channels": "12",
        "credentials": "16",
    }


def test_a_section_may_come_from_several_places(tmp_path: Path) -> None:
    path = write_config(
        tmp_path, "[journal]\ndeadline_ms = 7000\n[cluster]\nhosts_per_node = 2\nnode_heartbeat_ms = 100\n"
    )
    environment = {"STOCKADE_JOURNAL_URL": "postgresql://s@db/stock", "STOCKADE_CLUSTER_NODE_HEARTBEAT_MS": "200ms"}
    loaded = load_settings(path, {"cluster.hosts_per_node": 3}, environment)
    found = {one.name: (one.value, one.origin) for one in loaded.effective()}
    assert found["journal.url"] == ("postgresql://s@db/stock", "environment STOCKADE_JOURNAL_URL")
    assert found["journal.deadline_ms"] == (7000, f"{path}:2")
    assert found["cluster.node_heartbeat_ms"] == (200, "environment STOCKADE_CLUSTER_NODE_HEARTBEAT_MS")
    assert found["cluster.hosts_per_node"] == (3, "command line")
    assert found["cluster.move_pause_ms_max"] == (200, "default")


def test_secrets_are_never_shown() -> None:
    environment = {
        "STOCKADE_CLUSTER_TOKEN": "hush-1",
        "STOCKADE_CREDENTIALS": '[{"principal": "shop", "token": "hush-2", "channels": ["web"]}]',
    }
    loaded = load_settings(environment=environment)
    assert "hush" not in f"{loaded.effective()} {loaded.settings!r} {loaded}"
    assert loaded.settings.credentials[0].secret() == "hush-2"


def test_a_token_may_live_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hush\n", encoding="utf-8")
    text = f'[[credentials]]\nprincipal = "shop"\ntoken_file = "{tmp_path}/token"\nchannels = ["*"]\n'
    settings = load_settings(config=write_config(tmp_path, text), environment={}).settings
    assert settings.credentials[0].secret() == "hush"
