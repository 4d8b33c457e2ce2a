"""Pushing figures to a storefront: the newest wins, one at a time, until it is delivered."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from listening import CHANNEL, Listening, listening, soon
from shopfront import Reply, Request, Shopfront, shopfront
from standardwebhooks import Webhook

from service.settings import Settings
from service.storefronts.webhook import make_secret

SKUS = ("MUG", "TEE")
PRIVATE = Settings(demo=False, allow_private_storefronts=True)


@pytest.fixture
async def running(redis_url: str, database_url: str) -> AsyncIterator[Listening]:
    """Run a service that may push to loopback."""
    async with listening(redis_url, database_url, PRIVATE) as started:
        await started.set_up(*SKUS)
        yield started


@pytest.fixture
async def shop() -> AsyncIterator[Shopfront]:
    """Give a storefront."""
    async with shopfront() as opened:
        yield opened


async def put(running: Listening, url: str, **fields: object) -> dict[str, Any]:
    answer = await running.client.put(
        "/v1/storefronts/shop", json={"channel": CHANNEL, "url": url} | fields
    )
    assert answer.status_code in {200, 201}, answer.text
    return answer.json()


async def state(running: Listening) -> dict[str, Any]:
    answer = await running.client.get("/v1/storefronts/shop")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def until_delivered(running: Listening, count: int = len(SKUS)) -> dict[str, Any]:
    async def delivered() -> bool:
        return (await state(running))["delivered"] == count

    await soon(delivered, 15.0)
    return await state(running)


async def test_a_storefront_hears_every_figure_and_then_every_change(
    running: Listening, shop: Shopfront
) -> None:
    """A new storefront gets the catalogue, then what changes, each signed with the secret it was given once."""
    put_answer = await put(running, shop.url)
    await shop.until(lambda: shop.figures() == {"MUG": 100, "TEE": 100})
    await running.sell("MUG", "cart-1", 3)
    await shop.until(lambda: shop.figures() == {"MUG": 97, "TEE": 100})
    for request in shop.requests:
        Webhook(put_answer["secret"]).verify(request.body, request.headers)
    shown = await until_delivered(running)
    assert shown == {
        "name": "shop",
        "channel": CHANNEL,
        "url": shop.url,
        "state": "active",
        "pending": 0,
        "failing": 0,
        "delivered": 2,
        "oldest_undelivered_age_seconds": None,
        "last_error": "",
    }
    listed = await running.client.get("/v1/storefronts")
    assert listed.json() == {"items": [shown]}
    assert put_answer["secret"] not in listed.text


async def test_a_storefront_that_is_busy_hears_the_newest_figure_and_no_older_one(
    running: Listening, shop: Shopfront
) -> None:
    """While one push of a SKU is on its way no other is; what changed meanwhile is one push."""
    await put(running, shop.url)
    await until_delivered(running)
    release = asyncio.Event()
    shop.reply = lambda _request: Reply(until=release)
    shop.requests.clear()
    await running.sell("MUG", "cart-0")
    await shop.until(lambda: len(shop.requests) == 1)
    for number in range(1, 11):
        await running.sell("MUG", f"cart-{number}")
    assert (await state(running))["oldest_undelivered_age_seconds"] > 0

    async def newest_is_wanted() -> bool:
        wanted = "SELECT available FROM storefront_delivery WHERE sku = 'MUG'"
        return await running.service.engine.pool.fetchval(wanted) == 89

    await soon(newest_is_wanted)
    release.set()
    await shop.until(lambda: shop.figures() == {"MUG": 89})
    await until_delivered(running)
    assert len(shop.requests) == 2
    assert shop.most_of_one_sku == 1


async def test_pushes_to_one_storefront_are_bounded(running: Listening, shop: Shopfront) -> None:
    """No more than a few pushes are on their way to a storefront at once."""
    for number in range(30):
        await running.client.put(f"/v1/skus/SKU-{number}", json={})
    release = asyncio.Event()
    shop.reply = lambda _request: Reply(until=release)
    await put(running, shop.url)
    await shop.until(lambda: len(shop.requests) == 8)
    release.set()
    await until_delivered(running, 32)
    assert shop.most_in_flight == 8


async def test_a_storefront_that_fails_is_tried_again_and_seen_to_fail(
    running: Listening, shop: Shopfront
) -> None:
    """What was not delivered is shown as failing, and delivered with the same id when the storefront is back."""
    shop.reply = lambda _request: Reply(500)
    await put(running, shop.url)

    async def fails() -> bool:
        return (await state(running))["failing"] == 2

    await soon(fails)
    shown = await state(running)
    assert shown["last_error"] == "It answered 500."
    assert shown["oldest_undelivered_age_seconds"] > 0
    shop.reply = lambda _request: Reply()
    shown = await until_delivered(running)
    assert (shown["failing"], shown["last_error"]) == (0, "")
    identities: dict[str, set[str]] = {}
    for request in shop.requests:
        identities.setdefault(request.figure["sku"], set()).add(request.headers["webhook-id"])
    assert [len(found) for found in identities.values()] == [1, 1]


async def test_a_storefront_that_asks_for_a_pause_gets_it(
    running: Listening, shop: Shopfront
) -> None:
    """Retry-After holds for the whole storefront, also for figures that change meanwhile."""
    await put(running, shop.url)
    await until_delivered(running)
    shop.reply = lambda _request: Reply(429, (("retry-after", "600"),))
    shop.requests.clear()
    await running.sell("MUG", "cart-1")
    await shop.until(lambda: len(shop.requests) == 1)

    async def fails() -> bool:
        return (await state(running))["failing"] == 1

    await soon(fails)
    await running.sell("TEE", "cart-2")

    async def waits() -> bool:
        return (await state(running))["pending"] == 1

    await soon(waits)
    assert len(shop.requests) == 1


async def test_a_storefront_that_is_gone_hears_nothing_until_it_is_set_again(
    running: Listening, shop: Shopfront
) -> None:
    """410 ends the pushing, visibly; a new PUT begins it again under the same secret."""
    secret = make_secret()
    assert "secret" not in await put(running, shop.url, secret=secret)
    await until_delivered(running)
    shop.reply = lambda _request: Reply(410)
    await running.sell("MUG", "cart-1")

    async def gone() -> bool:
        return (await state(running))["state"] == "gone"

    await soon(gone)
    assert (await state(running))["last_error"] == "It answered 410."
    count = len(shop.requests)
    await running.sell("MUG", "cart-2")
    shop.reply = lambda _request: Reply()
    assert len(shop.requests) == count
    assert "secret" not in await put(running, shop.url)
    await shop.until(lambda: shop.figures() == {"MUG": 98, "TEE": 100})
    Webhook(secret).verify(shop.requests[-1].body, shop.requests[-1].headers)


async def test_what_was_not_delivered_survives_a_restart(
    redis_url: str, database_url: str, shop: Shopfront
) -> None:
    """A storefront that was down while the service stopped hears the newest figures from the next process."""
    async with listening(redis_url, database_url, PRIVATE) as first:
        await first.set_up(*SKUS)
        await put(first, shop.url)
        await until_delivered(first)
        shop.reply = lambda _request: Reply(503)
        await first.sell("MUG", "cart-1")
        await shop.until(lambda: shop.figures()["MUG"] == 99)
    shop.reply = lambda _request: Reply()
    shop.requests.clear()
    async with listening(redis_url, database_url, PRIVATE) as second:
        await second.sell("TEE", "cart-2")
        await shop.until(lambda: shop.figures() == {"MUG": 99, "TEE": 99})
        await until_delivered(second)


async def test_two_processes_push_each_figure_once(
    redis_url: str, database_url: str, shop: Shopfront
) -> None:
    """Several processes share the work: no version is pushed twice, and no SKU by two at once."""
    async with (
        listening(redis_url, database_url, PRIVATE) as first,
        listening(redis_url, database_url, PRIVATE) as second,
    ):
        await first.set_up(*SKUS)
        await soon(lambda: CHANNEL in second.service.figures.channels)
        await put(first, shop.url)
        await until_delivered(first)
        for number in range(10):
            await first.sell("MUG", f"first-{number}")
            await second.sell("TEE", f"second-{number}")
        await shop.until(lambda: shop.figures() == {"MUG": 90, "TEE": 90})
        await until_delivered(first)
    told = [_identity(request) for request in shop.requests]
    assert len(told) == len(set(told))
    assert shop.most_of_one_sku == 1


def _identity(request: Request) -> str:
    return request.headers["webhook-id"]


async def test_a_storefront_is_set_with_care(
    redis_url: str, database_url: str, shop: Shopfront
) -> None:
    """Private addresses, bad secrets and unknown channels are refused; what is deleted is no longer there."""
    async with listening(redis_url, database_url) as running:
        await running.set_up(*SKUS)
        public = "https://203.0.113.7/"
        for body, status in (
            ({"channel": CHANNEL, "url": shop.url}, 400),
            ({"channel": CHANNEL, "url": "https://127.0.0.1/"}, 400),
            ({"channel": CHANNEL, "url": "https://localhost/"}, 400),
            ({"channel": CHANNEL, "url": public}, 400),
            ({"channel": CHANNEL, "url": "https://8.8.8.8:25/"}, 400),
            ({"channel": CHANNEL, "url": "not an address"}, 400),
            ({"channel": CHANNEL, "url": "https://8.8.8.8/", "secret": "short"}, 400),
            ({"channel": "nowhere", "url": "https://8.8.8.8/"}, 422),
            ({"channel": CHANNEL, "url": "https://8.8.8.8/", "more": 1}, 400),
        ):
            answer = await running.client.put("/v1/storefronts/shop", json=body)
            assert answer.status_code == status, (body, answer.text)
        assert (await running.client.get("/v1/storefronts/shop")).status_code == 404
        assert (await running.client.delete("/v1/storefronts/shop")).status_code == 404
        reader = await running.service.keys.add("reader", ["read"], [])
        headers = {"authorization": f"Bearer {reader.text}"}

        async def forbidden() -> bool:
            answer = await running.client.get("/v1/storefronts", headers=headers)
            return answer.status_code == 403

        await soon(forbidden)
    assert shop.connections == 0


async def test_a_deleted_storefront_hears_nothing_more(running: Listening, shop: Shopfront) -> None:
    """After DELETE nothing is pushed, and its channel is no longer followed."""
    await put(running, shop.url)
    await until_delivered(running)
    count = len(shop.requests)
    assert (await running.client.delete("/v1/storefronts/shop")).status_code == 204
    await soon(lambda: len(running.service.sources[0].feed._followers) == 1)
    await running.sell("MUG", "cart-1")
    assert (await running.client.get("/v1/storefronts")).json() == {"items": []}
    assert len(shop.requests) == count
