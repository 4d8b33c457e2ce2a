"""The audit on a real Redis and PostgreSQL: it holds after any history and finds each tampering."""

import asyncio
import random
from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest
from redis.asyncio import Redis

from allocation.audit import Audit, Difference, audit
from allocation.commands import (
    Command,
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Confirm,
    Extend,
    Move,
    MovedLine,
    Movement,
    Order,
    Release,
    Reserve,
    Wanted,
)
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.journal import chain
from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.outcomes import Outcome
from allocation.pipeline import Pipeline
from allocation.ports import Decision

STOCK_KEY = shard_keys(0)[1]
LOCATIONS, CHANNELS, SKUS = ("LON", "PAR"), ("web", "pos"), ("MUG", "CUP", "PEN")
# Where the first pool of a stock record has its units on hand.
ON_HAND = 1
# Not partial, and replaces nothing.
WHOLE = (False, "")


class Shard:
    """A shard that takes commands, its ledger, and its servers for tampering."""

    def __init__(self, gate: RedisGate, redis: Redis, database_url: str) -> None:
        self.gate, self.redis, self.database_url = gate, redis, database_url
        self.ledger = PostgresLedger(database_url, 0)
        self.pipeline = Pipeline(gate, self.ledger)
        self.events = 0

    async def do(self, *commands: Command) -> list[Decision]:
        return [await answer for answer in [self.pipeline.submit(one) for one in commands]]

    async def move(self, kind: Movement, sku: str, location: str, units: int) -> None:
        self.events += 1
        line = MovedLine(sku, location, units)
        (decision,) = await self.do(Move(f"e{self.events}", "f", int(kind), 0, "", (line,)))
        assert decision.outcome is Outcome.APPLIED

    async def audit(self) -> Audit:
        return await audit(self.gate, self.ledger)

    async def tamper(self, statement: str, *values: object) -> None:
        """Change the ledger as nobody but its owner can."""
        connection = await asyncpg.connect(self.database_url)
        try:
            await connection.execute("ALTER TABLE ledger DISABLE TRIGGER USER")
            await connection.execute(statement, *values)
        finally:
            await connection.close()

    async def tamper_with_gate(self, sku: str, on_hand: int) -> None:
        record = msgspec.msgpack.decode(await self.redis.hget(STOCK_KEY, sku))
        record[1][ON_HAND] = on_hand
        await self.redis.hset(STOCK_KEY, sku, msgspec.msgpack.encode(record))


@pytest.fixture
async def shard(gate: RedisGate, redis: Redis, database_url: str) -> AsyncIterator[Shard]:
    """Give a shard with ten mugs in London and ten in Paris."""
    shard = Shard(gate, redis, database_url)
    await shard.ledger.create()
    await shard.pipeline.start()
    await shard.do(
        *(ConfigureLocation(code, "") for code in LOCATIONS),
        *(ConfigureChannel(code, "", LOCATIONS) for code in CHANNELS),
        *(ConfigureSku(sku, ()) for sku in SKUS),
    )
    for location in LOCATIONS:
        await shard.move(Movement.RECEIPT, "MUG", location, 10)
    yield shard
    await shard.pipeline.stop()
    await shard.ledger.close()


def hold(reservation_id: str, units: int) -> Reserve:
    return Reserve(reservation_id, "f", "web", 900_000, *WHOLE, (Wanted("MUG", units),))


def random_movement(chance: random.Random, number: int, now_ms: int) -> Move:
    kind = chance.choice(list(Movement))
    location, other = chance.sample(LOCATIONS, 2)
    source, to = "", ""
    if kind is Movement.TRANSFER:
        to = other
    elif kind is Movement.STATUS:
        source, to = chance.choice([("", "damaged"), ("quality_control", ""), ("damaged", "")])
    elif kind in {Movement.RECEIPT, Movement.RETURN}:
        to = chance.choice(["", "", "damaged", "quality_control"])
    units = chance.randint(1, 12) * (chance.choice([-1, 1]) if kind is Movement.ADJUSTMENT else 1)
    named = kind in {Movement.SHIPMENT, Movement.RETURN} and chance.random() < 0.7
    return Move(
        f"m{number}",
        "f",
        int(kind),
        chance.choice([0, 0, now_ms - chance.randint(0, 20_000), now_ms + 5_000]),
        f"r{chance.randrange(40)}" if named else "",
        tuple(
            MovedLine(sku, location, units, source, to)
            for sku in chance.sample(SKUS, chance.randint(1, 2))
        ),
    )


def random_command(chance: random.Random, number: int, now_ms: int) -> Command:
    reservation_id = f"r{chance.randrange(40)}"
    lines = tuple(
        Wanted(sku, chance.randint(1, 8), chance.choice(["", "", *LOCATIONS]))
        for sku in chance.sample(SKUS, chance.randint(1, 3))
    )
    channel = chance.choice(CHANNELS)
    match chance.randrange(11):
        case 0 | 1 | 2:
            ttl_ms, replaces = chance.choice([1, 60_000]), chance.choice(["", "", "r1", "r2"])
            partial = chance.random() < 0.5
            return Reserve(f"r{number}", "f", channel, ttl_ms, partial, replaces, lines)
        case 3 | 4:
            return Confirm(reservation_id, "")
        case 5:
            ttl_ms = chance.choice([1, 60_000])
            return chance.choice([Release(reservation_id), Extend(reservation_id, ttl_ms)])
        case 6:
            return Order(f"r{number}", "f", channel, "", lines)
        case 7:
            return ConfigureSku(chance.choice(SKUS), ("LON", chance.randint(0, 3)))
        case _:
            return random_movement(chance, number, now_ms)


