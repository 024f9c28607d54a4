"""``stockade demo sync`` as a user runs it: a service of its own, a story in words, a proof, an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

COMMAND = [sys.executable, "-m", "gateway.cli", "demo", "sync"]


def test_the_story_ends_with_a_proof() -> None:
    began = time.monotonic()
    result = subprocess.run([*COMMAND, "--json"], capture_output=True, text=True, check=False, timeout=200)
    found = json.loads(result.stdout)
    assert (result.returncode, found["failures"]) == (0, []), result.stderr[-2_000:]
    assert found["verify"]["oversells"] == 0
    assert all(figures["in the books"] == figures["on the floor"] for figures in found["report"]["stock"].values())
    assert found["report"]["seconds"] < 60
    assert time.monotonic() - began < 180  # 25 s on a quiet machine
