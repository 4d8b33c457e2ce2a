"""Several shards behind one face, on one real Redis and one real Postgres."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import msgspec
from engine.shards import PATIENT
from engine.table import Shop
from one_redis import OneRedis
from redis.asyncio import Redis

from allocation.commands import Command, ReadStock
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.model import Stock
from allocation.pipeline import Limits, Pipeline
from allocation.ports import Decision
from allocation.shards.many import ManyShards
from allocation.shards.postgres_claims import PostgresClaims
from allocation.shards.routing import shard_of

DAY_MS = 86_400_000
# MUG and HAT lie on one of them, CUP and JAR on two others.
SHARDS = 4
_decode_stock = msgspec.msgpack.Decoder(list[Stock | None]).decode


class Shards:
    """One process's pipelines, and what joins them."""

    def __init__(self, pipelines: list[Pipeline], ledgers: list[PostgresLedger]) -> None:
        self.pipelines, self.ledgers = pipelines, ledgers
        self.claims: PostgresClaims
        self.many: ManyShards

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        redis: Redis,
        database_url: str,
        *,
        limits: Limits = PATIENT,
        settle_seconds: float = 60.0,
        retention_ms: int = 7 * DAY_MS,
    ) -> AsyncIterator["Shards"]:
        """Start every pipeline, and stop all of them whatever the test has done."""
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(asyncpg.create_pool(database_url, min_size=1))
            shards = cls([], [])
            for number in range(SHARDS):
                ledger = PostgresLedger(database_url, number)
                stack.push_async_callback(ledger.close)
                await ledger.create()
                gate = RedisGate(OneRedis(redis), number, retention_ms, 14 * DAY_MS)
                pipeline = Pipeline(gate, ledger, limits=limits)
                await pipeline.start()
                stack.push_async_callback(pipeline.stop)
                shards.pipelines.append(pipeline)
                shards.ledgers.append(ledger)
            shards.claims = PostgresClaims(pool, settle_seconds)
            stack.push_async_callback(shards.claims.close)
            shards.many = ManyShards(shards.pipelines, shards.claims, retention_ms)
            yield shards

    async def do(self, *commands: Command) -> list[Decision]:
        """Send commands together and wait for all answers."""
        return [await answer for answer in [self.many.submit(command) for command in commands]]

    def pipeline_of(self, sku: str) -> Pipeline:
        """Give the pipeline that decides about a SKU."""
        return self.pipelines[shard_of(sku, SHARDS)]

    async def stock(self, sku: str) -> Stock | None:
        """Read a SKU's record where it is."""
        decision = await self.pipeline_of(sku).submit(ReadStock((sku,)))
        return _decode_stock(decision.extra)[0]


class ManyShop(Shop):
    """The shop of the tables, over several shards. Its clock stands still between two rows, too."""

    def __init__(self, shards: Shards, redis: Redis, now_ms: int) -> None:
        self._shards, self._redis = shards, redis
        self.now_ms = now_ms
        self._events = 0

    async def decide(self, *commands: Command) -> list[Decision]:
        """Decide commands, each on the shards that it touches."""
        await self._set_clocks()
        # One after the other is what one batch would do.
        return [(await self._shards.do(command))[0] for command in commands]

    async def _set_clocks(self) -> None:
        for number in range(SHARDS):
            await self._redis.hset(shard_keys(number)[0], "last_ms", self.now_ms)

    async def _stock(self, sku: str) -> Stock:
        await self._set_clocks()
        return await self._shards.stock(sku) or Stock(0, ())


async def start_of_clock(redis: Redis) -> int:
    """Give a time ahead of the server's, so that only the table moves it on."""
    seconds, _ = await asyncio.wait_for(redis.time(), 5)
    return (int(seconds) + 3600) * 1000