@pytest.mark.parametrize("seed", range(6))
async def test_any_history(shard: Shard, seed: int) -> None:
    """After a random history of every command, all figures add up and nothing was oversold."""
    chance = random.Random(seed)  # noqa: S311 - a workload, nothing secret
    for number in range(0, 600, 20):
        now_ms = 1000 * (await shard.redis.time())[0]
        await shard.do(*(random_command(chance, number + one, now_ms) for one in range(20)))
    found = await shard.audit()
    assert found.breaks == []
    assert found.differences == []
    assert found.oversold == []
    assert found.entries == found.last_sequence > 150


async def test_edited_entry(shard: Shard) -> None:
    """An entry whose body was edited by hand is named."""
    await shard.do(hold("r1", 3), Confirm("r1", ""))
    head = await shard.ledger.head()
    (row,) = await shard.ledger.read(head.last_sequence - 1, 1)
    edited = row[1].replace(b"r1", b"r9")
    await shard.tamper("UPDATE ledger SET body = $1 WHERE sequence = $2", edited, row[0])
    found = await shard.audit()
    assert [(broken.sequence, broken.reason) for broken in found.breaks] == [
        (row[0], "its body does not have its hash")
    ]


async def test_edited_and_chained_again(shard: Shard) -> None:
    """A carried figure that was edited is found even where all hashes were made to fit."""
    await shard.do(hold("r1", 3))
    head = await shard.ledger.head()
    (row,) = await shard.ledger.read(head.last_sequence - 1, 1)
    before = await shard.ledger.hash_at(head.last_sequence - 1)
    entry = msgspec.msgpack.decode(row[1])
    entry[4][0][1][1][ON_HAND] = 12
    body = msgspec.msgpack.encode(entry)
    new_hash = chain(str(before), body)
    await shard.tamper(
        "UPDATE ledger SET body = $1, hash = $2 WHERE sequence = $3", body, new_hash, row[0]
    )
    await shard.tamper("UPDATE shard_head SET last_hash = $1", new_hash)
    found = await shard.audit()
    assert found.differences == [Difference("MUG", "ledger", "LON: on_hand", "10", "12")]
    assert [broken.reason for broken in found.breaks] == ["the gate has another hash"]


@pytest.mark.parametrize("last", [False, True])
async def test_missing_entry(shard: Shard, last: bool) -> None:
    """A deleted entry is named, in the middle and at the end."""
    await shard.do(hold("r1", 3), hold("r2", 3))
    head = await shard.ledger.head()
    missing = head.last_sequence - (0 if last else 1)
    await shard.tamper("DELETE FROM ledger WHERE sequence = $1", missing)
    found = await shard.audit()
    assert found.breaks[0].sequence == missing
    assert found.breaks[0].reason.startswith("missing")


async def test_changed_record(shard: Shard) -> None:
    """A stock record that was changed in Redis is named with both figures."""
    await shard.tamper_with_gate("MUG", on_hand=11)
    found = await shard.audit()
    assert found.differences == [Difference("MUG", "gate", "LON: on_hand", "10", "11")]


async def test_missing_and_strange_records(shard: Shard) -> None:
    """A stock record that vanished from Redis is named, and so is one that nobody configured."""
    await shard.redis.hset(STOCK_KEY, "HAT", await shard.redis.hget(STOCK_KEY, "MUG"))
    await shard.redis.hdel(STOCK_KEY, "MUG")
    found = await shard.audit()
    assert found.differences == [
        Difference("MUG", "gate", "record", "a record", "none"),
        Difference("HAT", "gate", "record", "none", "a record"),
    ]


async def test_lost_gate(shard: Shard) -> None:
    """A Redis that lost everything is no state, and never taken for empty stock."""
    await shard.pipeline.stop()
    await shard.redis.flushdb()
    assert [broken.reason for broken in (await shard.audit()).breaks] == ["the gate has no state"]


async def test_gate_behind(shard: Shard) -> None:
    """A gate that lacks the ledger's last entries is found to be behind."""
    await shard.pipeline.stop()
    await shard.redis.hincrby(shard_keys(0)[0], "sequence", -1)
    assert [one.reason for one in (await shard.audit()).breaks] == ["the gate is behind the ledger"]


async def test_oversold(shard: Shard) -> None:
    """Units that were sold because a record had been changed in Redis are oversold, by entry."""
    await shard.tamper_with_gate("MUG", on_hand=14)
    (decision,) = await shard.do(hold("r1", 22))
    assert decision.outcome is Outcome.HELD
    found = await shard.audit()
    assert [(one.subject, one.sku, one.units) for one in found.oversold] == [("r1", "MUG", 4)]
    assert found.oversold[0].sequence == decision.version


async def test_recorded_excess_is_not_ours(shard: Shard) -> None:
    """A recorded order beyond the stock is not oversold, nor are holds whose stock shrank."""
    await shard.do(Order("r1", "f", "pos", "o1", (Wanted("MUG", 25),)))
    await shard.move(Movement.ADJUSTMENT, "MUG", "PAR", -10)
    found = await shard.audit()
    assert found.holds
    assert found.figures["MUG"]["LON"].available == -5


async def test_audit_beside_work(shard: Shard) -> None:
    """An audit holds while the shard goes on selling."""

    async def sell() -> None:
        for number in range(50):
            await shard.do(hold(f"r{number}", 1), Release(f"r{number}"))

    selling = asyncio.create_task(sell())
    assert (await shard.audit()).holds
    await selling
    assert (await shard.audit()).holds
