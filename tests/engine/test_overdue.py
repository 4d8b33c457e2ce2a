"""Overdue holds: freed without traffic, before anything is refused, and each one alone if it is broken."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from engine.shards import CATALOGUE, PATIENT, Shard, audited_sequence, hold, until
from one_redis import OneRedis
from redis.asyncio import Redis

from allocation.commands import (
    ConfigureSku,
    Move,
    MovedLine,
    Movement,
    ReadReservation,
    Release,
    Reserve,
    Wanted,
)
from allocation.gate import redis_gate
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.outcomes import Outcome, State
from allocation.ports import Batch

META, _, RESERVATIONS, EVENTS, _, DEADLINES, *_ = shard_keys(0)
TTL_MS, MINUTE_MS = 60_000, 60_000
LINES, QUANTITY = 7, 1


@pytest.fixture
async def shard(gate: RedisGate, database_url: str) -> AsyncIterator[Shard]:
    """Give a running pipeline with a hundred mugs in London, which sweeps when it is called only."""
    async with Shard.open(gate, database_url) as shard:
        await shard.do(*CATALOGUE)
        yield shard


@pytest.fixture
def sweeps_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a call end two overdue holds, and forget two records, at most."""
    monkeypatch.setattr(redis_gate, "OVERDUE_PER_CALL_MAX", 2)


async def pass_time(redis: Redis, milliseconds: int) -> int:
    """Let the gate's clock run ahead; give its time."""
    seconds, _ = await redis.time()
    now_ms = int(seconds) * 1000 + milliseconds
    await redis.hset(META, "last_ms", now_ms)
    return now_ms


async def break_hold(redis: Redis, reservation_id: str, units: int) -> None:
    """Let a record claim more units than are reserved for it, so that none can be given back."""
    record = msgspec.msgpack.decode(await redis.hget(RESERVATIONS, reservation_id))
    record[LINES][0][QUANTITY] += units
    await redis.hset(RESERVATIONS, reservation_id, msgspec.msgpack.encode(record))


async def call(shard: Shard, *commands: Reserve) -> Batch:
    """Make one call to the gate and no more."""
    verified = shard.pipeline.verified
    assert verified is not None
    return await shard.gate.decide(
        verified.head.epoch, verified.identity, commands, shard.pipeline.durable_sequence
    )


async def state_of(shard: Shard, reservation_id: str) -> State:
    """Read the state of one reservation."""
    (decision,) = await shard.do(ReadReservation(reservation_id))
    assert decision.record is not None
    return decision.record.state


async def test_a_hold_that_cannot_be_closed_stops_nobody(
    shard: Shard, redis: Redis, database_url: str
) -> None:
    """Its neighbours expire, every command is decided, and what it claims stays unsold."""
    await shard.do(hold("broken", 1, TTL_MS), hold("sound", 9, TTL_MS))
    await break_hold(redis, "broken", 100)
    await pass_time(redis, 2 * TTL_MS)
    sale, more, sku = await shard.do(hold("sale", 99), hold("more", 1), ConfigureSku("CUP", ()))
    assert sale.outcome is Outcome.HELD
    assert more.outcome is Outcome.INSUFFICIENT_STOCK
    assert sku.outcome is Outcome.CREATED
    assert await state_of(shard, "sound") is State.EXPIRED
    assert await state_of(shard, "broken") is State.HELD
    await audited_sequence(database_url)


@pytest.mark.parametrize("record", [b"\xc1", b"\x07", b"\x93\x01\x05\xa0"])
async def test_a_record_that_cannot_be_read_stops_nobody(
    shard: Shard, redis: Redis, record: bytes
) -> None:
    """An overdue member whose record is no reservation is left alone."""
    await shard.do(hold("broken", 1, TTL_MS), hold("sound", 9, TTL_MS))
    await redis.hset(RESERVATIONS, "broken", record)
    await pass_time(redis, 2 * TTL_MS)
    (sale,) = await shard.do(hold("sale", 99))
    assert sale.outcome is Outcome.HELD
    assert await redis.hget(RESERVATIONS, "broken") == record


