"""The memory that Redis needs for a stock record, and for a live hold.

Workload design. 100,000 SKUs named as in a shop (12 characters), stock at two locations. Each SKU is first held
at both locations by one channel (two pinned lines), so that its record has a use in both pools: that is the
largest record that a shop with one channel has. Then 100,000 more holds of one line each, ids of 36 characters,
which make no record larger. `MEMORY USAGE key SAMPLES 0` of a key, over the number of its records, is the
record's size with its share of the hash table; a hold is its record and its deadline. The difference of
`used_memory` over the second 100,000 holds is what Redis as a whole grew by, for comparison.
"""

import asyncio

import uvloop

from allocation.commands import Reserve, Wanted
from allocation.gate.keys import KEY_NAMES, shard_keys
from benchmarks.engine_alone import SHARD, Addresses, Engine, own_servers, running_engine
from benchmarks.figures import MILLION, Figure, Settings, Target, figure

UNITS = 1_000
TTL_MS = 3_600_000
FINGERPRINT = "0123456789abcdefghij"


def measure(settings: Settings) -> list[Figure]:
    """Fill Redis and ask it."""
    with (
        own_servers() as addresses,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_measure(settings, addresses))


async def _measure(settings: Settings, addresses: Addresses) -> list[Figure]:
    count = settings.records
    skus = [f"RF-{number:09d}" for number in range(count)]
    async with running_engine(addresses) as engine:
        await engine.load_catalogue(skus, UNITS)
        await engine.decide_all(
            [
                _hold(f"both-{n}", Wanted(sku, 1, "LON"), Wanted(sku, 1, "NYC"))
                for n, sku in enumerate(skus)
            ]
        )
        used_before, hold_before = await _used(engine), await _hold_bytes(engine)
        await engine.decide_all(
            [
                _hold(f"{n:08d}-0000-4000-8000-{n:012d}", Wanted(sku, 1))
                for n, sku in enumerate(skus)
            ]
        )
        stock = await _usage(engine, "stock") / count
        hold = (await _hold_bytes(engine) - hold_before) / count
        whole = (await _used(engine) - used_before) / count
    return [
        figure("Redis, stock record, 2 locations", "B", [stock], count, Target("at most", 300)),
        figure("Redis, live hold", "B", [hold], count, Target("at most", 500)),
        figure("Redis, live hold, by used_memory", "B", [whole], count),
        figure("Redis, a million stock records", "MB", [stock * MILLION / 1e6], count),
        figure("Redis, a million live holds", "MB", [hold * MILLION / 1e6], count),
    ]


def _hold(reservation_id: str, *lines: Wanted) -> Reserve:
    return Reserve(reservation_id, FINGERPRINT, "web", TTL_MS, False, "", lines)  # noqa: FBT003


async def _hold_bytes(engine: Engine) -> int:
    return await _usage(engine, "reservations") + await _usage(engine, "deadlines")


async def _usage(engine: Engine, name: str) -> int:
    key = shard_keys(SHARD)[KEY_NAMES.index(name)]
    return int(await engine.redis.memory_usage(key, samples=0) or 0)


async def _used(engine: Engine) -> int:
    return int((await engine.redis.info("memory"))["used_memory"])
