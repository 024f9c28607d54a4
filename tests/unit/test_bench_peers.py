"""The peers of the benchmark, without their servers: who is chosen and who can, what is counted, what is unsound."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from contextlib import contextmanager

import pytest

from bench.__main__ import PEER_SCENARIOS, adapted, parser
from bench.load import Told
from bench.peers import ray_actors
from bench.peers.catalog import PEERS, Peer, Started, chosen_peers
from bench.peers.company import Company, proof_of
from bench.peers.direct import ClientRival, ThreadsRival
from bench.peers.orders import REFUSED, Decision, Order, OtherContent, orders_of
from bench.peers.ray_actors import StockActor
from bench.peers.tables import Recorded
from bench.peers.valkey_script import Connection, ScriptError, command
from bench.peers.waiting import Shared
from bench.scenario import Scenario, ScenarioError, chosen
from bench.tables import show_peers


def scenario(**values) -> Scenario:
    load = {"in_flight": 4, "seconds": 0.2, "warm_up_seconds": 0, "repetitions": 1}
    return Scenario.model_validate({"title": "t", "about": "a", "work": "reserve", "load": load, **values})


# --- who takes part ---


def test_all_peers_and_the_noop_take_part_unless_some_are_named():
    assert chosen_peers(None) == (list(PEERS.values()), True)
    assert chosen_peers("noop") == ([], True)
    assert [peer.name for peer in chosen_peers("valkey, asyncpg")[0]] == ["asyncpg", "valkey"]
    assert chosen_peers("valkey")[1] is False


def test_an_unknown_peer_is_answered_with_the_nearest_one():
    with pytest.raises(ScenarioError, match="did you mean plpgsql"):
        chosen_peers("plsql")


def test_every_peer_can_do_the_scenarios_of_the_command_but_ray_those_of_many_keys_or_large_batches():
    unfit = {(one.name, peer.name) for one in chosen(PEER_SCENARIOS) for peer in PEERS.values() if peer.unfit(one)}

    assert unfit == {("spread", "ray"), ("spread-batch", "ray"), ("hot-batch-1000", "ray")}


@pytest.mark.parametrize("name", ["half-peak", "orders", "mixed-day", "flash-sale", "overload", "availability", "peak"])
def test_what_peers_cannot_do_is_said(name):
    (one,) = chosen([name])

    assert PEERS["asyncpg"].unfit(one)


def test_a_peer_without_its_packages_says_what_is_missing_and_how_to_get_it():
    peer = Peer("other", "other", "", no_server, ("a_module_that_nobody_has", "asyncio"))

    assert peer.missing() == "not installed: a_module_that_nobody_has; `make bench-peers` installs it"


def test_the_command_takes_the_same_options_as_run():
    options = parser().parse_args(["peers", "hot", "--peers", "noop,ray", "--seconds", "2", "--repetitions", "1"])

    (one,) = adapted(options)

    assert (options.peers, one.name, one.load.seconds, one.load.repetitions) == ("noop,ray", "hot", 2.0, 1)


# --- what is asked ---


def test_orders_are_drawn_like_the_scenarios_own_and_every_id_is_fresh(seed):
    calls = list(itertools.islice(orders_of(scenario(keys=3, batch=50), random.Random(seed)), 4))

    assert [len(call) for call in calls] == [50] * 4
    assert {order.key for call in calls for order in call} == {f"\x1fmain\x1fSKU-{n:07d}" for n in range(3)}
    assert len({order.request_id for call in calls for order in call}) == 200


# --- what is counted ---


class Shelf:
    """A store in memory, sound. ``losing``: every so many calls it does the work and loses the answer."""

    def __init__(self, units: int, losing: int = 0) -> None:
        self.left = units
        self.recorded: dict[str, Order] = {}
        self._calls = itertools.count(1)
        self._losing = losing
        self._lock = threading.Lock()

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def reserve(self, orders, expire_time_ms):
        await asyncio.sleep(0)
        decisions = [self.decide(order, expire_time_ms) for order in orders]
        self._lose()
        return decisions

    def hold(self, order) -> bool:
        """As a blocking client."""
        with self._lock:
            granted = self.decide(order, 1).granted
            self._lose()
        return granted

    def decide(self, order, expire_time_ms) -> Decision:
        if order.request_id in self.recorded:
            return Decision(True, expire_time_ms, replayed=True)
        if order.quantity > self.left:
            return REFUSED
        self.left -= order.quantity
        self.recorded[order.request_id] = order
        return Decision(True, expire_time_ms)

    def _lose(self) -> None:
        if self._losing and next(self._calls) % self._losing == 0:
            raise ConnectionResetError

    def audit(self) -> Recorded:
        units = sum(order.quantity for order in self.recorded.values())
        return Recorded(len(self.recorded), units, oversold=int(self.left < 0))


def rivals_of(shelf: Shelf):
    yield ClientRival("peer", scenario(batch=3), lambda: shelf, dict)
    yield ThreadsRival("peer", scenario(batch=3), 3, shelf.hold, dict)


@pytest.mark.parametrize("number", [0, 1], ids=["coroutines", "threads"])
def test_what_was_answered_is_what_was_recorded_up_to_the_last_unit(number):
    shelf = Shelf(units=100)
    rival = list(rivals_of(shelf))[number]

    made = rival.run(0.2, 1)

    assert made.granted == rival.told.claims == len(shelf.recorded) == 100
    assert made.refused > 0
    assert made.failed == 0
    assert made.per_second == pytest.approx(100 / made.seconds, rel=0.01)


@pytest.mark.parametrize("number", [0, 1], ids=["coroutines", "threads"])
def test_answers_that_got_lost_are_asked_for_again_and_are_in_no_rate(number):
    shelf = Shelf(units=10**9, losing=10)
    rival = list(rivals_of(shelf))[number]

    made = rival.run(0.2, 1)

    assert made.failed > 0
    assert made.errors == {"ConnectionResetError": made.failed}
    assert rival.told.claims == len(shelf.recorded) == made.granted + made.failed
    assert rival.told.left_unknown == 0


def test_a_connection_is_handed_to_whoever_has_waited_longest():
    async def story() -> list[str]:
        shared: Shared[str] = Shared()
        shared.give("only")
        order: list[str] = []

        async def use(name: str) -> None:
            for _ in range(2):
                held = await shared.take()
                order.append(name)
                await asyncio.sleep(0)
                shared.give(held)

        await asyncio.gather(use("a"), use("b"), use("c"))
        return order

    assert asyncio.run(story()) == ["a", "b", "c", "a", "b", "c"]


# --- the client of the script ---


@pytest.mark.parametrize("piece", [1, 2, 7, 1_000])
async def test_answers_are_read_however_they_are_cut_into_pieces(tmp_path, piece):
    said = b"+OK\r\n$5\r\n1 \r\n2\r\n$0\r\n\r\n-ERR no\r\n"

    async def answer(reader, writer):
        await reader.readexactly(4 * len(command("PING")))
        for start in range(0, len(said), piece):
            writer.write(said[start : start + piece])
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    socket = str(tmp_path / "s")
    async with await asyncio.start_unix_server(answer, socket):
        _, connection = await asyncio.get_running_loop().create_unix_connection(Connection, socket)
        answers = await asyncio.gather(*[connection.ask(command("PING")) for _ in range(4)], return_exceptions=True)

    assert answers[:3] == [b"OK", b"1 \r\n2", b""]
    assert isinstance(answers[3], ScriptError)


async def test_a_lost_connection_fails_whoever_waits(tmp_path):
    async def hang_up(reader, writer):
        await reader.read(1)
        writer.close()

    socket = str(tmp_path / "s")
    async with await asyncio.start_unix_server(hang_up, socket):
        _, connection = await asyncio.get_running_loop().create_unix_connection(Connection, socket)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(connection.ask(command("PING")), 5)


def test_a_command_is_written_with_the_bytes_of_each_word():
    assert command("SET", "ä\x1f") == b"*2\r\n$3\r\nSET\r\n$3\r\n\xc3\xa4\x1f\r\n"


# --- an actor of the Ray peer, without Ray ---


def test_an_actor_grants_what_there_is_repeats_itself_and_remembers_after_a_restart(tmp_path):
    ray_actors.stock_up(tmp_path, ["key"], 3)
    path = str(ray_actors.file_of(tmp_path, 0))
    actor = StockActor(path)

    assert [actor.reserve(f"r{n}", 1, 1_000 + n) for n in range(4)] == [1_000, 1_001, 1_002, 0]
    assert actor.settings() == {"journal_mode": "wal", "synchronous": "2"}
    restarted = StockActor(path)

    assert restarted.reserve("r1", 1, 9_999) == -1_001
    with pytest.raises(OtherContent):
        restarted.reserve("r1", 2, 9_999)
    assert ray_actors.audit(tmp_path, ["key"], 3) == Recorded(claims=3, units=3, oversold=0)


# --- what was recorded ---


@pytest.mark.parametrize(
    ("recorded", "told", "finding"),
    [
        (Recorded(9, 9, 0), Told(claims=10), "10 claims were answered, 9 are recorded"),
        (Recorded(11, 11, 0), Told(claims=10), "10 claims were answered, 11 are recorded"),
        (Recorded(10, 101, 0), Told(claims=10), "101 units were granted of 100"),
        (Recorded(10, 10, 2), Told(claims=10), "2 stock keys do not add up or are oversold"),
        (Recorded(10, 10, 0), Told(claims=10, left_unknown=1), "1 calls got no yes or no"),
    ],
)
def test_a_peer_whose_records_do_not_bear_out_its_answers_is_unsound(recorded, told, finding):
    proof = proof_of(recorded, told, units_stocked=100)

    assert not proof.sound
    assert finding in proof.findings[0]


def test_a_peer_that_kept_its_word_is_sound():
    assert proof_of(Recorded(10, 10, 0), Told(claims=10), units_stocked=100).sound


def no_server(one, directory):
    raise OSError("no server here")


def on_shelf(audit) -> Peer:
    shelf = Shelf(units=10**9)

    @contextmanager
    def start(one, directory):
        yield Started(ClientRival("shelf", one, lambda: shelf, dict), lambda: audit(shelf), {"durable": "no"})

    return Peer("shelf", "a shelf in memory", "", start)


def forgets_one(shelf: Shelf) -> Recorded:
    shelf.recorded.popitem()
    return shelf.audit()


def cannot_be_read(shelf: Shelf) -> Recorded:
    raise OSError("the file is gone")


@pytest.mark.parametrize(
    ("audit", "finding"),
    [
        (Shelf.audit, ""),
        (forgets_one, "are recorded"),
        (cannot_be_read, "could not be read: OSError: the file is gone"),
    ],
)
def test_every_peers_records_are_read_at_the_end(tmp_path, audit, finding):
    said: list[str] = []
    with Company(scenario(), [on_shelf(audit)], tmp_path, said.append) as company:
        (rival,) = company.rivals
        runs = {rival.name: [rival.run(0.1, 1)]}
        (made,) = company.results(runs)

    assert made.runs == runs["shelf"]
    assert made.configuration == {"durable": "no"}
    assert made.proof is not None
    assert made.proof.sound is (finding == "")
    assert finding in " ".join(made.proof.findings)
    assert any("UNSOUND" in line for line in said) is (finding != "")


def test_a_peers_administrator_comes_once_after_the_warm_up_and_may_fail(tmp_path):
    came: list[int] = []

    @contextmanager
    def start(one, directory):
        shelf = Shelf(units=10**9)

        def settle() -> None:
            came.append(len(shelf.recorded))
            raise OSError("no statistics today")

        yield Started(ClientRival("shelf", one, lambda: shelf, dict), shelf.audit, settle=settle)

    with Company(scenario(), [Peer("shelf", "a shelf", "", start)], tmp_path, print) as company:
        (rival,) = company.rivals
        rival.warm_up(0.1, 1)
        warm = rival.told.claims
        made = rival.run(0.1, 2)
        (peer_result,) = company.results({"shelf": [made]})

    assert came == [warm]
    assert warm > 0
    assert peer_result.proof is not None
    assert peer_result.proof.claims_answered == warm + made.granted
    assert peer_result.proof.sound


def test_a_peer_that_does_not_start_is_left_out_with_its_reason(tmp_path):
    said: list[str] = []
    broken = Peer("broken", "broken", "", no_server)
    with Company(scenario(), [broken, on_shelf(Shelf.audit)], tmp_path, said.append) as company:
        assert [rival.name for rival in company.rivals] == ["shelf"]
        absent = company.results({"shelf": []})[0]

    assert absent.absent == "did not start: OSError: no server here"
    assert any("broken does not run" in line for line in said)


def test_a_peer_that_breaks_has_runs_that_do_not_count_and_its_end_is_told(tmp_path):
    said: list[str] = []

    class Broken(ClientRival):
        def run(self, seconds, seed):
            raise ConnectionRefusedError("it has gone")

    @contextmanager
    def start(one, directory):
        yield Started(Broken("broken", one, lambda: Shelf(1), dict), Shelf(1).audit)
        raise OSError("cannot be stopped")

    with Company(scenario(), [Peer("broken", "broken", "", start)], tmp_path, said.append) as company:
        (rival,) = company.rivals
        made = rival.run(0.1, 1)
        (absent,) = company.results({"broken": [made]})

    assert made.invalid == ["ConnectionRefusedError: it has gone"]
    assert absent.runs == [made]
    assert "did not end well: OSError: cannot be stopped" in said[-1]


def test_the_list_shows_every_peer_and_whether_it_can_run_here(capsys):
    show_peers([*PEERS.values(), Peer("other", "other", "", no_server, ("a_module_that_nobody_has",))])
    said = capsys.readouterr().out

    assert all(name in said for name in PEERS)
    assert "not installed" in said