@pytest.mark.usefixtures("sweeps_of_two")
async def test_broken_holds_do_not_starve_the_others(shard: Shard, redis: Redis) -> None:
    """More broken holds than one call looks at keep neither a sale nor a refusal waiting."""
    broken = [f"b{number}" for number in range(5)]
    await shard.do(*(hold(name, 1, TTL_MS) for name in broken), hold("sound", 95, TTL_MS + 1))
    for name in broken:
        await break_hold(redis, name, 100)
    await pass_time(redis, 2 * TTL_MS)
    (sale,) = await shard.do(hold("sale", 95))
    assert sale.outcome is Outcome.HELD
    assert (await shard.do(hold("more", 1)))[0].outcome is Outcome.INSUFFICIENT_STOCK


async def test_a_broken_hold_is_tried_again_a_minute_later(shard: Shard, redis: Redis) -> None:
    """Only its turn is put off, not its deadline; once it is mended it expires."""
    await shard.do(hold("broken", 100, TTL_MS))
    sound = await redis.hget(RESERVATIONS, "broken")
    await break_hold(redis, "broken", 1)
    broken = await redis.hget(RESERVATIONS, "broken")
    now_ms = await pass_time(redis, 2 * TTL_MS)
    (refused,) = await shard.do(hold("sale", 1))
    assert refused.outcome is Outcome.INSUFFICIENT_STOCK
    assert await redis.hget(RESERVATIONS, "broken") == broken
    assert await redis.zscore(DEADLINES, "rbroken") == now_ms + MINUTE_MS
    await redis.hset(RESERVATIONS, "broken", sound)
    await pass_time(redis, 2 * TTL_MS + MINUTE_MS)
    (sale,) = await shard.do(hold("later", 100))
    assert sale.outcome is Outcome.HELD
    assert await state_of(shard, "broken") is State.EXPIRED


async def test_a_rebuild_mends_a_broken_hold(shard: Shard, redis: Redis, database_url: str) -> None:
    """The ledger never saw the broken record, nor that its turn was put off."""
    await shard.do(hold("broken", 100, TTL_MS))
    await break_hold(redis, "broken", 1)
    now_ms = await pass_time(redis, 2 * TTL_MS)
    before = await audited_sequence(database_url)
    (decision,) = await shard.do(ReadReservation("broken"))
    assert decision.outcome is Outcome.FOUND
    assert await audited_sequence(database_url) == before
    await redis.delete(*shard_keys(0))
    shard.pipeline._lose_gate()
    await until(lambda: shard.pipeline.verified)
    await redis.hset(META, "last_ms", now_ms)
    (sale,) = await shard.do(hold("sale", 100))
    assert sale.outcome is Outcome.HELD
    assert await state_of(shard, "broken") is State.EXPIRED


@pytest.mark.usefixtures("sweeps_of_two")
async def test_sweeping_goes_on_at_once_until_all_is_swept(shard: Shard, redis: Redis) -> None:
    """One call that found more than it could end is followed by the next, without traffic or timer."""
    await shard.do(*(hold(f"r{number}", 1, TTL_MS) for number in range(20)))
    before = shard.pipeline.durable_sequence
    await pass_time(redis, 2 * TTL_MS)
    await shard.do(ReadReservation("r0"))
    await until(lambda: shard.pipeline.durable_sequence == before + 20)


@pytest.mark.usefixtures("sweeps_of_two")
async def test_sweeping_waits_for_the_ledger(shard: Shard, redis: Redis) -> None:
    """What the ledger has not taken yet bounds how far sweeping runs ahead; then it goes on by itself."""
    shard.pipeline.limits = msgspec.structs.replace(PATIENT, swept_ahead_max=6)
    await shard.do(*(hold(f"r{number}", 1, TTL_MS) for number in range(40)))
    before = shard.pipeline.durable_sequence
    opened = asyncio.Event()

    async def wait() -> None:
        await opened.wait()

    shard.ledger.before = wait
    await pass_time(redis, 2 * TTL_MS)
    read = shard.pipeline.submit(ReadReservation("r0"))
    await until(lambda: shard.pipeline.ledger_lag_seconds > 0.1)
    state = await shard.gate.present_state()
    assert state is not None
    assert before + 6 <= state[1] <= before + 8
    opened.set()
    assert (await read).outcome is Outcome.FOUND
    await until(lambda: shard.pipeline.durable_sequence == before + 40)


