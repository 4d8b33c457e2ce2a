"""The state that the ledger tells, and a ledger that does not tell all of it."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from engine.shards import CATALOGUE, Shard, hold
from redis.asyncio import Redis

from allocation.errors import Diverged, GateUnverified
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.rebuild import fold
from allocation.takeover import take_over_and_rebuild


@pytest.fixture
async def shard(gate: RedisGate, database_url: str) -> AsyncIterator[Shard]:
    """Give a running pipeline whose ledger has ten holds."""
    async with Shard.open(gate, database_url) as shard:
        await shard.do(*CATALOGUE, *(hold(f"r{number}") for number in range(10)))
        yield shard


@pytest.mark.parametrize("missing", ["sequence > 12", "sequence = 8", "sequence = 1", "true"])
async def test_a_ledger_with_entries_missing_is_never_loaded(
    shard: Shard, redis: Redis, database_url: str, missing: str
) -> None:
    """Entries that are missing, wherever, end the rebuild; the gate is left without a state."""
    await shard.pipeline.stop()
    head = await shard.ledger.head()
    connection = await asyncpg.connect(database_url)
    await connection.execute("ALTER TABLE ledger DISABLE TRIGGER USER")
    await connection.execute(f"DELETE FROM ledger WHERE {missing}")  # noqa: S608 - the rows above
    await connection.close()
    with pytest.raises(Diverged):
        await fold(shard.ledger, head.last_sequence)
    await redis.delete(*shard_keys(0))
    with pytest.raises(Diverged):
        await take_over_and_rebuild(shard.gate, shard.ledger, lambda _read, _through: None)
    assert await shard.gate.present_state() is None


async def test_a_server_that_lacks_a_step_of_the_load_is_not_opened(
    shard: Shard, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was promoted or restarted meanwhile may lack what was put before; the next load is whole."""
    await shard.pipeline.stop()
    step = shard.gate.load_step

    async def step_that_is_lost(name: str, epoch: int, *arguments: str | bytes | int) -> bool:
        done = await step(name, epoch, *arguments)
        if name == "put":
            await redis.hset(shard_keys(0)[0], "loaded", 0)
        return done

    monkeypatch.setattr(shard.gate, "load_step", step_that_is_lost)
    with pytest.raises(GateUnverified, match="has not all"):
        await take_over_and_rebuild(shard.gate, shard.ledger, lambda _read, _through: None)
    assert await shard.gate.present_state() is None
    monkeypatch.undo()
    verified = await take_over_and_rebuild(shard.gate, shard.ledger, lambda _read, _through: None)
    assert await shard.gate.present_state() == (
        verified.head.epoch,
        verified.gate_sequence,
        verified.gate_hash,
    )
