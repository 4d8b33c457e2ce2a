"""The engine in this process, without HTTP, on an embedded Redis and PostgreSQL of its own."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence

import asyncpg
from msgspec import Struct
from redis.asyncio import Redis

from allocation.commands import (
    Command,
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Move,
    MovedLine,
    Movement,
)
from allocation.errors import LedgerUnavailable, TooManyWaiting
from allocation.gate.redis_gate import RedisGate
from allocation.gate.servers import RedisServers
from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.ledger.queries import named_queries
from allocation.outcomes import Outcome
from allocation.pipeline import Pipeline
from allocation.ports import Decision
from benchmarks.load import LoadFailed
from benchmarks.running import open_folder
from service.embedded.servers import embedded_servers
from service.preparation import migrate_database
from service.settings import Settings as ServiceSettings

SHARD = 0
COMMANDS_AT_ONCE = 1_024
RETRY_SECONDS = 0.05
# A call to the gate has up to 256 commands, and should block it for milliseconds only.
LINES_PER_MOVEMENT = 20
RETRIES_MAX = 200


class Addresses(Struct, frozen=True):
    """Where the embedded servers listen."""

    redis_url: str
    database_url: str


class Engine(Struct, frozen=True):
    """A pipeline that decides, and the clients to look behind it."""

    pipeline: Pipeline
    servers: RedisServers
    redis: Redis
    database_url: str

    async def ledger_rows(self) -> int:
        """Count the ledger."""
        connection = await asyncpg.connect(self.database_url)
        try:
            return int(await connection.fetchval(named_queries("benchmarks")["ledger_rows"]))
        finally:
            await connection.close()

    async def decide_all(self, commands: Sequence[Command]) -> None:
        """Have commands decided and made durable, many at a time; none may be refused."""
        for first in range(0, len(commands), COMMANDS_AT_ONCE):
            part = commands[first : first + COMMANDS_AT_ONCE]
            decisions = await asyncio.gather(*(self._decide(command) for command in part))
            for decision in decisions:
                if decision.outcome >= Outcome.INSUFFICIENT_STOCK:
                    raise LoadFailed(f"A command came to {decision.outcome.name}.")

    async def _decide(self, command: Command) -> Decision:
        for _ in range(RETRIES_MAX):
            try:
                return await self.pipeline.submit(command)
            except (LedgerUnavailable, TooManyWaiting):
                # Nothing was done: a busy machine's disk is behind for a moment.
                await asyncio.sleep(RETRY_SECONDS)
        raise LoadFailed("The engine refused a command for too long.")

    async def load_catalogue(self, skus: list[str], units: int) -> None:
        """Make one channel, two locations, and stock of every SKU at both."""
        await self.decide_all(
            [ConfigureLocation("LON", "London"), ConfigureLocation("NYC", "New York")]
        )
        await self.decide_all([ConfigureChannel("web", "Web shop", ("LON", "NYC"))])
        await self.decide_all([ConfigureSku(sku, ()) for sku in skus])
        lines = [MovedLine(sku, place, units) for sku in skus for place in ("LON", "NYC")]
        parts = range(0, len(lines), LINES_PER_MOVEMENT)
        await self.decide_all(
            [
                Move(
                    f"bench\x1f{first}",
                    "bench",
                    int(Movement.RECEIPT),
                    0,
                    "",
                    tuple(lines[first : first + LINES_PER_MOVEMENT]),
                )
                for first in parts
            ]
        )


@contextlib.contextmanager
def own_servers() -> Iterator[Addresses]:
    """Start both servers on a new folder; call it from the main thread."""
    with open_folder() as folder:
        settings = ServiceSettings(data_dir=folder / "servers", demo=False)
        with embedded_servers(settings) as servers:
            placement = servers.placement
            yield Addresses(servers.redis_url, servers.database_url)
        if placement is not None and not placement.data.is_relative_to(folder):
            shutil.rmtree(placement.data, ignore_errors=True)


@contextlib.asynccontextmanager
async def running_engine(addresses: Addresses) -> AsyncIterator[Engine]:
    """Run a pipeline as the service builds it."""
    await migrate_database(addresses.database_url)
    defaults = ServiceSettings()
    servers = RedisServers(addresses.redis_url)
    ledger = PostgresLedger(addresses.database_url, SHARD)
    gate = RedisGate(servers, SHARD, defaults.key_retention_ms, defaults.event_retention_ms)
    pipeline = Pipeline(gate, ledger)
    try:
        await ledger.create()
        await ledger.check_durability()
        await pipeline.start()
        yield Engine(pipeline, servers, await servers.find(SHARD), addresses.database_url)
        await pipeline.stop()
    finally:
        await ledger.close()
        await servers.close()
