"""The durable path: what is answered when, and what happens when a step of it fails."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import msgspec
import pytest
from engine.shards import CATALOGUE, PATIENT, Shard, audited_sequence, hold, until
from redis.asyncio import Redis

from allocation.commands import Confirm, ReadReservation
from allocation.errors import GateUnverified, LedgerUnavailable, OutcomeUnknown
from allocation.gate import redis_gate
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.outcomes import Outcome
from allocation.ports import Batch

META, *REST = shard_keys(0)
REFUSALS_FROM = Outcome.INSUFFICIENT_STOCK


@pytest.fixture
async def shard(gate: RedisGate, database_url: str) -> AsyncIterator[Shard]:
    """Give a running pipeline with a hundred mugs in London."""
    async with Shard.open(gate, database_url) as shard:
        await shard.do(*CATALOGUE)
        shard.ledger.appended.clear()
        yield shard


def gated(shard: Shard) -> asyncio.Event:
    """Hold every append of a shard back until the event is set."""
    opened = asyncio.Event()

    async def wait() -> None:
        await opened.wait()

    shard.ledger.before = wait
    return opened


def once(action: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Do something the first time only."""
    done: list[bool] = []

    async def act() -> None:
        if not done:
            done.append(True)
            await action()

    return act


async def test_an_answer_comes_only_when_its_entry_is_durable(
    shard: Shard, database_url: str
) -> None:
    """While the ledger has not taken a decision, nobody hears of it; afterwards it is there."""
    opened = gated(shard)
    answer = shard.pipeline.submit(hold("r1"))
    await until(lambda: shard.pipeline.ledger_lag_seconds)
    assert not answer.done()
    opened.set()
    decision = await answer
    assert decision.outcome is Outcome.HELD
    assert decision.version == await audited_sequence(database_url)


async def test_everything_decided_meanwhile_is_appended_together(shard: Shard) -> None:
    """One append is in flight; what is decided during it goes into the next, all of it, in order."""
    opened = gated(shard)
    answers = []
    for number in range(5):
        answers.append(shard.pipeline.submit(hold(f"r{number}")))
        await until(lambda: not shard.pipeline.waiting)
    assert not any(answer.done() for answer in answers)
    opened.set()
    assert [(await answer).outcome for answer in answers] == [Outcome.HELD] * 5
    assert shard.ledger.appended == [1, 4]


