"""How Stockade stands against each peer of a scenario, in words that the repetitions bear: who is faster, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.results import PeerResult, Run, ScenarioResult, middle

REPETITIONS_MIN = 3  # fewer say little about spread


@dataclass(frozen=True, slots=True)
class Standing:
    """A peer in a scenario. ``ratios``: Stockade over the peer, round by round; none when it did not run or does not count."""

    scenario: str
    unit: str
    peer: PeerResult
    runs: list[Run]
    ratios: list[float]

    @property
    def rate_text(self) -> str:
        return f"{middle([run.per_second for run in self.runs]):,.0f}" if self.runs else ""

    @property
    def spread_text(self) -> str:
        rates = [run.per_second for run in self.runs]
        return f"{min(rates):,.0f} … {max(rates):,.0f}" if rates else ""

    @property
    def ratio_text(self) -> str:
        """Stockade over the peer: the median round, the least and the greatest."""
        if not self.ratios:
            return ""
        return f"{middle(self.ratios):.2f} × ({min(self.ratios):.2f} … {max(self.ratios):.2f})"

    @property
    def peer_wins(self) -> bool:
        """In every round."""
        return bool(self.ratios) and max(self.ratios) < 1

    @property
    def verdict(self) -> str:
        """Who is faster. A round that goes the other way leaves it open."""
        if self.peer.absent:
            return f"did not run: {self.peer.absent}"
        if not self.ratios:
            why = sorted({reason for run in self.peer.runs for reason in run.invalid})
            return "; ".join(["no round in which both count", *why])
        if min(self.ratios) > 1:
            said = f"Stockade, {middle(self.ratios):.1f} × as fast"
        elif self.peer_wins:
            said = f"THE PEER WINS, {1 / middle(self.ratios):.1f} × as fast"
        else:
            said = "no difference to be seen"
        return said + self.few_text

    @property
    def few_text(self) -> str:
        """What must be added to a verdict of too few rounds."""
        return f" (of only {len(self.ratios)} rounds)" if len(self.ratios) < REPETITIONS_MIN else ""

    @property
    def proof_text(self) -> str:
        """Whether what it recorded is what it answered."""
        proof = self.peer.proof
        if proof is None:
            return ""
        return "sound" if proof.sound else f"UNSOUND: {'; '.join(proof.findings)}"

    def latency_text(self, percentile: str) -> str:
        """Milliseconds of a percentile, the median of its runs."""
        return f"{middle([run.latency_ms.get(percentile, 0.0) for run in self.runs]):.2f}" if self.runs else ""

    def cpu_text(self) -> str:
        """CPU a claim of all its processes, and of the generator with its client, in µs."""
        if not self.runs:
            return ""
        client = middle([run.cpu_us_per_unit.get("generator", 0.0) for run in self.runs])
        others = middle(
            [sum(us for role, us in run.cpu_us_per_unit.items() if role != "generator") for run in self.runs]
        )
        return f"{others:.1f} + {client:.1f}"

    def cells(self) -> list[str]:
        """A row of a table; ``COLUMNS`` names them."""
        return [
            self.peer.title,
            self.rate_text,
            self.spread_text,
            self.ratio_text,
            self.latency_text("p50"),
            self.latency_text("p99"),
            self.cpu_text(),
            self.verdict,
            self.proof_text,
        ]


COLUMNS = (
    "peer",
    "a second",
    "min … max",
    "Stockade ÷ it",
    "p50 ms",
    "p99 ms",
    "CPU µs: it + client",
    "verdict",
    "its proof",
)


def standings(one: ScenarioResult) -> list[Standing]:
    """Every peer of a scenario, in the order in which they ran."""
    return [
        Standing(one.title, one.unit, peer, [run for run in peer.runs if not run.invalid], one.ratios_to(peer.runs))
        for peer in one.peers
    ]


def own_row(one: ScenarioResult) -> list[str]:
    """Stockade itself as the first row of such a table."""
    runs = one.valid()
    if not runs:
        return ["Stockade", "INVALID", *[""] * (len(COLUMNS) - 2)]
    ours = Standing(one.title, one.unit, PeerResult(name="", title="Stockade", summary=""), runs, [])
    proof = "" if one.proof is None else "agrees" if one.proof.agrees else "FAILED"
    return [*ours.cells()[:3], "", *ours.cells()[4:7], "", proof]


def winners(scenarios: Sequence[ScenarioResult]) -> list[str]:
    """Where a peer is faster in every round, in sentences: what a report must not keep quiet about."""
    return [
        f"{standing.scenario}: {standing.peer.title} is faster than Stockade, {1 / middle(standing.ratios):.1f} ×{standing.few_text} "
        f"({standing.rate_text} {standing.unit} a second; {standing.peer.summary})"
        for one in scenarios
        for standing in standings(one)
        if standing.peer_wins
    ]
