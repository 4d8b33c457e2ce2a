"""A decision that breaks half-way leaves nothing behind, whatever its neighbours write."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from engine.shards import CATALOGUE, WHOLE, Shard, audited_sequence, hold
from redis.asyncio import Redis

from allocation.audit import audit
from allocation.commands import (
    Command,
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Confirm,
    Move,
    MovedLine,
    Movement,
    ReadReservation,
    Release,
    Reserve,
    Wanted,
)
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.gate.scripts import library
from allocation.outcomes import Outcome

_, STOCK, RESERVATIONS, *_ = shard_keys(0)
LINES, QUANTITY = 7, 1
# With two channels each, more values than fit behind the short header of a packed array.
MANY_LOCATIONS = 8_191
PACKS_STOCK = "local function pack_stock(record)\n"
# Fails for a record whose first pool is at this location and has fewer units than it began with.
BREAKS = '  if record[2] == "BROKEN" and record[3] < 99 then error("cannot be packed") end\n'


@pytest.fixture
async def shard(gate: RedisGate, database_url: str) -> AsyncIterator[Shard]:
    """Give a running pipeline with a hundred mugs in London."""
    async with Shard.open(gate, database_url) as shard:
        await shard.do(*CATALOGUE)
        yield shard


def ship(reservation_id: str, units: int) -> Move:
    """Let mugs leave for a reservation."""
    line = (MovedLine("MUG", "LON", units),)
    return Move(f"ship {units}", "", int(Movement.SHIPMENT), 0, reservation_id, line)


async def outcomes(shard: Shard, *commands: Command) -> list[Outcome]:
    """Decide commands in one batch."""
    return [decision.outcome for decision in await shard.do(*commands)]


async def test_a_shipment_that_breaks_leaves_its_reservation_alone(
    shard: Shard, redis: Redis
) -> None:
    """What broke in the middle of a line is not written by the next command for that reservation."""
    await shard.do(hold("r1", 2), Confirm("r1", "O1"))
    record = msgspec.msgpack.decode(await redis.hget(RESERVATIONS, "r1"))
    record[LINES][0][QUANTITY] = 3
    await redis.hset(RESERVATIONS, "r1", msgspec.msgpack.encode(record))
    decided = await outcomes(shard, ship("r1", 3), ship("r1", 1), ReadReservation("r1"))
    assert decided == [Outcome.FAULT, Outcome.APPLIED, Outcome.FOUND]
    (read,) = await shard.do(ReadReservation("r1"))
    assert read.record is not None
    assert read.record.lines[0].shipped == 1


async def test_a_decision_that_cannot_be_packed_leaves_nothing_behind(
    shard: Shard, redis: Redis, database_url: str
) -> None:
    """None of the records that it had packed before is written, journaled or told by a neighbour."""
    await shard.do(ConfigureLocation("BROKEN", ""), hold("r1", 2), Confirm("r1", "O1"))
    opening = (MovedLine("CUP", "BROKEN", 99),)
    await shard.do(ConfigureSku("CUP", ()), Move("full", "", int(Movement.RECEIPT), 0, "", opening))
    # One line more in the real functions; every gate that is made ready puts them right again.
    await redis.function_load(library().replace(PACKS_STOCK, PACKS_STOCK + BREAKS), replace=True)
    lines = (MovedLine("MUG", "LON", 1), MovedLine("CUP", "BROKEN", 1))
    leaves = Move("leaves", "", int(Movement.SHIPMENT), 0, "r1", lines)
    (before,) = await shard.do(ReadReservation("r1"))
    broken, sound, read = await shard.do(leaves, hold("r2"), ReadReservation("r1"))
    assert (broken.outcome, sound.outcome) == (Outcome.FAULT, Outcome.HELD)
    (after,) = await shard.do(ReadReservation("r1"))
    assert read.record == before.record == after.record
    await redis.function_load(library(), replace=True)
    assert await outcomes(shard, leaves, ReadReservation("r1")) == [Outcome.APPLIED, Outcome.FOUND]
    await audited_sequence(database_url)
    assert (await audit(shard.gate, shard.ledger)).holds


async def test_a_sku_at_very_many_locations_is_sold_like_any_other(
    shard: Shard, database_url: str
) -> None:
    """A stock record of more than 65,535 values is packed, read, journaled and audited."""
    codes = [f"L{number}" for number in range(MANY_LOCATIONS)]
    await shard.do(*(ConfigureLocation(code, "") for code in codes))
    channels = ("a", "b", "c")
    await shard.do(*(ConfigureChannel(channel, "", ("L0",)) for channel in channels))
    for first in range(0, MANY_LOCATIONS, 1_000):
        lines = tuple(MovedLine("MUG", code, 10) for code in codes[first : first + 1_000])
        moved = await outcomes(shard, Move(f"e{first}", "", int(Movement.RECEIPT), 0, "", lines))
        assert moved == [Outcome.APPLIED]
    wanted = (Wanted("MUG", 1),)
    for channel in channels:
        made = await outcomes(shard, Reserve(channel, "", channel, 900_000, *WHOLE, wanted))
        assert made == [Outcome.HELD]
    assert await outcomes(shard, Confirm("a", "O1"), Release("b")) == [
        Outcome.COMMITTED,
        Outcome.RELEASED,
    ]
    await audited_sequence(database_url)
    assert (await audit(shard.gate, shard.ledger)).holds
