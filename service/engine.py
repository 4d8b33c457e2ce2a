"""Builds the engine: gate, ledger and pipeline of every shard, with the clients that they need."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
from msgspec import Struct

from allocation.gate.redis_gate import RedisGate
from allocation.gate.redis_reads import RedisReads
from allocation.gate.servers import RedisServers
from allocation.group_commit import OnDurable
from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.pipeline import Pipeline
from allocation.ports import Decider
from allocation.shards.layout import read_layout
from allocation.shards.many import ManyShards
from allocation.shards.postgres_claims import LAG_SECONDS_MAX, PostgresClaims
from allocation.shards.settling import Settling
from service.settings import Settings

CLOSE_SECONDS = 2.0


class ShardEngine(Struct, frozen=True):
    """One shard's engine."""

    number: int
    pipeline: Pipeline
    gate: RedisGate
    reads: RedisReads
    ledger: PostgresLedger


class Engine(Struct, frozen=True):
    """All shards, and a pool of connections to the same Postgres for all else.

    `decider` answers every command that is not for one shard alone. `broken` is done, with the fault, when one of
    the pipelines cannot go on.
    """

    shards: tuple[ShardEngine, ...]
    decider: Decider
    settling: Settling | None
    claims: PostgresClaims | None
    pool: asyncpg.Pool
    broken: asyncio.Future[None]

    @property
    def pipelines(self) -> list[Pipeline]:
        """The pipeline of each shard."""
        return [shard.pipeline for shard in self.shards]

    @property
    def open(self) -> bool:
        """Whether every shard decides."""
        return all(pipeline.verified is not None for pipeline in self.pipelines)

    @property
    def timely(self) -> bool:
        """Whether what is decided becomes durable as soon as it should."""
        return (self.claims is None or self.claims.lag_seconds <= LAG_SECONDS_MAX) and all(
            pipeline.ledger_lag_seconds <= pipeline.limits.ledger_lag_seconds_max
            for pipeline in self.pipelines
        )

    def named(self, shard: ShardEngine) -> str:
        """Name a shard for a person, who need not know of shards where there is one."""
        return f"shard {shard.number}" if len(self.shards) > 1 else "the shard"

    async def create(self) -> None:
        """Give every shard a head in the ledger, where it has none."""
        for shard in self.shards:
            await shard.ledger.create()

    async def start(self) -> None:
        """Begin to decide, on all shards. Raises what the start of a pipeline raises."""
        await self.create()
        for shard in self.shards:
            await shard.ledger.check_durability()
        await asyncio.gather(*[shard.pipeline.start() for shard in self.shards])

    async def stop(self) -> None:
        """Stop deciding, make durable what was decided, and answer it."""
        await asyncio.gather(*[shard.pipeline.stop() for shard in self.shards])


def _hear_nothing(_shard: int) -> OnDurable:
    return lambda _last, _first, _bodies: None


@asynccontextmanager
async def open_engine(
    settings: Settings,
    redis_url: str,
    database_url: str,
    listener: Callable[[int], OnDurable] = _hear_nothing,
) -> AsyncGenerator[Engine]:
    """Reach both servers; the pipelines are not started yet, and are stopped in the end.

    `listener` gives each shard whoever hears what has become durable there.
    """
    async with AsyncExitStack() as stack:
        # What is stored for a sender is answered like a reservation: no operator's setting makes it less durable.
        durable = {"synchronous_commit": "on"}
        # None is kept while nothing is asked: the pool would tell the log of every try to have it again.
        pool = await asyncpg.create_pool(
            database_url, min_size=0, max_size=10, server_settings=durable
        )
        stack.push_async_callback(_close_pool, pool)
        servers = RedisServers(redis_url)
        stack.push_async_callback(servers.close)
        shards: list[ShardEngine] = []
        for number in range(await read_layout(pool)):
            ledger = PostgresLedger(database_url, number)
            stack.push_async_callback(ledger.close)
            gate = RedisGate(
                servers, number, settings.key_retention_ms, settings.event_retention_ms
            )
            reads = RedisReads(servers, number)
            stack.push_async_callback(reads.close)
            pipeline = Pipeline(gate, ledger, on_durable=listener(number))
            shards.append(ShardEngine(number, pipeline, gate, reads, ledger))
        engine = _joined(tuple(shards), pool, settings, stack)
        stack.push_async_callback(engine.stop)
        yield engine


def _joined(
    shards: tuple[ShardEngine, ...],
    pool: asyncpg.Pool,
    settings: Settings,
    stack: AsyncExitStack,
) -> Engine:
    pipelines = [shard.pipeline for shard in shards]
    if len(shards) == 1:
        return Engine(shards, pipelines[0], None, None, pool, pipelines[0].broken)
    claims = PostgresClaims(pool)
    stack.push_async_callback(claims.close)
    many = ManyShards(pipelines, claims, settings.key_retention_ms)
    return Engine(shards, many, many.settling, claims, pool, _first_broken(pipelines))


def _first_broken(pipelines: list[Pipeline]) -> asyncio.Future[None]:
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def note(of_one: asyncio.Future[None]) -> None:
        if not of_one.cancelled() and not broken.done() and (fault := of_one.exception()):
            broken.set_exception(fault)

    for pipeline in pipelines:
        pipeline.broken.add_done_callback(note)
    return broken


async def _close_pool(pool: asyncpg.Pool) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await pool.close()
    except TimeoutError:
        pool.terminate()
