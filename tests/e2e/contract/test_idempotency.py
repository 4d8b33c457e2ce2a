"""One request has one effect, however often and wherever it is sent."""

import asyncio
from collections.abc import Iterator

import pytest
from e2e.contract.http_client import Client
from e2e.contract.processes import ADMIN_KEY, Nursery, ServiceProcess, Stores
from e2e.contract.shop import Shop, expect_problem, line, unique


@pytest.fixture(scope="module")
def second_service(
    services: Nursery, stores: Stores, service: ServiceProcess
) -> Iterator[ServiceProcess]:
    """Run another process on the same stores."""
    del service
    started = services.start(stores)
    started.await_ready()
    yield started
    started.stop()


async def test_replay(shop: Shop) -> None:
    """The same request under the same key is answered 200 with the same reservation, and says so."""
    sku, key = await shop.new_sku(5), unique("key")
    first = await shop.reserve([line(sku, 2)], key=key)
    again = await shop.reserve([line(sku, 2)], key=key)
    assert (first.status, again.status) == (201, 200)
    assert again.body == first.body
    assert again.header("idempotent-replayed") == "true"
    assert again.header("content-type") == "application/json"
    assert await shop.available(sku) == 3


async def test_order_of_fields(shop: Shop, client: Client) -> None:
    """The order of JSON fields, white space, and defaults that are spelled out make no difference."""
    sku, key = await shop.new_sku(5), unique("key")
    texts = [
        f'{{"channel":"web","lines":[{{"sku":"{sku}","quantity":2}}]}}',
        f'{{"lines": [ {{"quantity": 2, "sku": "{sku}"}} ],\n "channel": "web"}}',
        (
            f'{{"channel":"web","ttl_seconds":900,"partial":false,"ack":"ledger","replaces":null,'
            f'"lines":[{{"location":null,"sku":"{sku}","quantity":2}}]}}'
        ),
    ]
    answers = [await client.post("/v1/reservations", text.encode(), key) for text in texts]
    assert [answer.status for answer in answers] == [201, 200, 200]
    assert {answer.body for answer in answers} == {answers[0].body}


async def test_mismatch(shop: Shop) -> None:
    """Whatever differs, the key is refused for another request, and nothing is done."""
    sku, other, key = await shop.new_sku(5), await shop.new_sku(5), unique("key")
    assert (await shop.reserve([line(sku, 2)], key=key)).status == 201
    differing = [
        {"lines": [line(sku, 3)]},
        {"lines": [line(other, 2)]},
        {"lines": [line(sku, 2), line(other, 1)]},
        {"lines": [line(sku, 2, "NORTH")]},
        {"lines": [line(sku, 2)], "channel": "store"},
        {"lines": [line(sku, 2)], "ttl_seconds": 60},
        {"lines": [line(sku, 2)], "partial": True},
        {"lines": [line(sku, 2)], "replaces": "another"},
    ]
    for body in differing:
        expect_problem(await shop.reserve(**body, key=key), 422, "idempotency-mismatch")
    assert (await shop.available(sku), await shop.available(other)) == (3, 5)


async def test_replay_shows_the_present(shop: Shop) -> None:
    """A repeated request shows the reservation as it is now."""
    sku, key = await shop.new_sku(1), unique("key")
    await shop.reserve([line(sku)], key=key)
    await shop.act(key, "confirm")
    again = await shop.reserve([line(sku)], key=key)
    assert (again.status, again.json["state"]) == (200, "committed")
    await shop.act(key, "release")
    again = await shop.reserve([line(sku)], key=key)
    assert (again.status, again.json["state"]) == (200, "released")
    assert await shop.available(sku) == 1


async def test_hundred_at_once(shop: Shop) -> None:
    """A hundred identical requests at once have one effect and one body."""
    sku, key = await shop.new_sku(200), unique("key")
    answers = await asyncio.gather(*(shop.reserve([line(sku)], key=key) for _ in range(100)))
    assert sorted(answer.status for answer in answers) == [200] * 99 + [201]
    assert len({answer.body for answer in answers}) == 1
    await shop.settles(sku, {"NORTH": {"reserved": 1}})


async def test_two_processes(shop: Shop, second_service: ServiceProcess) -> None:
    """The same request at two processes at once has one effect and one body, key after key."""
    async with Client(second_service.port, ADMIN_KEY) as second_client:
        second = Shop(second_client)
        for _ in range(3):
            sku, key = await shop.new_sku(200), unique("key")
            answers = await asyncio.gather(
                *(one.reserve([line(sku)], key=key) for one in (shop, second) for _ in range(50))
            )
            assert sorted(answer.status for answer in answers) == [200] * 99 + [201]
            assert len({answer.body for answer in answers}) == 1
            for one in (shop, second):
                await one.settles(sku, {"NORTH": {"reserved": 1}})


async def test_two_processes_end_one_hold(shop: Shop, second_service: ServiceProcess) -> None:
    """A hold that is confirmed and released at two processes at once ends one way for everybody."""
    async with Client(second_service.port, ADMIN_KEY) as second_client:
        second = Shop(second_client)
        for _ in range(5):
            sku = await shop.new_sku(1)
            held = await shop.held([line(sku)])
            confirmed, released = await asyncio.gather(
                shop.act(held, "confirm"), second.act(held, "release")
            )
            assert released.status == 200
            assert confirmed.status in {200, 409}
            assert [await one.state(held) for one in (shop, second)] == ["released"] * 2
            await second.settles(sku, {"NORTH": {"committed": 0, "available": 1}})


async def test_hundred_confirmations(shop: Shop) -> None:
    """A hold that is confirmed a hundred times at once is committed once."""
    sku = await shop.new_sku(3)
    held = await shop.held([line(sku, 2)])
    answers = await asyncio.gather(*(shop.act(held, "confirm") for _ in range(100)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    await shop.settles(sku, {"NORTH": {"reserved": 0, "committed": 2, "available": 1}})
