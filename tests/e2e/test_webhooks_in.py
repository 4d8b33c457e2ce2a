"""Signed deliveries: who may send them, and that each changes the stock exactly once."""

import asyncio
import datetime as dt
import json
import string
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest
import standardwebhooks.webhooks
from e2e.delivering import becomes, dead_letters, deliver, receipt, states
from e2e.running import Up, answers, eventually
from e2e.serving import SERVE
from in_process import Served, pool_of, served
from signing import signature, signed_headers

from service.warehouses.inbox import Inbox
from service.warehouses.sources import SourceRing, SourceStore, make_secret
from service.workers.inbound import Inbound

# Published with the libraries of Standard Webhooks (MIT).
VECTOR = {
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "timestamp": "1614265330",
    "payload": '{"test": 2432232314}',
    "signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


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


async def expect_unauthorized(running: Served, answer: httpx.Response) -> bytes:
    assert answer.status_code == 401, answer.text
    assert answer.json()["type"].endswith("/unauthorized")
    assert await states(running) == []
    return answer.content


async def test_delivery_is_applied(running: Served, secret: str) -> None:
    """A signed movement is stored before the answer, and is in the stock within a moment."""
    body = receipt(7)
    answer = await deliver(running, body, signed_headers(secret, "msg_1", body))
    assert (answer.status_code, answer.json()["duplicate"]) == (200, False)
    assert len(await states(running)) == 1
    await becomes(running.on_hand, 7)
    await becomes(lambda: states(running), ["applied"])


async def test_published_vector(
    running: Served, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published vector is accepted at its time, and refused at ours."""

    class Then(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
            return dt.datetime.fromtimestamp(int(VECTOR["timestamp"]), tz)

    async with pool_of(database_url) as pool:
        await pool.execute("UPDATE webhook_source SET secret = $1", VECTOR["secret"])
    body = VECTOR["payload"].encode()
    headers = {f"webhook-{name}": VECTOR[name] for name in ("id", "timestamp", "signature")}
    await expect_unauthorized(running, await deliver(running, body, headers))
    monkeypatch.setattr(standardwebhooks.webhooks, "datetime", Then)

    async def status() -> int:
        return (await deliver(running, body, headers)).status_code

    await becomes(status, 200)


def flipped(text: str) -> list[str]:
    """Give a text once with each of its bits flipped that still is one in a header."""
    texts: list[str] = []
    for place, letter in enumerate(text):
        for bit in range(7):
            other = chr(ord(letter) ^ 1 << bit)
            if " " < other < "\x7f":
                texts.append(text[:place] + other + text[place + 1 :])
    return texts


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
async def test_flipped_bit(running: Served, secret: str, name: str) -> None:
    """A flipped bit in id, timestamp or signature is refused, and leaves nothing behind."""
    body = receipt(7)
    headers = signed_headers(secret, "msg_1", body)
    for text in flipped(headers[name]):
        answer = await deliver(running, body, headers | {name: text})
        assert answer.status_code == 401, (name, text)
    assert await states(running) == []


async def test_flipped_bit_of_body(running: Served, secret: str) -> None:
    """A flipped bit in the body is refused, and leaves nothing behind."""
    body = receipt(7)
    headers = signed_headers(secret, "msg_1", body)
    for place in range(len(body)):
        changed = bytearray(body)
        changed[place] ^= 1
        assert (await deliver(running, bytes(changed), headers)).status_code == 401
    assert await states(running) == []


async def test_unknown_source_and_bad_signature_look_alike(running: Served, secret: str) -> None:
    """Nobody learns from the answer which sources there are."""
    body = receipt(7)
    good, bad = (signed_headers(each, "msg_1", body) for each in (secret, make_secret()))
    answers = [
        await deliver(running, body, good, source="nobody"),
        await deliver(running, body, bad),
        await deliver(running, body, {}),
        await deliver(running, body, {}, source="nobody"),
        await deliver(running, body, bad, source="w" * 300),
    ]
    assert len({await expect_unauthorized(running, answer) for answer in answers}) == 1
    assert len({tuple(sorted(answer.headers.items())) for answer in answers}) == 1


@pytest.mark.parametrize("age_seconds", [301, -301, 3_000_000_000])
async def test_outside_of_the_window(running: Served, secret: str, age_seconds: int) -> None:
    """A delivery that was signed more than 300 s before or after now is refused."""
    body = receipt(7)
    headers = signed_headers(secret, "msg_1", body, age_seconds=age_seconds)
    await expect_unauthorized(running, await deliver(running, body, headers))


@pytest.mark.parametrize("age_seconds", [298, -298])
async def test_inside_of_the_window(running: Served, secret: str, age_seconds: int) -> None:
    """A delivery whose clock is off by less than 300 s is accepted."""
    body = receipt(7)
    headers = signed_headers(secret, "msg_1", body, age_seconds=age_seconds)
    assert (await deliver(running, body, headers)).status_code == 200


@pytest.mark.parametrize("delivery_id", ["msg.1", "", "a" * 256, "msg 1"])
async def test_id_that_cannot_be(running: Served, secret: str, delivery_id: str) -> None:
    """An id with a point, without characters, or too long is refused, though it is signed."""
    body = receipt(7)
    headers = signed_headers(secret, delivery_id, body)
    await expect_unauthorized(running, await deliver(running, body, headers))


async def test_timestamp_in_another_spelling(running: Served, secret: str) -> None:
    """A timestamp of which the signature covers a part only is refused."""
    body = receipt(7)
    headers = signed_headers(secret, "msg_1", body)
    for spelling in (".9", ".0", "e0"):
        changed = headers | {"webhook-timestamp": headers["webhook-timestamp"] + spelling}
        await expect_unauthorized(running, await deliver(running, body, changed))


async def test_signature_in_another_spelling(running: Served, secret: str) -> None:
    """A signature whose last letter differs in the bits that nobody reads is refused too."""
    body = receipt(7)
    headers = signed_headers(secret, "msg_1", body)
    start, last = headers["webhook-signature"][:-2], headers["webhook-signature"][-2]
    letters = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    for unread in (1, 2, 3):
        changed = f"{start}{letters[letters.index(last) + unread]}="
        answer = await deliver(running, body, headers | {"webhook-signature": changed})
        await expect_unauthorized(running, answer)


async def test_list_of_signatures(running: Served, secret: str) -> None:
    """One good signature in a list is enough, beside others and beside what is malformed."""
    body = receipt(7)
    headers = signed_headers([make_secret(), secret, make_secret()], "msg_1", body)
    headers["webhook-signature"] = f"v1a,xyz v1 v1,% , {headers['webhook-signature']}"
    assert (await deliver(running, body, headers)).status_code == 200


@pytest.mark.parametrize("listed", ["", "v1,", "x" * 10_240, " ".join(["v1,AAAA"] * 100)])
async def test_useless_signatures(running: Served, secret: str, listed: str) -> None:
    """No signature, a broken one, 10 kB of it and a hundred of them are refused."""
    body = receipt(7)
    headers = signed_headers(secret, "msg_1", body) | {"webhook-signature": listed}
    await expect_unauthorized(running, await deliver(running, body, headers))


async def test_hundred_signatures(running: Served, secret: str) -> None:
    """A hundred well-formed signatures are refused, even where one of them is good."""
    body, now = receipt(7), int(time.time())
    listed = [signature(make_secret(), "msg_1", now, body) for _ in range(99)]
    listed.append(signature(secret, "msg_1", now, body))
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": " ".join(listed),
    }
    await expect_unauthorized(running, await deliver(running, body, headers))


async def test_repeated_header(running: Served, secret: str) -> None:
    """A header that is sent twice counts as none, so that nobody can choose which one is read."""
    body = receipt(7)
    headers = signed_headers(secret, "msg_1", body)
    other = ("webhook-id", "msg_2")
    for twice in ([*headers.items(), other], [other, *headers.items()]):
        answer = await running.client.post("/v1/webhooks/wms", content=body, headers=twice)
        await expect_unauthorized(running, answer)


async def test_too_large(running: Served, secret: str) -> None:
    """A body of more than 256 kB is refused for its size, whoever signed it."""
    body = receipt(7, occurred_at="x" * 256 * 1024)
    for headers in (signed_headers(secret, "msg_1", body), {}):
        answer = await deliver(running, body, headers)
        assert answer.status_code == 413
        assert answer.json()["type"].endswith("/too-large")
    assert await states(running) == []


async def test_other_methods_and_places(running: Served) -> None:
    """Only POST, and only to one source, is taken."""
    assert (await running.client.get("/v1/webhooks/wms")).status_code == 405
    for path in ("/v1/webhooks", "/v1/webhooks/", "/v1/webhooks/wms/more"):
        assert (await running.client.post(path, content=b"{}")).status_code == 404


async def test_replay(running: Served, secret: str) -> None:
    """A delivery that is sent again, also ten times at once, is answered 200 and counts once."""
    body = receipt(7)
    headers = signed_headers(secret, "msg_1", body)
    answers = await asyncio.gather(*(deliver(running, body, headers) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["duplicate"] for answer in answers) == [False] + [True] * 9
    await becomes(running.on_hand, 7)
    await becomes(lambda: states(running), ["applied"])


async def test_one_event_in_two_deliveries(running: Served, secret: str) -> None:
    """Two deliveries with one event id are one movement."""
    body = receipt(7, event_id="goods-in-1")
    for delivery_id in ("msg_1", "msg_2"):
        headers = signed_headers(secret, delivery_id, body)
        assert (await deliver(running, body, headers)).status_code == 200
    await becomes(lambda: states(running), ["applied", "applied"])
    assert await running.on_hand() == 7


async def test_rotation(running: Served, database_url: str, secret: str) -> None:
    """During a rotation both secrets are accepted, after it only the newer one."""
    numbers = iter(range(1_000))

    async def status(signing: str) -> int:
        body, delivery_id = receipt(1), f"msg_{next(numbers)}"
        headers = signed_headers(signing, delivery_id, body)
        return (await deliver(running, body, headers)).status_code

    async with pool_of(database_url) as pool:
        store = SourceStore(pool)
        _, newer = await store.rotate("wms")
        await becomes(lambda: status(newer), 200)
        assert await status(secret) == 200
        assert await store.retire("wms")
        await becomes(lambda: status(secret), 401)
        assert await status(newer) == 200


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (receipt(7, sku="NEW"), "unknown-sku"),
        (receipt(0), "invalid-request"),
        (receipt(7, source="other"), "source"),
        (receipt(7, colour="red"), "colour"),
        (b'{"type":"goods.received","data":{}}', "not a movement"),
        (b"{", "not a movement"),
        (b"[]", "not a movement"),
    ],
)
async def test_dead_letter(running: Served, secret: str, body: bytes, reason: str) -> None:
    """What is signed and cannot be applied is answered 200, kept, and shown with its reason."""
    answer = await deliver(running, body, signed_headers(secret, "msg_1", body))
    assert answer.status_code == 200
    await becomes(lambda: states(running), ["dead"])
    (letter,) = (await dead_letters(running))["items"]
    assert (letter["source"], letter["webhook_id"], letter["attempts"]) == ("wms", "msg_1", 1)
    assert reason in letter["reason"]
    assert letter["body_start"] == body.decode()
    assert secret not in json.dumps(letter)
    assert await running.on_hand() == 0


async def test_another_body_for_one_event(running: Served, secret: str) -> None:
    """A second delivery that tells another story of the same event is a dead letter."""
    for delivery_id, quantity in (("msg_1", 7), ("msg_2", 8)):
        body = receipt(quantity, event_id="goods-in-1")
        await deliver(running, body, signed_headers(secret, delivery_id, body))
    await becomes(lambda: states(running), ["applied", "dead"])
    (letter,) = (await dead_letters(running))["items"]
    assert "idempotency-mismatch" in letter["reason"]
    assert await running.on_hand() == 7


async def test_retry(running: Served, secret: str) -> None:
    """Once its cause is gone a dead letter can be tried again, and counts once however often."""
    body = receipt(7, sku="NEW")
    await deliver(running, body, signed_headers(secret, "msg_1", body))
    await becomes(lambda: states(running), ["dead"])
    (letter,) = (await dead_letters(running))["items"]
    assert (await running.client.put("/v1/skus/NEW", json={})).status_code == 201
    path = f"/v1/dead-letters/{letter['id']}/retry"
    answers = [await running.client.post(path) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {202}
    await becomes(lambda: states(running), ["applied"])
    assert await running.on_hand("NEW") == 7
    assert (await running.client.post(path)).json()["state"] == "applied"
    assert (await dead_letters(running))["items"] == []
    row = await running.service.engine.pool.fetchrow("SELECT retried_by FROM inbound_event")
    assert row is not None
    assert row["retried_by"] == "development"


async def test_unknown_dead_letter(running: Served) -> None:
    """There is nothing to retry where there is no delivery."""
    assert (await running.client.post("/v1/dead-letters/12/retry")).status_code == 404


async def test_pages(running: Served, secret: str) -> None:
    """Dead letters come in pages, and every one of them once."""
    for number in range(5):
        await deliver(running, b"{}", signed_headers(secret, f"msg_{number}", b"{}"))
    await becomes(lambda: states(running), ["dead"] * 5)
    found: list[str] = []
    page = await dead_letters(running, "?limit=2")
    found += [letter["webhook_id"] for letter in page["items"]]
    while page["next"] is not None:
        page = await dead_letters(running, f"?limit=2&cursor={page['next']}")
        found += [letter["webhook_id"] for letter in page["items"]]
    assert found == [f"msg_{number}" for number in range(5)]
    for query in ("?limit=0", "?limit=501", "?cursor=-1", "?cursor=x"):
        assert (await running.client.get(f"/v1/dead-letters{query}")).status_code == 400


async def test_crash_between_apply_and_mark(
    running: Served, secret: str, database_url: str
) -> None:
    """What was applied and not marked so is applied again, to no effect."""
    body = receipt(7)
    await deliver(running, body, signed_headers(secret, "msg_1", body))
    await becomes(lambda: states(running), ["applied"])
    async with pool_of(database_url) as pool:
        await pool.execute("UPDATE inbound_event SET state = 'received', applied_at = NULL")
    await becomes(lambda: states(running), ["applied"])
    assert await running.on_hand() == 7


async def test_two_workers(running: Served, secret: str) -> None:
    """Workers that run at once share the deliveries, and each is applied once."""
    service = running.service
    inbox = Inbox(service.engine.pool)
    workers = [Inbound(inbox, SourceRing(), service.engine.decider) for _ in range(2)]
    for number in range(60):
        body = receipt(1)
        await deliver(running, body, signed_headers(secret, f"msg_{number}", body))
        await asyncio.gather(*(worker.run_once() for worker in workers))
    await becomes(lambda: states(running), ["applied"] * 60)
    assert await running.on_hand() == 60
    attempts = await service.engine.pool.fetchval("SELECT max(attempts) FROM inbound_event")
    assert attempts == 1


async def test_fault_is_tried_again(running: Served, secret: str, database_url: str) -> None:
    """While the ledger takes nothing deliveries are still stored; they are applied afterwards."""
    connection = await asyncpg.connect(database_url)
    blocking = connection.transaction()
    await blocking.start()
    await connection.execute("SELECT 1 FROM shard_head FOR UPDATE")
    body = receipt(7)
    answer = await deliver(running, body, signed_headers(secret, "msg_1", body))
    assert answer.status_code == 200
    assert await states(running) == ["received"]
    await blocking.rollback()
    await connection.close()
    await becomes(lambda: states(running), ["applied"])
    assert await running.on_hand() == 7


async def test_killed_between_store_and_apply(
    redis_url: str, database_url: str, secret: str, tmp_path: Path
) -> None:
    """What was stored when the process was killed, the next one applies, once."""
    async with served(redis_url, database_url):
        pass
    environment = {"RINGFENCE_REDIS_URL": redis_url, "RINGFENCE_DATABASE_URL": database_url}
    body = receipt(7)
    connection = await asyncpg.connect(database_url)
    with Up(tmp_path, command=SERVE, environment=environment) as up:
        eventually(lambda: answers(up.port))
        # The gate decides, but the ledger takes nothing: applying can begin, and not end.
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM shard_head FOR UPDATE")
            url = f"http://127.0.0.1:{up.port}/v1/webhooks/wms"
            async with httpx.AsyncClient() as client:
                headers = signed_headers(secret, "msg_1", body)
                assert (await client.post(url, content=body, headers=headers)).status_code == 200
            up.process.kill()
            up.finish()
    assert await connection.fetchval("SELECT state FROM inbound_event") == "received"
    await connection.close()
    async with served(redis_url, database_url) as running:
        await becomes(lambda: states(running), ["applied"])
        assert await running.on_hand() == 7
