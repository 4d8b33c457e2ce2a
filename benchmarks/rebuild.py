"""How fast the ledger is folded, and how long it takes until a shard serves again.

Workload design. A ledger as one shop leaves it, written at once but entry by entry as the gate packs and chains
them: the catalogue, a receipt for every SKU, then sales of one unit of a SKU drawn at random; of a hundred holds
60 are bought, 10 released, 30 go on. The short form has 30,000 SKUs and 300,000 entries, the long one 100,000 and
1,000,000.

A fold goes from the first entry to the last; the same pages, read and not looked at, say what of it is Postgres'
part. A checkpoint is then written at a fifth of the entries from the end (200,000 of 1,000,000). For each figure
in seconds a new process' engine starts, and the time ends when a sale that it was asked for is durable:

- after empty: Redis has nothing;
- after a tail: Redis is a tenth of the entries behind (100,000 of 1,000,000);
- after a restart: Redis has everything, but is another server than the ledger knows.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import asyncpg
import uvloop
from msgspec import Struct
from redis.asyncio import Redis

from allocation.checkpoints import write_checkpoint
from allocation.commands import Reserve, Wanted
from allocation.folding import FoldedState
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.gate.servers import RedisServers
from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.outcomes import Outcome
from allocation.ports import Head
from allocation.rebuild import fold, load
from benchmarks.engine_alone import SHARD, Addresses, own_servers, running_engine
from benchmarks.figures import Figure, Settings, Target, figure
from benchmarks.load import LoadFailed
from benchmarks.long_ledger import FINGERPRINT, LongLedger
from service.preparation import migrate_database
from service.settings import Settings as ServiceSettings

CHECKPOINT_SHARE, TAIL_SHARE = 5, 10
TTL_MS = 900_000


class _Bench(Struct):
    """The servers, the ledger on them, and the state that Redis had at a tenth of the entries from the end."""

    addresses: Addresses
    ledger: PostgresLedger
    gate: RedisGate
    redis: Redis
    sku: str
    entries: int
    earlier: FoldedState
    earlier_sequence: int
    sales: int = 0

    async def empty(self) -> None:
        await self.redis.unlink(*shard_keys(SHARD))

    async def fall_behind(self) -> None:
        sequence, head = self.earlier_sequence, await self.ledger.head()
        last_hash = await self.ledger.hash_at(sequence) or ""
        await load(self.gate, self.earlier, Head(head.epoch, sequence, last_hash))

    async def be_another_server(self) -> None:
        head = await self.ledger.head()
        await self.ledger.take_over("another", head.replication_id, head.epoch)

    async def serve_again(self) -> float:
        """Start an engine as a new process does, and give the seconds until it has sold something durably."""
        began = time.perf_counter()
        self.sales += 1
        sale = f"after-{self.sales}"
        async with running_engine(self.addresses) as engine:
            decision = await engine.pipeline.submit(
                Reserve(sale, FINGERPRINT, "web", TTL_MS, False, "", (Wanted(self.sku, 1),))  # noqa: FBT003
            )
            took = time.perf_counter() - began
            if decision.outcome is not Outcome.HELD or engine.pipeline.take_overs != 1:
                raise LoadFailed(f"A sale came to {decision.outcome.name} after the take-over.")
        if decision.version != self.entries + self.sales:
            raise LoadFailed("The engine did not go on where the ledger ended.")
        return took


def measure(settings: Settings) -> list[Figure]:
    """Fold, and take over."""
    with (
        own_servers() as addresses,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_measure(settings, addresses))


async def _measure(settings: Settings, addresses: Addresses) -> list[Figure]:
    await migrate_database(addresses.database_url)
    ledger, servers = (
        PostgresLedger(addresses.database_url, SHARD),
        RedisServers(addresses.redis_url),
    )
    defaults = ServiceSettings()
    gate = RedisGate(servers, SHARD, defaults.key_retention_ms, defaults.event_retention_ms)
    try:
        await ledger.create()
        await gate.prepare()
        redis = await servers.find(SHARD)
        return await _figures(settings, addresses, ledger, (gate, redis))
    finally:
        await ledger.close()
        await servers.close()


async def _figures(
    settings: Settings,
    addresses: Addresses,
    ledger: PostgresLedger,
    ends: tuple[RedisGate, Redis],
) -> list[Figure]:
    skus = [f"RF-{number:09d}" for number in range(settings.ledger_skus)]
    entries = await _write(ledger, addresses, skus, settings.ledger_entries)
    folded, cpu = [], []
    for _ in range(settings.runs):
        cpu_before = time.process_time()
        folded.append(await _seconds(lambda: fold(ledger, entries)))
        cpu.append(time.process_time() - cpu_before)
    read = [await _seconds(lambda: _read(ledger, entries)) for _ in range(settings.runs)]
    kept = [await _keep_checkpoint(ledger, entries - entries // CHECKPOINT_SHARE)]
    earlier = entries - entries // TAIL_SHARE
    state = await fold(ledger, earlier)
    bench = _Bench(addresses, ledger, *ends, skus[0], entries, state, earlier)
    serving = {
        "Redis empty": (bench.empty, 10.0),
        f"Redis {entries - earlier:,} entries behind": (bench.fall_behind, 3.0),
        "Redis restarted": (bench.be_another_server, 3.0),
    }
    question = f"{entries:,} entries, {len(skus):,} SKUs"
    rates = [entries / seconds for seconds in folded]
    figures = [
        figure(f"{question}: folded", "/s", rates, entries, Target("at least", 200_000)),
        figure("folded, a second of this process' CPU", "/s", [entries / c for c in cpu], entries),
        figure(f"{question}: read only", "/s", [entries / seconds for seconds in read], entries),
        figure("folded ÷ read only", "", [r / f for f, r in zip(folded, read, strict=True)], 1),
        figure("checkpoint written", "s", kept, 1),
    ]
    for name, (prepare, target) in serving.items():
        seconds: list[float] = []
        for _ in range(settings.runs):
            await prepare()
            seconds.append(await bench.serve_again())
        target_at_most = Target("at most", target)
        figures.append(
            figure(f"{name}, until it sells", "s", seconds, len(seconds), target_at_most)
        )
    return figures


async def _write(
    ledger: PostgresLedger, addresses: Addresses, skus: list[str], entries: int
) -> int:
    connection = await asyncpg.connect(addresses.database_url)
    try:
        await LongLedger(SHARD, skus, entries).write(connection)
    finally:
        await connection.close()
    return (await ledger.head()).last_sequence


async def _read(ledger: PostgresLedger, entries: int) -> None:
    async with aclosing(ledger.pages(0, entries)) as pages:
        async for _ in pages:
            pass


async def _keep_checkpoint(ledger: PostgresLedger, sequence: int) -> float:
    state, last_hash = await fold(ledger, sequence), await ledger.hash_at(sequence) or ""
    return await _seconds(lambda: write_checkpoint(ledger, state, sequence, last_hash))


async def _seconds(act: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await act()
    return time.perf_counter() - began
