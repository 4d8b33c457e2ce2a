"""The gate's connections break under the event loop that the service runs on, and the gate says so."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
import uvloop
from one_redis import OneRedis
from redis.asyncio import Redis

from allocation.errors import GateUnverified
from allocation.gate.redis_gate import RedisGate
from allocation.gate.servers import connect
from allocation.journal import GENESIS_HASH
from allocation.ports import Identity

HOUR_MS = 3_600_000
EPOCH = 1
CALLS: dict[str, Callable[[RedisGate, Identity], Awaitable[object]]] = {
    "decide": lambda gate, identity: gate.decide(EPOCH, identity, [], 0),
    "prepare": lambda gate, _: gate.prepare(),
    "memory_share": lambda gate, _: gate.memory_share(),
    "present_state": lambda gate, _: gate.present_state(),
    "read_journal": lambda gate, _: gate.read_journal(0),
    "load_step": lambda gate, _: gate.load_step("arm", EPOCH, 0, GENESIS_HASH),
}


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """Give the event loop that the service runs on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


async def _closed_under_it(client: Redis) -> None:
    """Close every connection as a reset does: the client has not been told yet."""
    pool = client.connection_pool
    for connection in (*pool._available_connections, *pool._in_use_connections):
        connection._writer.transport.abort()
    # The loop closes what was aborted in its next round.
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@pytest.mark.parametrize("name", CALLS)
def test_a_connection_closed_under_it_is_a_fault_of_the_server(
    runner: asyncio.Runner, redis_url: str, name: str
) -> None:
    """Every call says that the gate is not verified, and the next one finds a new connection."""

    async def check() -> None:
        client = connect(redis_url)
        gate = RedisGate(OneRedis(client), 0, HOUR_MS, HOUR_MS)
        try:
            identity = await gate.prepare()
            await gate.load_step("begin", EPOCH)
            await gate.load_step("open", EPOCH, 0, GENESIS_HASH, 0)
            await CALLS[name](gate, identity)
            await _closed_under_it(client)
            with pytest.raises(GateUnverified):
                await CALLS[name](gate, identity)
            await CALLS[name](gate, identity)
        finally:
            await client.aclose()

    runner.run(check())
