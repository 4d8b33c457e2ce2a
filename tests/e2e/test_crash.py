"""The service is killed between every two steps of the durable path: what it acknowledged is there."""

import asyncio
import random
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.contract.auditing import expect_one_truth
from e2e.contract.http_client import Answer, Client
from e2e.contract.processes import ADMIN_KEY, Nursery, ServiceProcess, Stores, nursery
from e2e.contract.shop import Shop, line, unique
from redis import Redis

STEPS = (
    "before_gate",
    "during_gate",
    "after_gate",
    "before_append",
    "during_append",
    "after_append",
)
SEEDS, CLIENTS, REQUESTS_MAX = 4, 8, 300
UNITS = {"NORTH": 30, "SOUTH": 15}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Give a place to start services from."""
    with nursery(tmp_path_factory.mktemp("services")) as opened:
        yield opened


@pytest.fixture
def stores(redis_url: str, database_url: str) -> Stores:
    """Give empty stores."""
    return Stores(redis_url, database_url)


class Trade:
    """What clients asked of a service until it died, and what they know of it."""

    def __init__(self, seed: int, skus: list[str]) -> None:
        self.skus = skus
        self.requests: dict[str, list[dict[str, Any]]] = {}
        self.answers: dict[str, Answer] = {}
        self._luck = random.Random(seed)  # noqa: S311 - chance, no secret

    @property
    def unanswered(self) -> list[str]:
        return [key for key in self.requests if key not in self.answers]

    async def go_on(self, port: int, *, stop: asyncio.Event | None = None) -> None:
        """Reserve as one client, until the service dies or it is time to stop."""
        async with Client(port, ADMIN_KEY) as client:
            for _ in range(REQUESTS_MAX):
                if stop is not None and stop.is_set():
                    return
                key = unique("cart")
                some = self._luck.sample(self.skus, self._luck.randint(1, len(self.skus)))
                self.requests[key] = [line(sku, self._luck.randint(1, 2)) for sku in some]
                try:
                    answer = await Shop(client).reserve(self.requests[key], key=key)
                except ConnectionError:
                    return
                # Busy, or unsure: as good as no answer, and repeated like one.
                if answer.status != 503:
                    self.answers[key] = answer
        assert stop is not None, "the service did not die"

    async def expect_kept(self, shop: Shop) -> dict[str, int]:
        """Check every acknowledgement, make the rest definite, and give the units held by SKU."""
        held = dict.fromkeys(self.skus, 0)
        for answer in await asyncio.gather(*(self._settled(shop, key) for key in self.requests)):
            for one in answer.json["lines"] if answer.status == 200 else []:
                held[one["sku"]] += one["quantity"]
        return held

    async def _settled(self, shop: Shop, key: str) -> Answer:
        """Repeat one request until its answer is definite, and compare it with what is known of it."""
        first, again = [await shop.reserve(self.requests[key], key=key) for _ in range(2)]
        known = self.answers.get(key, first)
        assert known.status in ({200, 201, 409} if known is first else {201, 409}), known
        # Only what was never answered may be done now.
        assert first is known or first.status == (409 if known.status == 409 else 200), first
        assert again.status == (409 if known.status == 409 else 200)
        assert first.json == again.json == known.json
        if known.status != 409:
            read = await shop.client.get(f"/v1/reservations/{key}")
            assert (read.status, read.json) == (200, known.json)
        return again


async def _opened(port: int, seed: int) -> Trade:
    async with Client(port, ADMIN_KEY) as client:
        shop = Shop(client)
        await shop.open()
        return Trade(seed, [await shop.new_sku(UNITS) for _ in range(3)])


async def _expect_kept(stores: Stores, service: ServiceProcess, trade: Trade) -> None:
    async with Client(service.port, ADMIN_KEY) as client:
        held = await trade.expect_kept(Shop(client))
    found = await expect_one_truth(stores, [service], trade.skus)
    for sku in trade.skus:
        places = found.figures[sku]
        assert sum(figures.reserved for figures in places.values()) == held[sku]
        assert all(places[place].reserved <= units for place, units in UNITS.items())


@pytest.mark.parametrize("step", STEPS)
async def test_killed(services: Nursery, stores: Stores, step: str) -> None:
    """Started again, it has what it acknowledged, also where Redis lost everything; nothing is oversold."""
    luck = random.Random(step)  # noqa: S311 - chance, no secret

    def start() -> ServiceProcess:
        started = services.start(stores, crash_step=step, crash_passes=luck.randint(0, 3))
        started.await_ready()
        return started

    service = start()
    for seed in range(SEEDS):
        trade = await _opened(service.port, seed)
        service.send_signal(signal.SIGUSR1)
        await asyncio.gather(*(trade.go_on(service.port) for _ in range(CLIENTS)))
        assert service.await_end()
        assert trade.unanswered
        if seed % 2:
            with Redis.from_url(stores.redis_url) as redis:
                redis.flushdb()
        service = start()
        await _expect_kept(stores, service, trade)


@pytest.mark.parametrize("step", STEPS)
async def test_killed_beside_another(services: Nursery, stores: Stores, step: str) -> None:
    """Where one of two processes dies, the other goes on, and what either acknowledged is there."""
    survivor = services.start(stores)
    dying = services.start(stores, crash_step=step, crash_passes=3)
    for service in (survivor, dying):
        service.await_ready()
    trade, stop = await _opened(survivor.port, 7), asyncio.Event()
    others = [asyncio.create_task(trade.go_on(survivor.port, stop=stop)) for _ in range(4)]
    dying.send_signal(signal.SIGUSR1)
    await asyncio.gather(*(trade.go_on(dying.port) for _ in range(4)))
    assert dying.await_end()
    stop.set()
    await asyncio.gather(*others)
    assert trade.unanswered
    await _expect_kept(stores, survivor, trade)
