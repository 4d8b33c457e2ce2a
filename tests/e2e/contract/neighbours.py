"""Proof that a bad request changes nothing and costs no other request: somebody buys while it is sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from e2e.contract.http_client import Client
from e2e.contract.processes import ADMIN_KEY, ServiceProcess, Stores
from e2e.contract.shop import Shop, line

# Far more than a request takes, on a machine that does much else, and far less than a stall.
ANSWER_SECONDS_MAX = 2.0
PAUSE_SECONDS = 0.005


class Watch:
    """Asks the ledger itself where it ends."""

    def __init__(self, service: ServiceProcess, ledger: asyncpg.Connection) -> None:
        self._service, self._ledger = service, ledger

    @asynccontextmanager
    async def undisturbed(self) -> AsyncIterator[None]:
        """Check that meanwhile the ledger takes what a neighbour buys and nothing else."""
        async with Client(self._service.port, ADMIN_KEY) as client:
            shop = Shop(client)
            sku = await shop.new_sku(1_000_000)
            before = await self._entries()
            done = asyncio.Event()
            neighbour = asyncio.create_task(_buy_until(done, shop, sku))
            try:
                yield
            finally:
                done.set()
                bought = await neighbour
        assert await self._entries() - before == bought

    async def _entries(self) -> int:
        return await self._ledger.fetchval("SELECT sum(last_sequence)::bigint FROM shard_head")


@asynccontextmanager
async def watching(service: ServiceProcess, stores: Stores) -> AsyncIterator[Watch]:
    """Watch the ledger over a connection of one's own."""
    ledger = await asyncpg.connect(stores.database_url)
    try:
        yield Watch(service, ledger)
    finally:
        await ledger.close()


async def _buy_until(done: asyncio.Event, shop: Shop, sku: str) -> int:
    bought = 0
    while True:
        last = done.is_set()
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            assert (await shop.reserve([line(sku)])).status == 201
        bought += 1
        if last:
            return bought
        await asyncio.sleep(PAUSE_SECONDS)
