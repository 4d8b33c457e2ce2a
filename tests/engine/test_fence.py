"""The fence on a real Redis: a server that is not the one that was verified decides nothing."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from one_redis import OneRedis
from redis.asyncio import Redis

from allocation.commands import ReadConfiguration
from allocation.errors import Fenced, GateUnverified
from allocation.gate.redis_gate import RedisGate
from allocation.gate.servers import connect
from allocation.journal import GENESIS_HASH
from allocation.ports import Identity
from service.embedded.credentials import load_credentials
from service.embedded.placement import place
from service.embedded.redis_server import RedisServer

EPOCH = 3
DAY_MS = 86_400_000


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Give a Redis that no other test uses, in a folder that its account can reach."""
    folder = Path(tempfile.mkdtemp(prefix="ringfence-test-"))
    folder.chmod(0o755)
    server = RedisServer(place(folder), load_credentials(folder).redis, avoided_ports=())
    server.start()
    await_ready(server)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    """Give a client of that server."""
    client = connect(server.url)
    yield client
    await client.aclose()


@pytest.fixture
async def verified(redis: Redis) -> tuple[RedisGate, Identity]:
    """Give a gate that decides, and the identity that it was verified with."""
    gate = RedisGate(OneRedis(redis), 0, 7 * DAY_MS, 14 * DAY_MS)
    identity = await gate.prepare()
    await gate.load_step("begin", EPOCH)
    assert await gate.load_step("open", EPOCH, 0, GENESIS_HASH, 0, 0)
    await decide(gate, identity)
    return gate, identity


def await_ready(server: RedisServer) -> None:
    """Wait until the server takes commands."""
    while not server.is_ready():
        time.sleep(0.02)


async def decide(gate: RedisGate, identity: Identity) -> None:
    """Have something decided."""
    assert len((await gate.decide(EPOCH, identity, [ReadConfiguration()], 0)).decisions) == 1


async def test_a_restarted_server_is_another(
    server: RedisServer, redis: Redis, verified: tuple[RedisGate, Identity]
) -> None:
    """With all its data and with the functions that it had, a server that was restarted decides nothing."""
    gate, identity = verified
    await redis.execute_command("WAITAOF", 1, 0, 5_000)
    server.stop()
    assert server.revive()
    await asyncio.to_thread(await_ready, server)
    with pytest.raises(GateUnverified):
        # The connection was to the server that ended.
        await decide(gate, identity)
    async with connect(server.url) as client:
        replication = await client.info("replication")
    # The functions came back with the data; so that the run id alone is another one.
    half = msgspec.structs.replace(identity, replication_id=replication["master_replid"])
    with pytest.raises(Fenced):
        await decide(gate, half)
    with pytest.raises(GateUnverified):
        # The same for the connections of all else.
        await gate.prepare()
    present = await gate.prepare()
    assert present == msgspec.structs.replace(half, run_id=present.run_id) != half
    await decide(gate, present)


@pytest.mark.parametrize("of", ["run_id", "replication_id"])
async def test_another_identity_is_refused(verified: tuple[RedisGate, Identity], of: str) -> None:
    """Each half of the identity must be the server's own, in the first call and in any other."""
    gate, identity = verified
    for _ in range(2):
        with pytest.raises(Fenced):
            await decide(gate, msgspec.structs.replace(identity, **{of: "0" * 40}))
        await decide(gate, identity)


async def test_a_server_that_was_a_replica_meanwhile_is_refused(
    redis: Redis, verified: tuple[RedisGate, Identity]
) -> None:
    """The same process, as a replica and after its promotion, is not what was verified."""
    gate, identity = verified
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises((Fenced, GateUnverified)):
        await decide(gate, identity)
    await redis.execute_command("REPLICAOF", "NO", "ONE")
    with pytest.raises(Fenced):
        await decide(gate, identity)
    assert (await gate.prepare()).run_id == identity.run_id
