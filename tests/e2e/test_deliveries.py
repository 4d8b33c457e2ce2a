"""What becomes of stored deliveries: when they are late, contradict each other, get stuck or grow old."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator

import asyncpg
import pytest
from e2e.contract.proxies import way_to
from e2e.delivering import becomes, dead_letters, deliver, moved, receipt, states
from engine.shards import CATALOGUE, Shard
from in_process import LOCATION, SKU, Served, pool_of, served
from signing import signed_headers

from allocation.errors import LedgerUnavailable, OutcomeUnknown
from allocation.gate.redis_gate import RedisGate
from service.warehouses import inbox as inbox_module
from service.warehouses.adapters import ADAPTERS
from service.warehouses.canonical import Canonical
from service.warehouses.inbox import Inbox
from service.warehouses.port import Translated, Untranslatable
from service.warehouses.sources import SourceRing, SourceStore
from service.workers.inbound import Inbound
from service.workers.pruning import InboxPruning

RETENTION_HOURS = 336
RETENTION_MS = RETENTION_HOURS * 3_600_000


@pytest.fixture
async def secret(database_url: str) -> str:
    """Give the secret of the source `wms`, which the service knows from its start."""
    async with pool_of(database_url) as pool:
        made = await SourceStore(pool).add("wms")
    assert made is not None
    return made


@pytest.fixture
async def running(redis_url: str, database_url: str, secret: str) -> AsyncIterator[Served]:
    """Run the service with one SKU that has no stock yet."""
    del secret
    async with served(redis_url, database_url) as started:
        yield started


async def move(running: Served, kind: str, quantity: int, sku: str, **fields: object) -> None:
    """Send a movement that is applied before this ends."""
    line = {"sku": sku, "location": LOCATION, "quantity": quantity}
    body = {"source": "erp", "event_id": kind, "kind": kind, "lines": [line]} | fields
    answer = await running.client.post("/v1/movements", json=body)
    assert answer.status_code == 200, answer.text


async def bury(running: Served, secret: str, body: bytes) -> int:
    """Deliver what cannot be applied yet, since its SKU is unknown, and then make the SKU known."""
    await deliver(running, body, signed_headers(secret, "msg_1", body))
    await becomes(lambda: states(running), ["dead"])
    assert (await running.client.put("/v1/skus/NEW", json={})).status_code == 201
    (letter,) = (await dead_letters(running))["items"]
    return letter["id"]


async def retry(running: Served, letter_id: int) -> None:
    answer = await running.client.post(f"/v1/dead-letters/{letter_id}/retry")
    assert answer.status_code == 202
    await becomes(lambda: states(running), ["applied"])


async def test_late_count(running: Served, secret: str) -> None:
    """A count without a time is true as it arrived: what happened since then is added to it."""
    letter_id = await bury(running, secret, moved("count", 10, "NEW"))
    before = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    await move(running, "receipt", 10, "NEW", occurred_at=before.isoformat())
    await move(running, "shipment", 4, "NEW")
    await retry(running, letter_id)
    assert await running.on_hand("NEW") == 6


async def test_late_receipt(running: Served, secret: str) -> None:
    """Goods that a source told of before they were counted are in the count, however late they are applied."""
    letter_id = await bury(running, secret, receipt(7, "NEW"))
    await move(running, "count", 7, "NEW")
    await retry(running, letter_id)
    assert await running.on_hand("NEW") == 7


async def test_late_movement_with_a_time(running: Served, secret: str) -> None:
    """A time in the movement itself is worth more than the time of its arrival."""
    before = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    letter_id = await bury(running, secret, moved("count", 10, "NEW", as_of=before.isoformat()))
    between = (before + dt.timedelta(minutes=30)).isoformat()
    await move(running, "shipment", 4, "NEW", occurred_at=between)
    await retry(running, letter_id)
    assert await running.on_hand("NEW") == 6


async def test_other_body_under_one_id(running: Served, secret: str) -> None:
    """A second story under a known id is answered 200, changes nothing, and is one dead letter."""
    body, other = receipt(7), receipt(70)
    for sent, duplicate in ((body, False), (other, True), (other, True), (body, True)):
        answer = await deliver(running, sent, signed_headers(secret, "msg_1", sent))
        assert (answer.status_code, answer.json()["duplicate"]) == (200, duplicate)
    await becomes(lambda: states(running), ["applied", "dead"])
    (letter,) = (await dead_letters(running))["items"]
    assert (letter["webhook_id"], letter["body_start"]) == ("msg_1", other.decode())
    assert letter["reason"].startswith("idempotency-mismatch: ")
    assert await running.on_hand() == 7
    await running.client.post(f"/v1/dead-letters/{letter['id']}/retry")
    # The delivery's id is that of the event as well, so the gate refuses it in its turn.
    await becomes(lambda: states(running), ["applied", "dead"])
    assert await running.on_hand() == 7


async def test_two_bodies_at_once(running: Served, secret: str) -> None:
    """Of two bodies that race under one id, one is applied and the other one is a dead letter."""
    bodies = [receipt(7, event_id="goods-in-1"), receipt(70, event_id="goods-in-2")]
    sent = [(body, signed_headers(secret, "msg_1", body)) for body in bodies * 5]
    answers = await asyncio.gather(*(deliver(running, *each) for each in sent))
    assert sorted(answer.json()["duplicate"] for answer in answers) == [False] + [True] * 9

    async def sorted_states() -> list[str]:
        return sorted(await states(running))

    await becomes(sorted_states, ["applied", "dead"])
    assert await running.on_hand() in {7, 70}


class Raising(Canonical):
    """An adapter with a bug."""

    def translate(self, source: str, delivery_id: str, body: bytes) -> Translated | Untranslatable:
        raise LookupError(source, delivery_id, body)


async def test_adapter_with_a_bug(
    running: Served, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery that its adapter cannot cope with is a dead letter, and holds no other one up."""
    monkeypatch.setitem(ADAPTERS, "raising", Raising())
    pool = running.service.engine.pool
    other_secret = await SourceStore(pool).add("other")
    assert other_secret is not None
    await pool.execute("UPDATE webhook_source SET adapter = 'raising' WHERE name = 'other'")

    async def status() -> int:
        body = receipt(1)
        headers = signed_headers(other_secret, "msg_1", body)
        return (await deliver(running, body, headers, "other")).status_code

    await becomes(status, 200)
    body = receipt(7)
    await deliver(running, body, signed_headers(secret, "msg_2", body))
    await becomes(lambda: states(running), ["dead", "applied"])
    assert "LookupError" in (await dead_letters(running))["items"][0]["reason"]


