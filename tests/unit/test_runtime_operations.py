"""One page of metrics out of many processes, and a server that strangers cannot harm."""

from __future__ import annotations

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from actors.runtime.operations import Answer, OperationsServer, merge_metrics, scrape, text_answer

GATEWAY = """# HELP stockade_rpc_total Calls
# TYPE stockade_rpc_total counter
stockade_rpc_total{method="Reserve {x} \\"y\\"",code="OK"} 3.0
stockade_rpc_total{code="UNAVAILABLE"} 1.0
"""
HOST = """# HELP stockade_turns_total Turns
# TYPE stockade_turns_total counter
stockade_turns_total 7.0
# HELP stockade_rpc_total Calls
# TYPE stockade_rpc_total counter
stockade_rpc_total{} 2.0
"""


def test_samples_of_all_processes_stand_under_one_family_with_their_process() -> None:
    merged = merge_metrics({"gateway-0": GATEWAY, "gateway-1": GATEWAY, "host": HOST, "away": ""})
    assert merged.count("# TYPE stockade_rpc_total") == 1
    samples = [
        (sample.name, sample.labels["process"], sample.value)
        for family in text_string_to_metric_families(merged)
        for sample in family.samples
    ]
    assert ("stockade_turns_total", "host", 7.0) in samples
    assert sum(value for name, _, value in samples if name == "stockade_rpc_total") == 10.0
    assert len(samples) == 6


async def page() -> Answer:
    return text_answer(200, "stockade_up 1\n")


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if writer.can_write_eof():
        writer.write_eof()
    answer = await reader.read(-1)
    writer.close()
    return answer


async def test_pages_are_served_and_everything_else_gets_a_plain_answer() -> None:
    server = OperationsServer({"/metrics": page})
    port = await server.start("127.0.0.1", 0)
    try:
        assert await scrape(f"127.0.0.1:{port}") == "stockade_up 1\n"
        assert (await ask(port, b"GET /nothing HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404")
        assert (await ask(port, b"POST /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405")
        assert (await ask(port, b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400")
        assert await ask(port, b"\x00" * 20_000) == b""
        assert (await ask(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")
    finally:
        server.close()


async def test_a_process_that_is_away_has_no_metrics() -> None:
    assert await scrape("127.0.0.1:1") == ""
