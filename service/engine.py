"""Builds the engine of one shard: gate, ledger and pipeline, with the clients that they need."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
from msgspec import Struct

from allocation.gate.redis_gate import RedisGate, connect
from allocation.gate.redis_reads import RedisReads
from allocation.group_commit import OnDurable
from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.pipeline import Pipeline
from service.settings import Settings

SHARD = 0
CLOSE_SECONDS = 2.0


class Engine(Struct, frozen=True):
    """One shard's engine, and a pool of connections to the same Postgres for all else."""

    pipeline: Pipeline
    gate: RedisGate
    reads: RedisReads
    ledger: PostgresLedger
    pool: asyncpg.Pool


@asynccontextmanager
async def open_engine(
    settings: Settings,
    redis_url: str,
    database_url: str,
    on_durable: OnDurable = lambda _last, _first, _bodies: None,
) -> AsyncGenerator[Engine]:
    """Reach both servers; the pipeline is not started yet, and is stopped in the end."""
    async with AsyncExitStack() as stack:
        # What is stored for a sender is answered like a reservation: no operator's setting makes it less durable.
        durable = {"synchronous_commit": "on"}
        pool = await asyncpg.create_pool(
            database_url, min_size=1, max_size=10, server_settings=durable
        )
        stack.push_async_callback(_close_pool, pool)
        redis = connect(redis_url)
        stack.push_async_callback(redis.aclose)
        ledger = PostgresLedger(database_url, SHARD)
        stack.push_async_callback(ledger.close)
        gate = RedisGate(redis, SHARD, settings.key_retention_ms, settings.event_retention_ms)
        pipeline = Pipeline(gate, ledger, on_durable=on_durable)
        stack.push_async_callback(pipeline.stop)
        reads = RedisReads(redis, SHARD)
        stack.push_async_callback(reads.close)
        yield Engine(pipeline, gate, reads, ledger, pool)


async def _close_pool(pool: asyncpg.Pool) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await pool.close()
    except TimeoutError:
        pool.terminate()
