"""Many clients want the last units of one SKU from several processes at once: as many get one as there are."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from e2e.contract.auditing import expect_one_truth
from e2e.contract.http_client import Answer, Client
from e2e.contract.processes import ADMIN_KEY, Nursery, ServiceProcess, Stores, nursery
from e2e.contract.shop import Shop, expect_lack, expect_problem, line, unique

CLIENTS, UNITS, PROCESSES, SEEDS = 64, 10, 3, 24


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Give a place to start services from."""
    with nursery(tmp_path_factory.mktemp("services")) as opened:
        yield opened


@pytest.fixture
def stores(redis_url: str, database_url: str) -> Stores:
    """Give empty stores."""
    return Stores(redis_url, database_url)


@pytest.fixture
def processes(services: Nursery, stores: Stores) -> Iterator[list[ServiceProcess]]:
    """Run several services on the same stores."""
    started = [services.start(stores) for _ in range(PROCESSES)]
    for process in started:
        process.await_ready()
    yield started
    for process in started:
        process.stop()


@pytest.fixture
async def shops(processes: list[ServiceProcess]) -> AsyncIterator[list[Shop]]:
    """Give a shop for every client, spread over the services."""
    async with AsyncExitStack() as stack:
        yield [
            Shop(
                await stack.enter_async_context(
                    Client(processes[number % PROCESSES].port, ADMIN_KEY)
                )
            )
            for number in range(CLIENTS)
        ]


async def _reserved(shop: Shop, lines: list[dict[str, Any]], **fields: object) -> Answer:
    """Reserve; a machine that is too busy to write in time may have to be asked again."""
    key = unique("cart")
    while (answer := await shop.reserve(lines, key=key, **fields)).status == 503:
        expect_problem(answer, 503, "ledger-unavailable")
    return answer


async def test_last_units(
    stores: Stores, processes: list[ServiceProcess], shops: list[Shop]
) -> None:
    """Of 64 clients at 3 processes that want one of 10 units, exactly 10 get one, round after round."""
    await shops[0].open()
    skus = []
    for seed in range(SEEDS):
        luck = random.Random(seed)  # noqa: S311 - chance, no secret
        sku = await shops[0].new_sku(UNITS)
        skus.append(sku)
        runners = luck.sample(shops, CLIENTS)
        answers = await asyncio.gather(*(_reserved(shop, [line(sku)]) for shop in runners))
        statuses = Counter(answer.status for answer in answers)
        assert statuses == {201: UNITS, 409: CLIENTS - UNITS}, f"seed {seed}"
        for answer in answers:
            if answer.status == 409:
                expect_lack(answer, sku, 1, 0)
    found = await expect_one_truth(stores, processes, skus)
    assert all(found.figures[sku]["NORTH"].reserved == UNITS for sku in skus)


async def test_lively_trade(
    stores: Stores, processes: list[ServiceProcess], shops: list[Shop]
) -> None:
    """Holds of many sizes that come, change, end and go at 3 processes never exceed the stock."""
    await shops[0].open()
    skus = [await shops[0].new_sku({"NORTH": 12, "SOUTH": 8}) for _ in range(3)]

    async def trade(shop: Shop, seed: int) -> None:
        luck = random.Random(seed)  # noqa: S311 - chance, no secret
        held = ""
        for _ in range(8):
            wanted = [
                line(sku, luck.randint(1, 3)) for sku in luck.sample(skus, luck.randint(1, 3))
            ]
            swap = {"replaces": held} if held and luck.random() < 0.5 else {}
            answer = await _reserved(shop, wanted, partial=luck.random() < 0.2, **swap)
            if answer.status == 201:
                held = answer.json["reservation_id"]
                for action in luck.choice([[], ["release"], ["confirm"], ["confirm", "release"]]):
                    assert (await shop.act(held, action)).status == 200
            else:
                assert answer.status == 409, answer

    await asyncio.gather(*(trade(shop, seed) for seed, shop in enumerate(shops)))
    found = await expect_one_truth(stores, processes, skus)
    for sku in skus:
        for place, units in (("NORTH", 12), ("SOUTH", 8)):
            figures = found.figures[sku][place]
            assert 0 <= figures.reserved + figures.committed <= units
