"""The proof that the ledger folded, the gate and HTTP tell the same figures."""

from collections.abc import Sequence

import asyncpg
from e2e.contract.http_client import Client
from e2e.contract.processes import ADMIN_KEY, ServiceProcess, Stores
from e2e.contract.shop import Shop, becomes
from one_redis import OneRedis

from allocation.audit import Audit, audit
from allocation.gate.redis_gate import RedisGate
from allocation.gate.servers import connect
from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.shards.layout import read_layout

FIGURES = ("on_hand", "reserved", "committed")
HOUR_MS = 3_600_000


async def expect_one_truth(
    stores: Stores, services: Sequence[ServiceProcess], skus: Sequence[str]
) -> Audit:
    """Compare what the ledger adds up to with the gate and with every service."""
    found = await _audit(stores)
    assert found.holds, (found.breaks[:5], found.oversold[:5], found.differences[:5])
    for service in services:
        async with Client(service.port, ADMIN_KEY) as client:
            shop = Shop(client)
            for sku in skus:
                await becomes(lambda shop=shop, sku=sku: _figures(shop, sku), _audited(found, sku))
    return found


async def _audit(stores: Stores) -> Audit:
    redis = connect(stores.redis_url)
    connection = await asyncpg.connect(stores.database_url)
    audits: list[Audit] = []
    try:
        for shard in range(await read_layout(connection)):
            ledger = PostgresLedger(stores.database_url, shard)
            audits.append(await audit(RedisGate(OneRedis(redis), shard, HOUR_MS, HOUR_MS), ledger))
            await ledger.close()
    finally:
        await connection.close()
        await redis.aclose()
    for other in audits[1:]:
        audits[0].join(other)
    return audits[0]


async def _figures(shop: Shop, sku: str) -> dict[str, dict[str, int]]:
    pools = await shop.pools(sku)
    return {place: {name: pool[name] for name in FIGURES} for place, pool in pools.items()}


def _audited(found: Audit, sku: str) -> dict[str, dict[str, int]]:
    return {
        place: {name: getattr(figures, name) for name in FIGURES}
        for place, figures in found.figures[sku].items()
    }
