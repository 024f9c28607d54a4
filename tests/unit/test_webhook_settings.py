"""What the settings of a webhook may say, and what of it is ever shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.runtime import wiring
from actors.runtime.settings import Settings, SettingsError, load_settings

SECRET = "hush-hush-hush-hush-hush-hush-hush"
PLAIN: dict[str, Any] = {"url": "https://erp.example/hook", "secrets": [{"id": "2026-11", "secret": SECRET}]}


def settings_of(**webhook: Any) -> Settings:
    environment = {"STOCKADE_WEBHOOKS": json.dumps({"erp": {**PLAIN, **webhook}})}
    return load_settings(environment=environment).settings


def test_an_address_and_a_secret_are_enough():
    (config,) = wiring.webhook_configs(settings_of())
    assert (config.webhook_id, config.url) == ("erp", "https://erp.example/hook")
    assert [(secret.key_id, secret.value) for secret in config.secrets] == [("2026-11", SECRET.encode())]
    assert config.allowed_networks == ()


def test_the_gateways_defaults_are_those_of_the_settings():
    from gateway.webhooks.config import Secret, WebhookConfig

    (config,) = wiring.webhook_configs(settings_of())
    secrets = (Secret("2026-11", SECRET.encode()),)
    assert config == WebhookConfig(webhook_id="erp", url="https://erp.example/hook", secrets=secrets)


def test_everything_may_be_set_in_the_file(tmp_path: Path):
    (tmp_path / "old").write_text("whsec_" + "QUJD" * 8 + "\n")
    (tmp_path / "stockade.toml").write_text(
        f"""
        [webhooks.shop-1]
        url = "http://10.1.2.3:8080/hook?key=hush"
        allow_plain_http = true
        allowed_networks = ["10.1.0.0/16"]
        kinds = ["availability"]
        channels = ["web"]
        warehouses = ["main"]
        start = "now"
        concurrency = 2
        timeout_ms = "5s"
        give_up_after_ms = "2h"
        [[webhooks.shop-1.secrets]]
        id = "new"
        secret = "{SECRET}"
        [[webhooks.shop-1.secrets]]
        id = "old"
        secret_file = "{tmp_path}/old"
        [webhooks.shop-1.headers]
        authorization = "Bearer hush"
        """
    )
    (config,) = wiring.webhook_configs(load_settings(config=tmp_path / "stockade.toml", environment={}).settings)
    assert [secret.key_id for secret in config.secrets] == ["new", "old"]
    assert config.secrets[1].value == b"ABC" * 8
    assert (config.lanes, config.timeout_ms, config.give_up_after_ms) == (2, 5_000, 7_200_000)
    assert config.filters.kinds == ("availability",)
    assert config.headers == (("authorization", "Bearer hush"),)
    assert config.start == "now"


@pytest.mark.parametrize(
    ("webhook", "expected"),
    [
        ({"url": "http://erp.example/hook"}, "allow_plain_http"),
        ({"url": "ftp://erp.example/"}, "https://HOST"),
        ({"url": "erp.example/hook"}, "https://HOST"),
        ({"url": "https:///hook"}, "https://HOST"),
        ({"url": "https://erp.example:port/"}, "host or port"),
        ({"url": "https://user:hush@erp.example/"}, "no user and password"),
        ({"url": "https://erp.example/#part"}, "fragment"),
        ({"url": "https://erp.example/a b"}, "without spaces"),
        ({"secrets": []}, "secrets"),
        ({"secrets": [{"id": "k"}]}, "either secret or secret_file"),
        ({"secrets": [{"id": "k", "secret": SECRET}, {"id": "k", "secret": SECRET}]}, "id of its own"),
        ({"secrets": [{"id": "a b", "secret": SECRET}]}, "secrets.0.id"),
        ({"allowed_networks": ["10.1.2.3/8"]}, "host bits set"),
        ({"headers": {"webhook-id": "x"}}, "own header"),
        ({"headers": {"x": "a\r\nb"}}, "printable"),
        ({"concurrency": 0}, "concurrency"),
        ({"backoff_ms_min": "1m", "backoff_ms_max": "1s"}, "backoff_ms_min must not exceed"),
        ({"retries": 5}, "retries"),
        ({"channels": ["web", "wbe"]}, "webhooks.erp.channels names 'wbe'"),
        ({"warehouses": ["mian"]}, "webhooks.erp.warehouses names 'mian'"),
    ],
)
def test_an_error_says_what_would_be_right(webhook: dict[str, Any], expected: str):
    with pytest.raises(SettingsError) as raised:
        settings_of(**webhook)
    assert expected in str(raised.value)
    assert "webhooks.erp" in str(raised.value)
    assert "hush" not in str(raised.value)


def test_a_webhook_is_a_declared_consumer_whose_limits_may_be_set():
    settings = settings_of()
    assert set(settings.rules().consumers) == {"erp"}
    limits = json.dumps({"erp": {"lag_ms_max": "1m"}})
    environment = {"STOCKADE_WEBHOOKS": json.dumps({"erp": PLAIN}), "STOCKADE_CONSUMERS": limits}
    assert load_settings(environment=environment).settings.rules().consumers["erp"].lag_ms_max == 60_000


@pytest.mark.parametrize("name", ["Shop", "a b", "", "x" * 65, "-a"])
def test_a_webhooks_name_is_fit_for_a_label(name: str):
    with pytest.raises(SettingsError):
        load_settings(environment={"STOCKADE_WEBHOOKS": json.dumps({name: PLAIN})})


@pytest.mark.parametrize(("secret", "why"), [("too-short", "24"), ("whsec_!!!", "base64"), ("whsec_QUJD", "24")])
def test_a_secret_that_can_be_guessed_is_refused(secret: str, why: str):
    with pytest.raises(ValueError, match=why):
        wiring.webhook_configs(settings_of(secrets=[{"id": "k", "secret": secret}]))


def test_nothing_secret_is_ever_shown():
    settings = {**PLAIN, "url": "https://erp.example/hook?key=hush", "headers": {"authorization": "Bearer hush"}}
    loaded = load_settings(environment={"STOCKADE_WEBHOOKS": json.dumps({"erp": settings})})
    (shown,) = [one.value for one in loaded.effective() if one.name == "webhooks"]

    assert "hush" not in f"{loaded.effective()} {json.dumps(shown)}"
    assert shown["erp"]["secrets"] == [{"id": "2026-11", "secret": "***", "secret_file": None}]
    assert shown["erp"]["headers"] == {"authorization": "***"}
    assert shown["erp"]["url"] == "https://erp.example/hook?***"
    assert "hush" not in repr([config.secrets for config in wiring.webhook_configs(loaded.settings)])
