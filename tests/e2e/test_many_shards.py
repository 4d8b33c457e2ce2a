"""Many shards from the command line: said once, served, loaded, audited and rebuilt like one."""

import asyncio
from pathlib import Path

import httpx
import pytest
from cluster import running_cluster
from e2e.serving import refusal, ringfence, succeeded
from e2e.supervised import supervised
from redis import Redis

from allocation.gate.keys import shard_keys
from allocation.shards.routing import shard_of

SHARDS = 4
SKUS = ("MUG", "CUP", "JAR", "TEE")
CATALOGUE = """
[locations.LONDON]
[channels.web]
locations = ["LONDON"]
""" + "".join(f"[skus.{sku}]\nstock = {{ LONDON = 9 }}\n" for sku in SKUS)


@pytest.fixture
def settings(redis_url: str, empty_database_url: str, tmp_path: Path) -> dict[str, str]:
    """Name the servers of this test, with a catalogue that lies on several shards in them."""
    settings = {"RINGFENCE_REDIS_URL": redis_url, "RINGFENCE_DATABASE_URL": empty_database_url}
    assert len({shard_of(sku, SHARDS) for sku in SKUS}) >= 3
    assert "is 4" in succeeded(ringfence(settings, "init", "--shards", str(SHARDS)))
    (tmp_path / "catalogue.toml").write_text(CATALOGUE)
    succeeded(ringfence(settings, "load", tmp_path / "catalogue.toml"))
    return settings


def test_the_number_is_said_once(settings: dict[str, str]) -> None:
    """The same number again is no fault, another one is."""
    succeeded(ringfence(settings, "init", "--shards", str(SHARDS)))
    assert f"is {SHARDS} and cannot change" in refusal(ringfence(settings, "init", "--shards", "5"))


def test_operators_go_through_all_shards(settings: dict[str, str], redis_url: str) -> None:
    """Audit, checkpoint and rebuild name each shard; one that lost its stock is found, and made anew alone."""
    told = succeeded(ringfence(settings, "verify"))
    assert all(f"of shard {number}," in told for number in range(SHARDS))
    assert "The audit holds" in told
    assert told.count(" SKUs.") == SHARDS
    kept = succeeded(ringfence(settings, "checkpoint"))
    assert kept.count("Kept the state of shard") == SHARDS
    lost = shard_of("MUG", SHARDS)
    with Redis.from_url(redis_url) as redis:
        redis.hdel(shard_keys(lost)[1], "MUG")
    assert ringfence(settings, "verify").exit_code == 1
    rebuilt = succeeded(ringfence(settings, "rebuild", "--shard", str(lost)))
    assert rebuilt.startswith(f"Rebuilt shard {lost} to entry")
    assert "There are 4 shards" in refusal(ringfence(settings, "rebuild", "--shard", "4"))
    succeeded(ringfence(settings, "rebuild"))
    succeeded(ringfence(settings, "verify"))


def test_a_cart_over_a_cluster(empty_database_url: str, tmp_path: Path) -> None:
    """Two workers on a Redis Cluster of six nodes hold, confirm and show carts over several masters."""
    asyncio.run(_sell_on_a_cluster(empty_database_url, tmp_path))


async def _sell_on_a_cluster(database_url: str, folder: Path) -> None:
    async with running_cluster() as cluster:
        settings = {"RINGFENCE_REDIS_URL": cluster.url, "RINGFENCE_DATABASE_URL": database_url}
        refused = await asyncio.to_thread(ringfence, settings, "migrate")
        succeeded(refused)
        assert "ringfence init --shards N" in refusal(
            await asyncio.to_thread(ringfence, settings, "verify")
        )
        succeeded(await asyncio.to_thread(ringfence, settings, "init", "--shards", str(SHARDS)))
        (folder / "catalogue.toml").write_text(CATALOGUE)
        succeeded(await asyncio.to_thread(ringfence, settings, "load", folder / "catalogue.toml"))
        made = await asyncio.to_thread(
            ringfence, settings, "keys", "create", "shop", "--scope", "admin"
        )
        key = succeeded(made).strip()
        with supervised(settings, folder) as service:
            await asyncio.to_thread(service.await_workers, 2)
            address = f"http://127.0.0.1:{service.port}/v1"
            async with httpx.AsyncClient(
                base_url=address, headers={"authorization": f"Bearer {key}"}
            ) as shop:
                await _sell(shop)
            assert service.end() == 0
        told = succeeded(await asyncio.to_thread(ringfence, settings, "verify"))
        assert "The audit holds" in told


async def _sell(shop: httpx.AsyncClient) -> None:
    lines = [{"sku": sku, "quantity": 2} for sku in SKUS]
    for number in range(6):
        headers = {"idempotency-key": f"cart-{number}"}
        answer = await shop.post(
            "/reservations", json={"channel": "web", "lines": lines}, headers=headers
        )
        assert answer.status_code == (201 if number < 4 else 409), answer.text
    assert (await shop.post("/reservations/cart-0/confirm", json={})).json()["state"] == "committed"
    assert (await shop.post("/reservations/cart-1/release")).json()["state"] == "released"
    assert len((await shop.get("/reservations/cart-2")).json()["lines"]) == len(SKUS)
    assert (await shop.get("/reservations/cart-5")).status_code == 404
    wanted = "&".join(f"sku={sku}" for sku in SKUS)
    items = (await shop.get(f"/availability?channel=web&{wanted}")).json()["items"]
    assert [item["available"] for item in items] == [3] * len(SKUS)
    snapshot = (await shop.get("/channels/web/snapshot")).json()
    assert {item["sku"]: item["available"] for item in snapshot["items"]} == dict.fromkeys(SKUS, 3)
