"""Settings of the journal and of a cluster: what goes together, bounds, and what is said of what does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.journal import database_url
from actors.runtime.settings import Settings, SettingsError, load_settings

DATABASE = "postgresql://stockade@db.example/stock"


def settings_of(**given: Any) -> Settings:
    """Settings by their dotted names, ``__`` for the dot."""
    return load_settings(
        overrides={name.replace("__", "."): value for name, value in given.items()}, environment={}
    ).settings


def test_without_a_url_the_journal_is_a_file_and_the_node_stands_alone() -> None:
    settings = settings_of()
    assert settings.journal.database_urls == ()
    assert not settings.journal.is_shared
    assert settings.cluster.hosts_per_node == 1


def test_one_database_or_several() -> None:
    assert settings_of(journal__url=DATABASE).journal.database_urls == (DATABASE,)
    two = [DATABASE, f"{DATABASE}2"]
    assert settings_of(journal__urls=two).journal.database_urls == tuple(two)
    assert (
        load_settings(environment={"STOCKADE_JOURNAL_URLS": json.dumps(two)}).settings.journal.urls
        == settings_of(journal__urls=two).journal.urls
    )


def test_the_numbers_that_others_count_on() -> None:
    settings = settings_of()
    cluster, journal = settings.cluster, settings.journal
    assert (journal.deadline_ms, journal.allow_unsafe_durability) == (5_000, False)
    assert (cluster.node_heartbeat_ms, cluster.host_dead_after_ms) == (500, 2_500)
    assert (cluster.placement_interval_ms, cluster.move_pause_ms_max) == (1_000, 200)
    assert (cluster.ray_address, cluster.cluster_id, cluster.advertise_address) == ("", "", "")


@pytest.mark.parametrize(
    ("said", "address"),
    [("head", "head:7452"), ("10.0.0.1:99", "10.0.0.1:99"), ("[::1]", "[::1]:7452"), ("[::1]:9", "[::1]:9"), ("", "")],
)
def test_the_heads_address_needs_no_port(said: str, address: str) -> None:
    assert (
        settings_of(cluster__head_address=said, journal__url=DATABASE, cluster_token="t").cluster.head_address
        == address
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"cluster__hosts_per_node": 2}, ["cluster.hosts_per_node", "SQLite journal has one owner", "journal.url", "journal copy"]),
        ({"cluster__head_address": "head", "journal__url": DATABASE}, ["cluster.head_address needs cluster_token"]),
        ({"cluster__head_address": "head"}, ["cluster.head_address", "SQLite journal has one owner"]),
        ({"cluster__ray_address": "10.0.0.1"}, ["cluster.ray_address", "HOST:PORT"]),
        ({"cluster__advertise_address": "10.0.0.1:80"}, ["cluster.advertise_address", "without port"]),
        ({"cluster__host_dead_after_ms": 1_000}, ["host_dead_after_ms must be at least 3 × node_heartbeat_ms", "1500"]),
        ({"cluster__node_heartbeat_ms": 1}, ["cluster.node_heartbeat_ms", "greater than or equal to 50"]),
        ({"cluster__cluster_id": "a b"}, ["cluster.cluster_id", "pattern"]),
        ({"journal__deadline_ms": "1ms"}, ["journal.deadline_ms", "greater than or equal to 100"]),
        ({"journal__url": DATABASE, "journal__urls": [DATABASE]}, ["journal", "either url (one database) or urls"]),
        ({"journal__urls": [DATABASE, DATABASE]}, ["journal", "twice"]),
        ({"journal": "x"}, ["journal (from command line)", "valid dictionary"]),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_with_the_fix(given: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(SettingsError) as raised:
        settings_of(**given)
    for part in expected:
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mysql://u:hush@h/d", "is no postgresql:// URL"),
        ("u:hush@h/d", "is no postgresql:// URL"),
        ("postgresql://u:hush@h", "names no database"),
        ("postgresql://u:hush@h:x/d", "cannot be read"),
        ("postgresql://u:hu@sh@h:hush/d", "cannot be read"),
        ("postgresql://u:12/hush@h/d", "%2F for /"),
        ("postgresql://u:12?hush@h/d", "%3F for ?"),
        ("postgresql://u:hu#hush@h/d", "%23 for #"),
        ("postgresql://u:hush hush@h/d", "spaces"),
        ("postgresql://u:hush@h:0/d", "port 0"),
        ("postgresql://[u:hush@h/d", "cannot be read"),
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_one_is_refused_without_being_quoted(url: str, expected: str) -> None:
    with pytest.raises(SettingsError) as raised:
        settings_of(journal__url=url)
    assert "journal.url" in str(raised.value)
    assert expected in str(raised.value)
    assert "hush" not in str(raised.value)
    assert "hush" not in database_url.shown(url)
    assert "hush" not in database_url.without_password(f"cannot connect to {url}: hush", url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:hush@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgres://u:hu%40sh@h/d", "postgres://u:***@h/d"),
        ("postgresql://h1:1,h2:2/d?user=u&password=hush&sslmode=require", "postgresql://h1:1,h2:2/d?user=u&password=***&sslmode=require"),
        ("postgresql:///d?host=/run/postgres&sslpassword=hush", "postgresql:///d?host=/run/postgres&sslpassword=***"),
        ("postgresql://u@[::1]:5432/d", "postgresql://u@[::1]:5432/d"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    loaded = load_settings(environment={"STOCKADE_JOURNAL_URL": url})
    values = {one.name: one.value for one in loaded.effective()}
    assert values["journal.url"] == shown
    assert loaded.settings.journal.database_urls == (url,)
    assert loaded.settings.journal.shown_urls == (shown,)
    assert not {"hush", "hu@sh", "hu%40sh"} & set(f"{loaded!r} {loaded.settings.journal}".replace("'", " ").split())
    told = database_url.without_password(f"no connection to {url}: 'hush' and 'hu@sh'", url)
    assert "hu%40sh" not in told
    assert "'hush' and 'hu@sh'" not in told or "hu" not in url


def test_two_urls_are_shown_without_their_passwords() -> None:
    loaded = load_settings(
        overrides={"journal.urls": [f"postgresql://u:hush{n}@h/d{n}" for n in (1, 2)]}, environment={}
    )
    assert "hush" not in str(loaded.effective())
    assert loaded.settings.journal.shown_urls == ("postgresql://u:***@h/d1", "postgresql://u:***@h/d2")
