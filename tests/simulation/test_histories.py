"""Histories are spelled right: what a client saw and what the journal holds are the same decision at the same place."""

from __future__ import annotations

from actors.domain.outcomes import Fact
from stockade.client.calls import Calls
from stockade.client.facts import Told, promise, shipment
from tests.simulation.history import OK, Place
from tests.simulation.history_client import attempted as attempted_by_client
from tests.simulation.journal_facts import journal_facts
from tests.simulation.recording import RecordingWorld


def a_day() -> RecordingWorld:
    world = RecordingWorld()
    world.receive("shoe", 10)
    world.receive("hat", 5)
    order = world.reserve(("shoe", 2), ("hat", 3))
    world.confirm(order, "order 1")
    world.ship("shoe", 2, "shipment 1", order)
    world.ats("shoe")
    world.get(order)
    world.set_policy("shoe", safety=2)
    world.release(order)
    world.tell(Fact.UNPICK, "hat", 1, [])
    return world


def test_an_acknowledged_change_is_one_effect_of_the_journal_at_its_own_position():
    world = a_day()
    effects = [effect for effect in journal_facts(world.journal).effects if effect.kind == "command"]
    changes = [operation for operation in world.operations if not operation.verb.startswith("get")]

    assert len(effects) == len(changes)
    for operation in changes:
        place = operation.positions[operation.home]
        told_at = [effect.told_at for effect in effects]
        assert told_at.count((operation.home, place.epoch, place.sequence)) == 1, operation.about


def test_an_order_over_several_shards_is_one_effect():
    world = a_day()
    reserve = next(one for one in world.operations if one.verb == "reserve")
    facts = journal_facts(world.journal)
    effect = next(one for one in facts.effects if one.verb == "reserve")

    assert len(effect.spans) == 2
    assert {shard: span.last for shard, span in effect.spans.items()} == {
        shard: place.sequence for shard, place in reserve.positions.items()
    }
    assert effect.identity == ("request", "web", reserve.arguments["request_id"])
    assert facts.problems == []


def test_what_the_journal_alone_knows_is_there():
    world = RecordingWorld()
    world.receive("shoe", 1)
    order = world.reserve(("shoe", 1), ttl_ms=1_000)
    world.pass_ms(1_000)
    world.pass_ms(16 * 60_000)
    effects = journal_facts(world.journal).effects

    assert [effect.reservation_id for effect in effects if effect.kind == "expiry"] == [order.id]
    left = [(effect.kind, effect.key[1]) for effect in effects if effect.kind in ("forgotten", "retired")]
    assert left == [("forgotten", "shoe"), ("retired", "")]
    assert len([effect for effect in effects if effect.kind == "owned"]) == 64


def test_the_journal_tells_a_gap():
    world = a_day()
    shard, records = next((shard, kept) for shard, kept in world.store.records.items() if len(kept) > 3)
    del records[2]

    assert [text for text in journal_facts(world.journal).problems if f"shard {shard}: record" in text]


def test_frames_and_the_client_spell_a_call_alike():
    world = RecordingWorld()
    world.reserve(("shoe", 2), ("hat", 3), request="r")
    world.ship("shoe", 2, "s", ("web", "order 1"), event="e", document_line="1")
    calls = Calls("web")
    lines = [("shoe", "main", 2), ("hat", "main", 3)]
    told = Told("wms", "e", ("shoe", "main"), world.now_ms, document_line="1")
    sent = shipment(told, 2, "s", promise(channel_id="web", order_reference="order 1"))
    asked = [*attempted_by_client("c", calls.reserve_message(lines, request_id="r", ttl_s=60), 0)]
    asked += attempted_by_client("c", calls.ingest([sent]).request, 0)

    assert [one.arguments for one in asked] == [one.arguments for one in world.operations]


def test_an_answer_has_one_place_for_every_shard_it_saw():
    world = a_day()
    read = next(one for one in world.operations if one.verb == "get_reservation")

    assert read.status == OK
    assert len(read.positions) == 2
    assert all(isinstance(place, Place) and place.timeline == "t1" for place in read.positions.values())
