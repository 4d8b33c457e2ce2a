"""A rolling upgrade: processes of two versions serve the same shards, each with its own functions in Redis."""

import asyncio
import sys
from pathlib import Path

from e2e.contract.auditing import expect_one_truth
from e2e.contract.http_client import Client
from e2e.contract.processes import Stores
from e2e.contract.shop import Shop, line, unique
from e2e.running import Up, answers, eventually
from e2e.serving import SERVE, ringfence, succeeded
from redis import Redis

OTHER = (sys.executable, str(Path(__file__).with_name("other_version.py")), "serve")
SOLD = 40


async def test_two_versions_sell_side_by_side(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    """Neither takes the shard from the other, each knows what the other decided, and the old one may end first."""
    settings = {"RINGFENCE_REDIS_URL": redis_url, "RINGFENCE_DATABASE_URL": database_url}
    made = await asyncio.to_thread(ringfence, settings, "keys", "create", "a", "--scope", "admin")
    key = succeeded(made).strip()
    environment = settings | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with Up(tmp_path / "old", command=SERVE, environment=environment) as old:
        await asyncio.to_thread(eventually, lambda: answers(old.port))
        async with Client(old.port, key) as client:
            shop = Shop(client)
            await shop.open()
            sku = await shop.new_sku(SOLD)
            before = await _take_overs(client)
        with Up(tmp_path / "new", command=OTHER, environment=environment) as new:
            await asyncio.to_thread(eventually, lambda: answers(new.port))
            with Redis.from_url(redis_url) as redis:
                assert len(redis.function_list()) >= 2
            async with Client(old.port, key) as one, Client(new.port, key) as other:
                await _sell_on_both(Shop(one), Shop(other), sku)
                assert await _take_overs(one) == before
                assert await _take_overs(other) == 0
            assert await asyncio.to_thread(old.stop) == 0
            async with Client(new.port, key) as other:
                assert (await Shop(other).reserve([line(sku)])).status == 409
                assert await _take_overs(other) == 0
            found = await expect_one_truth(Stores(redis_url, database_url), [], [sku])
    assert sum(place.committed for place in found.figures[sku].values()) == SOLD


async def _sell_on_both(one: Shop, other: Shop, sku: str) -> None:
    """Hold on one, repeat and confirm on the other."""
    for number in range(SOLD):
        first, second = (one, other) if number % 2 else (other, one)
        cart = unique("cart")
        assert (await first.reserve([line(sku)], key=cart)).status == 201
        assert (await second.reserve([line(sku)], key=cart)).status == 200
        confirmed = await second.client.post(f"/v1/reservations/{cart}/confirm", {})
        assert confirmed.status == 200, confirmed


async def _take_overs(client: Client) -> float:
    page = (await client.get("/metrics")).body.decode()
    return sum(
        float(sample.rsplit(" ", 1)[1])
        for sample in page.splitlines()
        if sample.startswith("ringfence_take_overs_total{")
    )
