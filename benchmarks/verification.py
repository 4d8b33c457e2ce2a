"""What one round of the verification costs, Redis' part and this process' own, and what it keeps in memory.

Workload design. The ledger of `long_ledger.py`, 100,000 SKUs and as many entries as make 400,000 records in Redis,
is folded into a gate. Then rounds run as `ringfence watch` runs them, without their pauses: the first one, which
begins at a checkpoint of half the ledger and compares every record, and later ones, each after 500 sales.
"""

import asyncio
import resource
import time
from collections.abc import Sequence

import asyncpg
import uvloop
from msgspec import Struct

from allocation.checkpoints import write_checkpoint
from allocation.commands import Reserve, Wanted
from allocation.gate.redis_reads import RedisReads
from allocation.history import history_from_checkpoint
from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.rebuild import fold
from allocation.verification import Checkpoints, Verification
from benchmarks.engine_alone import SHARD, Addresses, Engine, own_servers, running_engine
from benchmarks.figures import Figure, Settings, Target, figure
from benchmarks.load import LoadFailed
from benchmarks.long_ledger import FINGERPRINT, LongLedger
from service.preparation import migrate_database

SALES_PER_ROUND = 500
TTL_MS = 900_000
# One percent of a core, of a round a minute.
TARGET_SECONDS = 0.6


class _Cost(Struct, frozen=True):
    records: int
    own_seconds: float
    redis_seconds: float

    @property
    def seconds(self) -> float:
        return self.own_seconds + self.redis_seconds


def measure(settings: Settings) -> list[Figure]:
    """Verify a large shard, round after round."""
    with (
        own_servers() as addresses,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_measure(settings, addresses))


async def _measure(settings: Settings, addresses: Addresses) -> list[Figure]:
    skus = [f"RF-{number:09d}" for number in range(settings.verified_skus)]
    await _write(addresses, skus, settings.verified_entries)
    async with running_engine(addresses) as engine:
        ledger, reads = (
            PostgresLedger(addresses.database_url, SHARD),
            RedisReads(engine.servers, SHARD),
        )
        await _keep_checkpoint(ledger, settings.verified_entries // 2)
        verification = Verification(
            reads,
            ledger,
            cpu_share_max=1.0,
            checkpoints=Checkpoints(lambda: history_from_checkpoint(ledger), _keep_none),
        )
        before = _resident_bytes()
        try:
            first = await _round(engine, verification)
            kept = _resident_bytes() - before
            later: list[_Cost] = []
            for run in range(settings.runs):
                await engine.decide_all(_sales(skus, run))
                later.append(await _round(engine, verification))
        finally:
            await reads.close()
            await ledger.close()
    return _figures(first, later, kept)


async def _keep_none(*_state: object) -> None:
    return


async def _keep_checkpoint(ledger: PostgresLedger, sequence: int) -> None:
    state, last_hash = await fold(ledger, sequence), await ledger.hash_at(sequence) or ""
    await write_checkpoint(ledger, state, sequence, last_hash)


async def _round(engine: Engine, verification: Verification) -> _Cost:
    own, redis = time.process_time(), await _redis_seconds(engine)
    found = await verification.run_round()
    if found.drifts:
        raise LoadFailed(f"The verification found {found.drifts[0]}.")
    return _Cost(found.records, time.process_time() - own, await _redis_seconds(engine) - redis)


async def _redis_seconds(engine: Engine) -> float:
    cpu = await engine.redis.info("cpu")
    return float(cpu["used_cpu_user_main_thread"]) + float(cpu["used_cpu_sys_main_thread"])


def _sales(skus: Sequence[str], run: int) -> list[Reserve]:
    ids = range(SALES_PER_ROUND)
    return [_sale(f"sale-{run}-{number}", skus[number % len(skus)]) for number in ids]


def _sale(key: str, sku: str) -> Reserve:
    return Reserve(key, FINGERPRINT, "web", TTL_MS, False, "", (Wanted(sku, 1),))  # noqa: FBT003


async def _write(addresses: Addresses, skus: Sequence[str], entries: int) -> None:
    await migrate_database(addresses.database_url)
    ledger = PostgresLedger(addresses.database_url, SHARD)
    connection = await asyncpg.connect(addresses.database_url)
    try:
        await ledger.create()
        await LongLedger(SHARD, skus, entries).write(connection)
    finally:
        await connection.close()
        await ledger.close()


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * resource.getpagesize()


def _figures(first: _Cost, later: Sequence[_Cost], kept_bytes: int) -> list[Figure]:
    records = sum(cost.records for cost in later)
    question = f"a round over {later[-1].records:,} records"
    target = Target("at most", TARGET_SECONDS)
    return [
        figure(
            f"{question}: CPU of Redis and of ours",
            "s",
            [c.seconds for c in later],
            records,
            target,
        ),
        figure(f"{question}: of ours", "s", [c.own_seconds for c in later], records),
        figure(f"{question}: of Redis", "s", [c.redis_seconds for c in later], records),
        figure("the first round, from a checkpoint", "s", [first.seconds], first.records),
        figure("kept in memory, a record", "B", [kept_bytes / first.records], first.records),
    ]
