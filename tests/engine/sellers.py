"""A caller who asks for one mug after the other, each until the answer is definite, and keeps what was said."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from engine.shards import CATALOGUE, Shard, hold

from allocation.audit import audit
from allocation.commands import Move, MovedLine, Movement
from allocation.errors import NothingDone, OutcomeUnknown
from allocation.gate.redis_gate import RedisGate
from allocation.gate.redis_reads import RedisReads
from allocation.gate.servers import RedisServers
from allocation.outcomes import Outcome

HOUR_MS = 3_600_000
PAUSE_SECONDS = 0.005
# Longer than a cluster takes to replace a master.
SELL_SECONDS_MAX = 30.0
ENOUGH = Move("more", "", int(Movement.RECEIPT), 0, "", (MovedLine("MUG", "LON", 1_000_000),))


class Seller:
    """Sells the mugs of one shard."""

    def __init__(self, shard: Shard, name: str = "") -> None:
        self.shard, self.name = shard, name
        self.sold: list[str] = []
        # Refused with the word that nothing was done, and left without an answer.
        self.refused, self.unknown = 0, 0

    async def try_once(self) -> bool:
        """Ask for a mug, the same as before where that has no definite answer yet."""
        reservation_id = f"{self.name}{len(self.sold)}"
        try:
            (decision,) = await self.shard.do(hold(reservation_id, ttl_ms=HOUR_MS))
        except NothingDone:
            self.refused += 1
            return False
        except OutcomeUnknown:
            self.unknown += 1
            return False
        assert decision.outcome in {Outcome.HELD, Outcome.REPLAYED}, decision
        self.sold.append(reservation_id)
        return True

    async def sell(self, mugs: int = 1) -> None:
        """Sell some, however often that must be asked for."""
        through = len(self.sold) + mugs
        async with asyncio.timeout(SELL_SECONDS_MAX):
            while len(self.sold) < through:
                if not await self.try_once():
                    await asyncio.sleep(PAUSE_SECONDS)

    @asynccontextmanager
    async def selling(self) -> AsyncIterator[None]:
        """Sell meanwhile."""
        task = asyncio.create_task(self._sell_forever())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _sell_forever(self) -> None:
        while True:
            await self.sell()
            await asyncio.sleep(PAUSE_SECONDS)


@asynccontextmanager
async def open_seller(
    servers: RedisServers, shard: int, database_url: str, name: str = ""
) -> AsyncIterator[Seller]:
    """Open a shard with a million mugs."""
    gate = RedisGate(servers, shard, HOUR_MS, HOUR_MS)
    async with Shard.open(gate, database_url) as opened:
        await opened.do(*CATALOGUE, ENOUGH)
        yield Seller(opened, name)


async def expect_one_truth(servers: RedisServers, seller: Seller, database_url: str) -> None:
    """Check that gate and ledger tell the same, and that all that was sold is in there once."""
    gate, reads = seller.shard.gate, RedisReads(servers, seller.shard.gate.shard)
    try:
        found = await audit(gate, seller.shard.ledger, reads=reads)
    finally:
        await reads.close()
    assert found.holds, found
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "SELECT subject, count(*) FROM ledger WHERE shard = $1 GROUP BY subject", gate.shard
        )
    finally:
        await connection.close()
    written = dict(map(tuple, rows))
    assert {each: written.get(each) for each in seller.sold} == dict.fromkeys(seller.sold, 1)
