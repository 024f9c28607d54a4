"""ResolveException as the gateway reads it: who resolves is asked for where nothing says it."""

from __future__ import annotations

import pytest

from gateway.config import GatewayConfig
from gateway.translate.events import EventRequests
from gateway.translate.exceptions import ExceptionRequests
from gateway.validation import Findings, KnownNames
from stockade.v1 import exception_service_pb2 as pb


@pytest.mark.parametrize(
    ("cause", "resolver", "fields"),
    [
        ((), "", ["resolver"]),  # neither a credential nor a correlation id
        (("", "trace-me", ""), "", ["resolver"]),
        (("ann", "", ""), "", []),
        ((), "ann", []),
    ],
)
def test_somebody_resolves(cause: tuple[str, ...], resolver: str, fields: list[str]):
    config = GatewayConfig("", {}, {})
    names = KnownNames(config)
    names.set_shard_count(64)
    request = pb.ResolveExceptionRequest(
        request_id="r", exception_id="x-1-2-3", action=pb.RESOLVE_ACTION_DISCARD, note="why", resolver=resolver
    )
    findings = Findings()
    ExceptionRequests(names, EventRequests(config, names)).resolve(request, cause, findings)
    assert [finding.field for finding in findings] == fields
