"""The benchmark's Ray peer with a real Ray: actors behind the gateway, and files that bear out what was answered."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.peers.catalog import PEERS
from bench.peers.company import Company
from bench.scenario import Scenario


def test_actors_behind_the_gateway_record_what_they_answer():
    one = Scenario.model_validate(
        {"title": "t", "about": "a", "work": "reserve", "keys": 2, "batch": 5, "units_per_key": 100}
        | {"load": {"in_flight": 4}}
    )
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="stockade-peers-") as made:
        with Company(one, [PEERS["ray"]], Path(made), said.append) as company:
            assert company.rivals, said
            (rival,) = company.rivals
            run = rival.run(1.0, 1)
            (peer,) = company.results({rival.name: [run]})

    assert run.granted > 0
    assert not run.errors
    assert peer.proof is not None
    assert peer.proof.findings == []
    assert peer.proof.claims_recorded == run.granted