async def test_a_small_batch_waits_for_the_append_under_way(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few commands wait for the ledger, and go to the gate together; many go at once."""
    sizes: list[int] = []
    decide = shard.gate.decide

    async def counted(*arguments: Any) -> Batch:
        sizes.append(len(arguments[2]))
        return await decide(*arguments)

    monkeypatch.setattr(shard.gate, "decide", counted)
    shard.pipeline.limits = msgspec.structs.replace(PATIENT, early_batch_min=32)
    opened = gated(shard)
    first = shard.pipeline.submit(hold("first"))
    await until(lambda: sizes == [1] and not shard.pipeline.waiting)
    few = [shard.pipeline.submit(hold(f"few{number}")) for number in range(3)]
    await asyncio.sleep(0.05)
    assert sizes == [1]
    many = [shard.pipeline.submit(hold(f"many{number}")) for number in range(29)]
    await until(lambda: sizes == [1, 32])
    last = [shard.pipeline.submit(hold(f"last{number}")) for number in range(2)]
    await asyncio.sleep(0.05)
    opened.set()
    answers = await asyncio.gather(first, *few, *many, *last)
    assert {answer.outcome for answer in answers} == {Outcome.HELD}
    assert sizes == [1, 32, 2]


async def test_replays_and_reads_wait_for_what_they_tell(shard: Shard) -> None:
    """A repeated request and a read are not answered before the reservation in them is durable."""
    opened = gated(shard)
    first = shard.pipeline.submit(hold("r1"))
    await until(lambda: not shard.pipeline.waiting)
    replay = shard.pipeline.submit(hold("r1"))
    read = shard.pipeline.submit(ReadReservation("r1"))
    await until(lambda: not shard.pipeline.waiting)
    assert not any(answer.done() for answer in (first, replay, read))
    opened.set()
    assert (await replay).outcome is Outcome.REPLAYED
    assert (await read).outcome is Outcome.FOUND
    assert first.done()


async def test_an_append_whose_connection_dies_is_made_once(
    shard: Shard, database_url: str
) -> None:
    """A backend that is ended while it appends leaves the answer open until the head was read again."""
    blocker = await asyncpg.connect(database_url)
    blocking = blocker.transaction()
    await blocking.start()
    await blocker.execute("SELECT 1 FROM shard_head FOR UPDATE")
    answer = shard.pipeline.submit(hold("r1"))
    ended = 0
    while not ended:
        ended = await blocker.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    assert not answer.done()
    await blocking.rollback()
    await blocker.close()
    assert (await answer).outcome is Outcome.HELD
    await audited_sequence(database_url)


async def test_a_commit_whose_answer_was_lost_is_not_repeated(
    shard: Shard, database_url: str
) -> None:
    """Where the commit had happened after all, the head says so and the entry is there once."""

    async def lose_the_answer() -> None:
        raise LedgerUnavailable

    before = await audited_sequence(database_url)
    shard.ledger.after = once(lose_the_answer)
    (decision,) = await shard.do(hold("r1"))
    assert decision.outcome is Outcome.HELD
    assert await audited_sequence(database_url) == before + 1
    assert shard.ledger.appended == [1]


async def test_a_newer_epoch_in_the_ledger_stops_every_answer(
    shard: Shard, database_url: str
) -> None:
    """A process that was taken over learns it from Postgres, says "unknown", and joins again."""
    rival = PostgresLedger(database_url, 0)
    head = await rival.head()
    await rival.take_over(head.run_id, head.replication_id, head.epoch)
    with pytest.raises(OutcomeUnknown):
        await shard.do(hold("r1"))
    await until(lambda: shard.pipeline.verified)
    assert (await shard.do(hold("r1")))[0].outcome is Outcome.REPLAYED
    assert (await rival.head()).epoch == head.epoch + 2
    await audited_sequence(database_url)
    await rival.close()


async def test_a_newer_epoch_found_after_a_lost_connection_stops_every_answer(
    shard: Shard, database_url: str
) -> None:
    """Fault and take-over at once: the pipeline settles what it decided and goes on."""
    rival = PostgresLedger(database_url, 0)

    async def take_over_and_fail() -> None:
        head = await rival.head()
        await rival.take_over(head.run_id, head.replication_id, head.epoch)
        raise LedgerUnavailable

    shard.ledger.before = once(take_over_and_fail)
    with pytest.raises(OutcomeUnknown):
        await asyncio.wait_for(shard.pipeline.submit(hold("r1")), 10)
    await until(lambda: shard.pipeline.verified)
    assert (await shard.do(hold("r1")))[0].outcome is Outcome.REPLAYED
    await rival.close()


async def test_a_newer_epoch_in_redis_decides_nothing(shard: Shard, database_url: str) -> None:
    """A gate that somebody else has armed refuses the batch whole; then the shard is taken over."""
    verified = shard.pipeline.verified
    assert verified is not None
    state = await shard.gate.present_state()
    assert state is not None
    assert await shard.gate.load_step("arm", verified.head.epoch + 1, *state[1:])
    with pytest.raises(GateUnverified):
        await shard.do(hold("r1"))
    await until(lambda: shard.pipeline.verified)
    assert (await shard.do(hold("r1")))[0].outcome is Outcome.HELD
    await audited_sequence(database_url)


async def test_an_older_loader_that_wakes_up_is_refused(shard: Shard) -> None:
    """Every step of a take-over that has been overtaken is refused, and changes nothing."""
    verified = shard.pipeline.verified
    assert verified is not None
    stale = verified.head.epoch - 1
    assert not await shard.gate.load_step("begin", stale)
    assert not await shard.gate.load_step("put", stale, 2, "MUG", b"\xc0")
    assert not await shard.gate.load_step("open", stale, 0, "", 0)
    assert (await shard.do(hold("r1")))[0].outcome is Outcome.HELD


async def test_a_sale_waits_for_more_overdue_holds_than_one_call_sweeps(
    shard: Shard, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sale, late confirmation or order is refused while overdue holds remain to be swept."""
    monkeypatch.setattr(redis_gate, "OVERDUE_PER_CALL_MAX", 2)
    await shard.do(*(hold(f"r{number}", 10, ttl_ms=60_000) for number in range(10)))
    seconds, _ = await redis.time()
    await redis.hset(META, "last_ms", (int(seconds) + 120) * 1000)
    sale, late = await shard.do(hold("sale", 90), Confirm("r3", ""))
    assert sale.outcome is Outcome.HELD
    assert late.outcome is Outcome.COMMITTED
    assert (await shard.do(hold("more", 1)))[0].outcome is Outcome.INSUFFICIENT_STOCK


async def test_two_pipelines_share_a_shard(
    shard: Shard, gate: RedisGate, database_url: str
) -> None:
    """Both decide and append at once; every answer is given, and the ledger has no gap."""
    async with Shard.open(gate, database_url) as other:
        assert other.pipeline.take_overs == 0
        decisions = await asyncio.gather(
            *(
                pipe.do(hold(f"{name}{number}"))
                for number in range(60)
                for name, pipe in (("a", shard), ("b", other))
            )
        )
    outcomes = [decision.outcome for (decision,) in decisions]
    assert outcomes.count(Outcome.HELD) == 100
    assert outcomes.count(Outcome.INSUFFICIENT_STOCK) == 20
    assert await audited_sequence(database_url) == len(CATALOGUE) + 120


async def test_a_pipeline_appends_what_another_decided_and_could_not(
    shard: Shard, gate: RedisGate, database_url: str
) -> None:
    """The entries before one's own are found in the journal; their process hears of it from the head."""
    opened = gated(shard)
    first = shard.pipeline.submit(hold("r1"))
    await until(lambda: not shard.pipeline.waiting)
    async with Shard.open(gate, database_url) as other:
        assert (await other.do(hold("r2")))[0].outcome is Outcome.HELD
        assert other.ledger.appended == [2]
        assert not first.done()
        opened.set()
        assert (await first).outcome is Outcome.HELD
    assert await audited_sequence(database_url) == len(CATALOGUE) + 2


async def test_an_emptied_redis_is_rebuilt_as_it_was(
    shard: Shard, redis: Redis, database_url: str
) -> None:
    """Missing state is never empty stock: it is put together again from the ledger, byte for byte."""
    await shard.do(*(hold(f"r{number}") for number in range(20)), Confirm("r3", "O3"))
    before = await _everything(redis)
    await redis.delete(META, *REST)
    with pytest.raises(GateUnverified):
        await shard.do(hold("lost"))
    await until(lambda: shard.pipeline.verified)
    assert await _everything(redis) == before
    assert (await shard.do(hold("r1")))[0].outcome is Outcome.REPLAYED
    assert (await shard.do(hold("more", 81)))[0].outcome is Outcome.INSUFFICIENT_STOCK
    assert (await shard.do(hold("rest", 80)))[0].outcome is Outcome.HELD
    await audited_sequence(database_url)


async def test_a_command_in_flight_at_the_stop_is_answered_unknown(
    shard: Shard, redis: Redis
) -> None:
    """Nobody waits for ever: what was sent may have been decided, what still waited was not."""
    shard.pipeline.limits = msgspec.structs.replace(PATIENT, answer_seconds_max=0.05)
    await redis.client_pause(60_000, all=False)
    in_flight = shard.pipeline.submit(hold("r1"))
    await until(lambda: shard.pipeline._sent)
    waiting = shard.pipeline.submit(hold("r2"))
    await shard.pipeline.stop()
    await redis.client_unpause()
    assert isinstance(in_flight.exception(), OutcomeUnknown)
    assert isinstance(waiting.exception(), GateUnverified)


async def test_an_outage_of_the_ledger_takes_no_memory(shard: Shard) -> None:
    """However long nothing can be appended, calls that decide nothing leave nothing waiting."""
    opened = gated(shard)
    answer = shard.pipeline.submit(hold("r1"))
    await until(lambda: not shard.pipeline.waiting)
    for _ in range(20):
        shard.pipeline._work.set()
        await until(lambda: not shard.pipeline._work.is_set())
    read = shard.pipeline.submit(ReadReservation("r1"))
    await until(lambda: not shard.pipeline.waiting)
    assert len(shard.pipeline._commit._decided) == 2
    opened.set()
    assert [(await one).outcome for one in (answer, read)] == [Outcome.HELD, Outcome.FOUND]


async def test_an_idle_pipeline_hears_what_another_made_durable(
    shard: Shard, gate: RedisGate, database_url: str
) -> None:
    """A call that decides nothing still finds out that the ledger has gone on."""
    async with Shard.open(gate, database_url) as other:
        await other.do(hold("r1"))
        shard.pipeline._work.set()
        await until(lambda: shard.pipeline.durable_sequence == other.pipeline.durable_sequence)


async def test_an_idle_pipeline_appends_what_a_dead_one_decided(
    shard: Shard, gate: RedisGate, database_url: str
) -> None:
    """Decisions whose process ended before it could append them become durable without traffic."""
    before = await audited_sequence(database_url)
    async with Shard.open(gate, database_url) as other:
        opened = gated(other)
        late = other.pipeline.submit(hold("r1"))
        await until(lambda: not other.pipeline.waiting)
        shard.pipeline._work.set()
        await until(lambda: shard.pipeline.durable_sequence == before + 1)
        opened.set()
        assert (await late).outcome is Outcome.HELD


async def test_a_caller_that_goes_away_undoes_nothing(shard: Shard) -> None:
    """A cancelled wait neither stops the batch nor takes the decision back."""
    answer = shard.pipeline.submit(hold("r1"))
    answer.cancel()
    assert (await shard.do(hold("r2")))[0].outcome is Outcome.HELD
    assert (await shard.do(hold("r1")))[0].outcome is Outcome.REPLAYED


POISON: dict[str, list[object]] = {
    "unknown operation": [99, "p"],
    "no operation": [],
    "fields missing": [1, "p"],
    "no lines": [1, "p", "", "web", 1_000, False, "", None],
    "line is no list": [1, "p", "", "web", 1_000, False, "", ["MUG"]],
    "quantity is text": [1, "p", "", "web", 1_000, False, "", [["MUG", "many", ""]]],
    "time is text": [1, "p", "", "web", "soon", False, "", [["MUG", 1, ""]]],
    "id is a list": [2, ["p"], "O1"],
    "unknown movement": [6, "p", "", 99, 0, "", [["MUG", "LON", 1, "", ""]]],
    "moved quantity missing": [6, "p", "", 1, 0, "", [["MUG", "LON", None, "", ""]]],
    "half of it is sound": [6, "p", "", 1, 0, "", [["MUG", "LON", 5, "", ""], ["MUG", "LON"]]],
    "locations are a number": [9, "web", "", 7],
}


async def test_a_poison_command_refuses_itself_alone(shard: Shard, redis: Redis) -> None:
    """Malformed commands change nothing, and those between them are decided as ever."""
    verified = shard.pipeline.verified
    assert verified is not None
    commands: list[Any] = []
    for number, poison in enumerate(POISON.values()):
        commands += [hold(f"r{number}"), poison]
    batch = await shard.gate.decide(
        verified.head.epoch, verified.identity, commands, verified.head.last_sequence
    )
    outcomes = [decision.outcome for decision in batch.decisions]
    assert outcomes[::2] == [Outcome.HELD] * len(POISON)
    refused = dict(zip(POISON, outcomes[1::2], strict=True))
    assert {name for name, outcome in refused.items() if outcome < REFUSALS_FROM} == set()
    assert len(batch.entries) == len(POISON)
    assert await redis.hkeys(REST[2]) == [b"", b"opening"]
    rest = 100 - len(POISON)
    assert (await shard.do(hold("more", rest + 1)))[0].outcome is Outcome.INSUFFICIENT_STOCK
    assert (await shard.do(hold("rest", rest)))[0].outcome is Outcome.HELD


async def test_a_command_that_cannot_be_packed_stops_nobody(shard: Shard) -> None:
    """Text that is no Unicode, which no JSON decoder lets through, costs its neighbours nothing."""
    neighbour = shard.pipeline.submit(hold("r1"))
    with pytest.raises(UnicodeEncodeError):
        shard.pipeline.submit(hold("r\ud800"))
    assert (await asyncio.wait_for(neighbour, 1)).outcome is Outcome.HELD


async def _everything(redis: Redis) -> dict[str, object]:
    stock, reservations, events, configuration, deadlines, moves, _ = REST
    hashes = {key: await redis.hgetall(key) for key in (stock, reservations, events, configuration)}
    sets = {key: await redis.zrange(key, 0, -1, withscores=True) for key in (deadlines, moves)}
    return {**hashes, **sets, META: await redis.hmget(META, ["sequence", "hash"])}
