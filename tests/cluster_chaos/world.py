"""The real processes of a run: six Redis nodes, a PostgreSQL, and three services with a way to it each."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from chaos.processes import REVIVAL_SECONDS, Service
from cluster import PASSWORD, Cluster, until
from cluster_chaos.plan import SERVICES
from e2e.contract.proxies import Way, way_to
from e2e.running import processes_in

from service.embedded.credentials import Access
from service.embedded.placement import Placement
from service.embedded.postgres_server import PostgresServer
from service.embedded.signals import signals_ignored

LOOK_SECONDS = 0.05
# Two of a process for each shard and its pool; and those of processes that were killed a moment ago.
CONNECTIONS_MAX = 300
NAMED_NODES = 3
MUTATED = Path(__file__).parent / "mutated"


class RoomyPostgres(PostgresServer):
    """A PostgreSQL that has room for three services with many shards."""

    def command(self) -> list[str]:
        return [*super().command(), f"--max_connections={CONNECTIONS_MAX}"]

    def kill(self) -> None:
        """End every process of it at once, as a lost machine ends."""
        for process_id in processes_in(self.folder):
            with suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    async def revive_whole(self) -> None:
        """Start it again where it has ended, and wait until it takes statements."""
        if self.has_ended():
            await until(self.revive)
        await until(self.is_ready)


class World:
    """Everything that runs, and the ways in which it is healed."""

    def __init__(self, placement: Placement) -> None:
        self.cluster = Cluster(placement)
        self.postgres = RoomyPostgres(placement, Access(0, "of-the-ledger"), set())
        self.services: list[Service] = []
        # Each service's way to Postgres. Nodes announce where they are themselves: no way leads around that.
        self.ways: dict[str, Way] = {}

    @property
    def redis_url(self) -> str:
        named = ",".join(node.address for node in self.cluster.nodes[:NAMED_NODES])
        return f"redis://:{PASSWORD}@{named}/0"

    @classmethod
    @asynccontextmanager
    async def open(cls, placement: Placement) -> AsyncIterator["World"]:
        """Start the stores, and end everything whatever has happened."""
        world = cls(placement)
        async with AsyncExitStack() as stack:
            stack.callback(world.end)
            world.postgres.start()
            await until(world.postgres.is_ready)
            await world.cluster.start()
            yield world

    @asynccontextmanager
    async def serving(self, logs: Path, mutant: str = "") -> AsyncIterator["World"]:
        """Start the services, each behind its own way to Postgres; with a mutant's name, without a safeguard."""
        async with AsyncExitStack() as stack:
            for number in range(SERVICES):
                name = f"service-{number}"
                url, self.ways[name] = await stack.enter_async_context(way_to(self.postgres.url))
                service = Service(name, self.redis_url, url, logs / f"{name}.log")
                if mutant:
                    service._environment |= {"PYTHONPATH": str(MUTATED), "CHAOS_MUTANT": mutant}
                self.services.append(service)
                service.start()
            try:
                yield self
            finally:
                for service in self.services:
                    service.is_kept_down = True
                    service.kill()

    async def supervise(self) -> None:
        """Start services again that have ended by themselves, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for service in self.services:
                if service.look_after():
                    await asyncio.sleep(REVIVAL_SECONDS)
                if service.is_down and not service.is_kept_down:
                    service.start()

    async def heal(self) -> None:
        """Wait until all stores stand as they did in the beginning."""
        await self.postgres.revive_whole()
        await self.cluster.settle()

    def end(self) -> None:
        """End the stores."""
        with signals_ignored():
            for node in self.cluster.nodes:
                if node.process is not None:
                    node.kill()
            if self.postgres.process is not None:
                self.postgres.stop()
