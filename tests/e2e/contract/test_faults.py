"""What callers are told while Redis or PostgreSQL is away, and that every key has one effect in the end."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from e2e.contract.http_client import Answer, Client
from e2e.contract.processes import ADMIN_KEY, Nursery, ServiceProcess, Stores
from e2e.contract.proxies import Way, way_to
from e2e.contract.shop import Shop, becomes, expect_problem, line, unique
from tested import SHARDS

WAITING_MAX = 20
LIMITS = {"answer_seconds_max": 1.0, "waiting_max": WAITING_MAX, "waiting_ends_max": 40}


class Troubled(NamedTuple):
    """A service whose ways to its stores can be troubled."""

    service: ServiceProcess
    shop: Shop
    gate: Way
    ledger: Way


@pytest.fixture
async def troubled(services: Nursery, redis_url: str, database_url: str) -> AsyncIterator[Troubled]:
    """Run a service with little patience over ways that can be cut."""
    async with way_to(redis_url) as (redis, gate), way_to(database_url) as (database, ledger):
        service = services.start(
            Stores(redis, database),
            limits=LIMITS,
            replacing={"allocation.gate.redis_gate:SOCKET_TIMEOUT_SECONDS": 1.0},
        )
        # The ways run on this loop, so it must not wait itself.
        await asyncio.to_thread(service.await_ready)
        async with Client(service.port, ADMIN_KEY) as client:
            shop = Shop(client)
            await shop.open()
            yield Troubled(service, shop, gate, ledger)
        service.kill()


async def _ready(shop: Shop) -> tuple[int, str, str]:
    answer = await shop.client.get("/health/ready")
    return answer.status, answer.json["gate"], answer.json["ledger"]


async def _definite(shop: Shop, sku: str, key: str) -> Answer:
    """Repeat a request until its answer is definite, as callers are told to."""
    answers: list[Answer] = []

    async def is_definite() -> bool:
        answers.append(await shop.reserve([line(sku)], key=key))
        return answers[-1].status < 429

    await becomes(is_definite, expected=True, within_seconds=15)
    return answers[-1]


async def test_frozen_ledger(troubled: Troubled) -> None:
    """A ledger that does not answer: outcome unknown for what was decided, unavailable for the rest."""
    shop, sku = troubled.shop, await troubled.shop.new_sku(100)
    troubled.ledger.freeze()
    decided = asyncio.create_task(shop.reserve([line(sku)], key=(first := unique("key"))))
    await becomes(lambda: _ready(shop), (503, "verified", "behind"))
    refused = unique("key")
    problem = await shop.reserve([line(sku)], key=refused)
    expect_problem(problem, 503, "ledger-unavailable")
    # Where there are many shards, a key is claimed in Postgres before anything is decided.
    slug, done, later = (
        ("outcome-unknown", "unknown", 200)
        if SHARDS == 1
        else ("ledger-unavailable", "nothing", 201)
    )
    expect_problem(await decided, 503, slug, done=done)
    troubled.ledger.thaw()
    await becomes(lambda: _ready(shop), (200, "verified", "timely"), 10)
    assert (await _definite(shop, sku, first)).status == later
    assert (await _definite(shop, sku, refused)).status == 201
    await shop.settles(sku, {"NORTH": {"reserved": 2}})


async def test_cut_ledger(troubled: Troubled) -> None:
    """A ledger whose connections drop in the middle of a sale: every key has one effect in the end."""
    shop, sku = troubled.shop, await troubled.shop.new_sku(100)
    keys = [unique("key") for _ in range(30)]

    async def cut() -> None:
        for _ in range(3):
            troubled.ledger.cut()
            await asyncio.sleep(0.01)
            troubled.ledger.mend()
            await asyncio.sleep(0.1)

    _, *answers = await asyncio.gather(cut(), *(_definite(shop, sku, key) for key in keys))
    assert {answer.status for answer in answers} <= {200, 201}
    await shop.settles(sku, {"NORTH": {"reserved": 30}})


async def test_frozen_gate(troubled: Troubled) -> None:
    """A gate that does not answer: what was sent is unknown, the rest was not done or is too much."""
    shop, sku = troubled.shop, await troubled.shop.new_sku(100)
    troubled.gate.freeze()
    keys = [unique("key") for _ in range(3 * WAITING_MAX)]
    answers = await asyncio.gather(*(shop.reserve([line(sku)], key=key) for key in keys))
    told: Counter[str] = Counter()
    for answer in answers:
        slug = answer.json["type"].rpartition("/")[2]
        expect_problem(
            answer,
            429 if slug == "too-many-requests" else 503,
            slug,
            done="unknown" if slug == "outcome-unknown" else "nothing",
        )
        told[slug] += 1
    assert told["too-many-requests"] >= WAITING_MAX
    # Where the gate froze in a call that only swept, nobody's command was in it.
    assert told["outcome-unknown"] + told["gate-unverified"] >= 1
    assert told.keys() <= {
        "too-many-requests",
        "outcome-unknown",
        "ledger-unavailable",
        "gate-unverified",
    }
    troubled.gate.thaw()
    for answer in await asyncio.gather(*(_definite(shop, sku, key) for key in keys)):
        assert answer.status in {200, 201}
    await shop.settles(sku, {"NORTH": {"reserved": len(keys)}})


async def test_cut_gate(troubled: Troubled) -> None:
    """A gate that is gone: nothing is done until it is there and verified again."""
    shop, sku = troubled.shop, await troubled.shop.new_sku(100)
    held = await shop.held([line(sku)])
    troubled.gate.cut()
    await becomes(lambda: _ready(shop), (503, "unverified", "timely"))
    key = unique("key")
    expect_problem(await shop.reserve([line(sku)], key=key), 503, "gate-unverified")
    expect_problem(await shop.act(held, "confirm"), 503, "gate-unverified")
    answer = await shop.move("receipt", [line(sku, 1, "NORTH")])
    expect_problem(answer, 503, "gate-unverified")
    troubled.gate.mend()
    await becomes(lambda: _ready(shop), (200, "verified", "timely"), 10)
    assert (await _definite(shop, sku, key)).status == 201
    assert (await shop.act(held, "confirm")).status == 200
    await shop.settles(sku, {"NORTH": {"on_hand": 100, "reserved": 1, "committed": 1}})