@pytest.mark.usefixtures("sweeps_of_two")
async def test_a_partial_sale_waits_for_overdue_holds_too(shard: Shard, redis: Redis) -> None:
    """A partial reservation gets all that it asked for where only overdue holds stand before it."""
    await shard.do(*(hold(f"r{number}", 10, TTL_MS) for number in range(10)))
    await pass_time(redis, 2 * TTL_MS)
    wanted = (Wanted("MUG", 100),)
    (sale,) = await shard.do(Reserve("sale", "", "web", TTL_MS, True, "", wanted))  # noqa: FBT003
    assert sale.record is not None
    assert sale.record.shortages == ()
    assert sum(line.quantity for line in sale.record.lines) == 100


@pytest.mark.usefixtures("sweeps_of_two")
async def test_what_is_to_be_forgotten_delays_no_sale(redis: Redis, database_url: str) -> None:
    """However many closed records and movements are due, the first call ends the holds and sells."""
    gate = RedisGate(OneRedis(redis), 0, 1, 1)
    async with Shard.open(gate, database_url) as shard:
        await shard.do(*CATALOGUE, hold("all", 100, TTL_MS))
        verified = shard.pipeline.verified
        assert verified is not None
        gate._retention = (TTL_MS - 1, TTL_MS - 1)
        line = (MovedLine("MUG", "PAR", 1),)
        await shard.do(*(hold(f"r{number}") for number in range(20)))
        moved = [Move(f"e{number}", "", int(Movement.RECEIPT), 0, "", line) for number in range(20)]
        await shard.do(*moved)
        await pass_time(redis, 2 * TTL_MS)
        batch = await call(shard, hold("sale", 100))
        assert batch.head.swept_all
        assert batch.decisions[0].outcome is Outcome.HELD
        assert await redis.hexists(RESERVATIONS, "r19")


@pytest.mark.usefixtures("sweeps_of_two")
async def test_every_call_forgets_a_few(redis: Redis, database_url: str) -> None:
    """Closed records and movements go as calls are made, the oldest first, and holds stay."""
    gate = RedisGate(OneRedis(redis), 0, TTL_MS, 2 * TTL_MS)
    async with Shard.open(gate, database_url) as shard:
        await shard.do(*CATALOGUE, hold("kept", 1, 100 * TTL_MS))
        for name in ("r0", "r1", "r2"):
            await shard.do(hold(name), Release(name))
            await asyncio.sleep(0.002)
        await pass_time(redis, 3 * TTL_MS)
        await call(shard)
        assert await redis.hkeys(RESERVATIONS) == [b"", b"kept", b"r2"]
        await call(shard)
        assert await redis.hkeys(RESERVATIONS) == [b"", b"kept"]
        assert await redis.hkeys(EVENTS) == [b""]
        assert await redis.zrange(DEADLINES, 0, -1) == [b"rkept", b""]


async def test_a_call_ends_so_many_lines_only(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, redis: Redis
) -> None:
    """A cart of many lines counts as what it is, so that no call blocks Redis for long."""
    monkeypatch.setattr(redis_gate, "OVERDUE_PER_CALL_MAX", 4)
    skus = ("MUG", "CUP", "PEN")
    await shard.do(*(ConfigureSku(sku, ()) for sku in skus))
    line = tuple(MovedLine(sku, "LON", 10) for sku in skus)
    await shard.do(Move("more", "", int(Movement.RECEIPT), 0, "", line))
    cart = tuple(Wanted(sku, 1) for sku in skus)
    for number in range(3):
        await shard.do(Reserve(f"r{number}", "", "web", TTL_MS, False, "", cart))  # noqa: FBT003
    await pass_time(redis, 2 * TTL_MS)
    first, second = await call(shard), await call(shard)
    assert (len(first.entries), first.head.swept_all) == (2, False)
    assert (len(second.entries), second.head.swept_all) == (1, True)
