"""The small parts of webhooks: what answers mean, pauses, the circuit, addresses, signatures."""

from __future__ import annotations

import email.utils
import socket

import pytest

from gateway.webhooks.addresses import AddressRefused, guarded_sockets, is_allowed, parse_networks
from gateway.webhooks.config import Secret
from gateway.webhooks.patience import Circuit, backoff_ms
from gateway.webhooks.verdicts import Outcome, judge, retry_after_ms
from stockade.client.webhooks import BadSignature, secret_bytes, signature_headers, verify

NOW_S = 1_700_000_000.0


@pytest.mark.parametrize(
    ("status", "retry_after", "outcome"),
    [
        (200, "", Outcome.ACCEPTED),
        (202, "", Outcome.ACCEPTED),
        (204, "", Outcome.ACCEPTED),
        (301, "", Outcome.FAILED),
        (307, "", Outcome.FAILED),
        (400, "", Outcome.REJECTED),
        (401, "", Outcome.FAILED),
        (403, "", Outcome.FAILED),
        (404, "", Outcome.FAILED),
        (408, "", Outcome.FAILED),
        (410, "", Outcome.GONE),
        (413, "", Outcome.REJECTED),
        (415, "", Outcome.REJECTED),
        (422, "", Outcome.REJECTED),
        (429, "", Outcome.PAUSED),
        (429, "3", Outcome.PAUSED),
        (500, "", Outcome.FAILED),
        (503, "", Outcome.FAILED),
        (503, "3", Outcome.PAUSED),
        (599, "", Outcome.FAILED),
    ],
)
def test_only_an_answer_about_the_content_condemns_the_content(status, retry_after, outcome):
    assert judge(status, retry_after, "", NOW_S).outcome is outcome


def test_an_answer_is_shown_as_one_short_line():
    verdict = judge(500, "", "no\x1b[31m  database\r\n" + "x" * 10_000, NOW_S)
    assert verdict.reason.startswith("500 no [31m database xxx")
    assert len(verdict.reason) <= 204
    assert verdict.reason.isprintable()


@pytest.mark.parametrize(
    ("header", "milliseconds"),
    [
        ("", 0),
        ("7", 7_000),
        (" 7 ", 7_000),
        ("0", 0),
        ("-7", 0),
        ("soon", 0),
        ("7.5", 0),
        ("999999999999999999999999", 3_600_000),
        (email.utils.formatdate(NOW_S + 90, usegmt=True), 90_000),
        (email.utils.formatdate(NOW_S - 90, usegmt=True), 0),
        (email.utils.formatdate(NOW_S + 10**7, usegmt=True), 3_600_000),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(header, milliseconds):
    assert retry_after_ms(header, NOW_S) == milliseconds


def test_pauses_double_up_to_a_bound_and_jitter_takes_any_part_of_them():
    assert [backoff_ms(attempt, 500, 60_000, lambda: 1.0) for attempt in range(1, 10)] == [
        500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000,
    ]  # fmt: skip
    assert backoff_ms(3, 500, 60_000, lambda: 0.25) == 500
    assert backoff_ms(1, 500, 60_000, lambda: 0.0) == 1, "never a loop without any pause"
    assert backoff_ms(10_000, 500, 60_000, lambda: 1.0) == 60_000


def test_a_success_in_between_keeps_the_circuit_closed():
    circuit = Circuit(3, 1_000, 8_000, lambda: 0.0)
    for _ in range(10):
        circuit.failed(0)
        circuit.failed(0)
        circuit.succeeded()
    assert circuit.closed


def test_requests_that_were_under_way_when_it_opened_do_not_prolong_the_pause():
    circuit = Circuit(1, 1_000, 8_000, lambda: 0.0)
    for _ in range(10):
        circuit.failed(100)
    assert circuit.try_at_ms == 600


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "198.18.0.1", "192.0.2.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1",
        "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:c0a8:101::1", "not an address",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address):
    assert not is_allowed(address, ())


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1::1", "64:ff9b::808:808"])
def test_public_addresses_are_not(address):
    assert is_allowed(address, ())


def test_what_the_settings_allow_may_be_reached_and_nothing_beside_it():
    allowed = parse_networks(["10.1.0.0/16", "fd00:1::/64"])
    assert is_allowed("10.1.2.3", allowed)
    assert is_allowed("::ffff:10.1.2.3", allowed)
    assert is_allowed("fd00:1::5", allowed)
    assert not is_allowed("10.2.0.1", allowed)
    assert not is_allowed("127.0.0.1", allowed)


def test_no_socket_is_made_for_an_address_that_is_refused():
    make = guarded_sockets(())
    with pytest.raises(AddressRefused, match=r"169\.254\.169\.254 is not a public address"):
        make((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80)))
    make((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))).close()


OLD, NEW = "whsec_" + "QUJD" * 8, "a-secret-of-thirty-two-characters"
BODY = b'[{"id":"c-1"}]'


def signed(*secrets: str, at_s: float = NOW_S) -> dict[str, str]:
    return signature_headers("d-1", int(at_s), BODY, [(f"k{n}", secret_bytes(s)) for n, s in enumerate(secrets)])


def test_a_signed_request_is_believed_and_tells_its_delivery():
    assert verify(signed(NEW), BODY, [NEW], NOW_S) == "d-1"


def test_the_signature_is_that_of_standard_webhooks():
    """Their own example."""
    headers = signature_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        [("k", secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))],
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_while_secrets_change_either_of_them_is_enough():
    both = signed(NEW, OLD)
    assert both["stockade-key-ids"] == "k0 k1"
    for held in ([OLD], [NEW], [NEW, OLD], [OLD, NEW]):
        assert verify(both, BODY, held, NOW_S) == "d-1"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"webhook-id": "d-2"}, "known secret"),
        ({"webhook-timestamp": str(int(NOW_S) + 1)}, "known secret"),
        ({"webhook-timestamp": "now"}, "number"),
        ({"webhook-timestamp": "9" * 400}, "number"),
        ({"webhook-signature": "v1,AAAA"}, "known secret"),
        ({"webhook-signature": ""}, "without webhook-signature"),
        ({"webhook-signature": "é"}, "known secret"),
    ],
)
def test_a_request_that_was_touched_is_not_believed(change, why):
    with pytest.raises(BadSignature, match=why):
        verify({**signed(NEW), **change}, BODY, [NEW], NOW_S)


def test_another_body_another_secret_and_an_old_request_are_not_believed():
    with pytest.raises(BadSignature):
        verify(signed(NEW), BODY + b" ", [NEW], NOW_S)
    with pytest.raises(BadSignature):
        verify(signed(NEW), BODY, [OLD], NOW_S)
    with pytest.raises(BadSignature, match=r"signed \+301 s from now"):
        verify(signed(NEW), BODY, [NEW], NOW_S + 301)


def test_a_secret_is_not_shown_by_accident():
    assert "hush" not in repr(Secret("k", b"hush-hush"))