async def test_stuck_apply(gate: RedisGate, database_url: str) -> None:
    """A delivery whose movement gets no answer is let go, and is applied once when there are answers again."""
    answering = asyncio.Event()
    body = moved("count", 7, "MUG", lines=[{"sku": "MUG", "location": "LON", "quantity": 7}])
    async with Shard.open(gate, database_url) as shard, pool_of(database_url) as pool:
        await shard.do(*CATALOGUE)
        inbox = Inbox(pool)
        inbound = Inbound(inbox, SourceRing(), shard.pipeline, apply_seconds_max=0.05)
        await inbox.store("wms", "msg_1", body)

        async def wait() -> None:
            await answering.wait()

        shard.ledger.before = wait
        assert await inbound.run_once() == 0
        row = await pool.fetchrow("SELECT state, attempts FROM inbound_event FOR UPDATE NOWAIT")
        assert row is not None
        assert tuple(row) == ("received", 1)
        answering.set()
        await pool.execute("UPDATE inbound_event SET next_attempt_at = now()")
        assert await inbound.run_once() == 1
        assert await pool.fetchval("SELECT state FROM inbound_event") == "applied"
        assert await pool.fetchval("SELECT count(*) FROM ledger WHERE subject ~ 'msg_1'") == 1


async def test_store_on_a_frozen_database(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the database stops answering, a store says what it knows: done perhaps, or not at all."""
    monkeypatch.setattr(inbox_module, "ACQUIRE_SECONDS_MAX", 0.2)
    monkeypatch.setattr(inbox_module, "STORE_SECONDS_MAX", 0.2)
    async with (
        way_to(database_url) as (url, way),
        asyncpg.create_pool(url, min_size=1, max_size=1) as pool,
    ):
        inbox = Inbox(pool)
        way.freeze()
        with pytest.raises(OutcomeUnknown):
            await inbox.store("wms", "msg_1", b"{}")
        with pytest.raises(LedgerUnavailable):
            await inbox.store("wms", "msg_1", b"{}")
        way.thaw()
        await inbox.store("wms", "msg_1", b"{}")
        assert await pool.fetchval("SELECT count(*) FROM inbound_event") == 1


async def test_old_deliveries_are_forgotten(running: Served, secret: str) -> None:
    """An applied delivery is remembered as long as a movement; what waits or is dead is never forgotten."""
    pool = running.service.engine.pool
    bodies = [receipt(number) for number in range(1, 4)] + [receipt(9, "NEW")]
    for number, body in enumerate(bodies):
        await deliver(running, body, signed_headers(secret, f"msg_{number}", body))
    await becomes(lambda: states(running), ["applied"] * 3 + ["dead"])
    await pool.execute(
        "UPDATE inbound_event SET received_at = now() - make_interval(hours => $1 + 1)",
        RETENTION_HOURS,
    )
    await pool.execute(
        "UPDATE inbound_event SET applied_at = now() - make_interval(hours => $1 + 1)"
        " WHERE webhook_id IN ('msg_0', 'msg_1')",
        RETENTION_HOURS,
    )
    pruning = InboxPruning(Inbox(pool), RETENTION_MS)
    assert await pruning.run_once() == 2
    assert await pruning.run_once() == 0
    assert await states(running) == ["applied", "dead"]
    again = [
        (await deliver(running, body, signed_headers(secret, f"msg_{number}", body))).json()
        for number, body in enumerate(bodies)
    ]
    assert [answer["duplicate"] for answer in again] == [False, False, True, True]
    # The gate still knows the events of the two that were forgotten here.
    await becomes(lambda: states(running), ["applied", "dead", "applied", "applied"])
    assert await running.on_hand(SKU) == 6
