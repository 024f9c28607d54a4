"""Nothing that saw a turn leaves the host before that turn is durable, and a failed append lets nothing out at all."""

from __future__ import annotations

from actors.domain.answers import OK, REFUSED, ReplyStatus
from actors.domain.outcomes import RefusalReason
from actors.journal.memory import MemoryJournal
from actors.shard.host_config import EXIT_FENCED, EXIT_JOURNAL
from tests.integration.host_world import availability, receipt, reserve, status, until, world


async def test_a_grant_leaves_only_when_its_append_is_durable():
    async with world() as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 10))
        here.hold.hold()
        asked = gateway.send(reserve("A", 3))
        await until(lambda: here.hold.begun > here.hold.done)
        await gateway.settled()
        assert asked not in gateway.answers
        here.hold.let_go()
        [reply] = await gateway.answer(asked)
        assert reply[0] == OK


async def test_what_was_applied_during_a_commit_waits_for_it_refusals_reads_and_status_included():
    async with world() as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 1))
        here.hold.hold()
        won = gateway.send(reserve("A"))
        await until(lambda: here.hold.begun > here.hold.done)
        lost = gateway.send(reserve("A"))
        read = gateway.send(availability("A"))
        asked = gateway.send(status())
        await gateway.settled()
        assert not {won, lost, read, asked} & set(gateway.answers)
        here.hold.let_go()
        [granted], [refused], [view] = await gateway.answer(won), await gateway.answer(lost), await gateway.answer(read)
        assert granted[0] == OK
        assert (refused[0], refused[2][0]) == (REFUSED, RefusalReason.INSUFFICIENT_STOCK)
        assert view[2][0] == [[0, True, False]]
        [[_, _, [told]]] = await gateway.answer(asked)
        assert told["live_reservations"] == 1


async def test_a_turn_of_reads_ends_with_a_check_of_its_epochs():
    async with world() as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 5))
        appends, checks = here.hold.begun, here.hold.checks
        await gateway.ask(availability("A"))
        assert (here.hold.begun, here.hold.checks) == (appends, checks + 1)


async def test_a_former_owner_answers_neither_reads_nor_refusals_nor_status_and_ends():
    for late in (availability("A"), reserve("A", 99), status()):
        async with world() as here:
            gateway = await here.gateway()
            await gateway.ask(receipt("A", 5))
            MemoryJournal(here.store).take_over(range(64))
            asked = gateway.send(late)
            await until(lambda: bool(here.ends))  # noqa: B023  awaited in the same round
            await gateway.settled()
            assert here.ends[0][0] == EXIT_FENCED
            assert asked not in gateway.answers


async def test_a_failed_append_ends_the_process_once_and_lets_nothing_out():
    async with world() as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 5))
        here.store.faults.fail_appends = 1
        here.hold.hold()
        asked = [gateway.send(reserve("A"))]
        await until(lambda: here.hold.begun > here.hold.done)
        asked += [gateway.send(reserve("A")), gateway.send(availability("A")), gateway.send(reserve("A", 99))]
        await gateway.settled()
        here.hold.let_go()
        await until(lambda: bool(here.ends))
        await gateway.settled()
        assert [code for code, _ in here.ends] == [EXIT_JOURNAL]
        assert not set(asked) & set(gateway.answers)


async def test_an_append_of_unknown_outcome_ends_the_process_and_the_next_owner_gives_its_answer():
    async with world() as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 5))
        here.store.faults.unknown_appends = 1
        order = reserve("A", 2, request_id="mine")
        gateway.send(order)
        await until(lambda: bool(here.ends))
        await here.start_host()
        again = await here.gateway()
        [reply], [view] = await again.ask(order), await again.ask(availability("A"))
        assert (reply[0], reply[1]) == (OK, True)
        assert view[2][0][0][0] == 3


async def test_a_retry_after_an_append_that_never_happened_is_applied_once():
    async with world() as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 5))
        here.store.faults.fail_appends = 1
        order = reserve("A", 2, request_id="mine")
        gateway.send(order)
        await until(lambda: bool(here.ends))
        await here.start_host()
        again = await here.gateway()
        [reply], [repeat] = await again.ask(order), await again.ask(order)
        assert [reply[1], repeat[1], reply[2][:6]] == [False, True, repeat[2][:6]]
        [view] = await again.ask(availability("A"))
        assert view[2][0][0][0] == 3


async def test_a_frame_over_many_shards_is_one_append():
    async with world() as here:
        gateway = await here.gateway()
        begun = here.hold.begun
        replies = await gateway.ask(*[receipt(f"SKU-{number}", 5) for number in range(200)])
        assert {reply[0] for reply in replies} == {ReplyStatus.OK}
        assert here.hold.begun == begun + 1
        assert len({len(rows) for rows in here.store.records.values()}) > 1


async def test_what_gathers_while_a_commit_runs_goes_with_the_next_two():
    async with world() as here:
        gateway = await here.gateway()
        await gateway.ask(receipt("A", 1_000))
        here.hold.hold()
        begun = here.hold.begun
        asked = [gateway.send(reserve("A"))]
        await until(lambda: here.hold.begun > here.hold.done)
        asked += [gateway.send(reserve("A")) for _ in range(100)]
        await gateway.settled()
        here.hold.let_go()
        for frame_id in asked:
            [reply] = await gateway.answer(frame_id)
            assert reply[0] == OK
        assert here.hold.begun <= begun + 3
