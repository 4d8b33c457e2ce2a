"""API keys: what a stolen database is worth, what each scope opens, and how soon a key ends."""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from in_process import ADMIN_KEY, CHANNEL, LOCATION, SKU, Served, client_of, pool_of, served

from service.keys import SCOPES, KeyStore, NewKey, make_key

EFFECTIVE_SECONDS_MAX = 5.0
OTHER_CHANNEL = "market"
LINE = {"sku": SKU, "quantity": 1}
MOVED = {"sku": SKU, "location": LOCATION, "quantity": 1}
MOVEMENT = {"source": "wms", "event_id": "e", "kind": "receipt", "lines": [MOVED]}
ORDER = {"order_id": "1", "channel": CHANNEL, "lines": [LINE]}
RESERVATION = {"reservation_id": "r", "channel": CHANNEL, "lines": [LINE]}
AVAILABILITY = f"/v1/availability?channel={CHANNEL}&sku={SKU}"
# Every route, with the scopes that open it; `admin` opens them all.
ROUTES: tuple[tuple[str, str, object, tuple[str, ...]], ...] = (
    ("POST", "/v1/movements", MOVEMENT, ("movements",)),
    ("POST", "/v1/reservations", RESERVATION, ("reserve",)),
    ("GET", "/v1/reservations/r", None, ("reserve", "read")),
    ("POST", "/v1/reservations/r/extend", {"ttl_seconds": 60}, ("reserve",)),
    ("POST", "/v1/reservations/r/confirm", {}, ("reserve",)),
    ("POST", "/v1/reservations/r/release", {}, ("reserve",)),
    ("POST", "/v1/orders", ORDER, ("reserve",)),
    ("GET", AVAILABILITY, None, ("reserve", "read")),
    ("GET", f"/v1/stock/{SKU}", None, ("read",)),
    ("PUT", f"/v1/locations/{LOCATION}", {}, ()),
    ("PUT", f"/v1/channels/{CHANNEL}", {"locations": [LOCATION]}, ()),
    ("PUT", f"/v1/skus/{SKU}", {}, ()),
    ("GET", f"/v1/channels/{CHANNEL}/snapshot", None, ("read",)),
    ("GET", "/v1/storefronts", None, ()),
    ("GET", "/v1/storefronts/shop", None, ()),
    ("PUT", "/v1/storefronts/shop", {}, ()),
    ("DELETE", "/v1/storefronts/shop", None, ()),
    ("GET", "/v1/dead-letters", None, ()),
    ("POST", "/v1/dead-letters/1/retry", None, ()),
)
OPEN = ("/health/live", "/health/ready", "/metrics")


@pytest.fixture
async def running(redis_url: str, database_url: str) -> AsyncIterator[Served]:
    """Run the service with one SKU and two channels."""
    async with served(redis_url, database_url) as started:
        body = {"locations": [LOCATION]}
        answer = await started.client.put(f"/v1/channels/{OTHER_CHANNEL}", json=body)
        assert answer.status_code == 201
        yield started


async def make(running: Served, *scopes: str, channels: tuple[str, ...] = ()) -> NewKey:
    """Make a key and wait until the service knows it."""
    key = await running.service.keys.add("test", scopes, channels)
    await becomes_known(running, key, known=True)
    return key


async def becomes_known(running: Served, key: NewKey, *, known: bool) -> None:
    deadline = time.monotonic() + EFFECTIVE_SECONDS_MAX
    async with client_of(running.service, key.text) as client:
        while ((await client.get(AVAILABILITY)).status_code != 401) is not known:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)


async def call(client: httpx.AsyncClient, method: str, path: str, body: object) -> httpx.Response:
    return await client.request(method, path, **({} if body is None else {"json": body}))


async def test_dump_has_no_usable_key(running: Served, database_url: str) -> None:
    """Whoever reads every table finds no key, no secret of one, and nothing that works as one."""
    keys = [await make(running, scope) for scope in SCOPES]
    found: list[str] = []
    async with pool_of(database_url) as pool:
        tables = await pool.fetch(
            "SELECT format('%I', tablename) AS name FROM pg_tables WHERE schemaname = 'public'"
        )
        for table in tables:
            rows = await pool.fetch(f"SELECT t::text AS text FROM {table['name']} AS t")  # noqa: S608
            found += [row["text"] for row in rows]
    dump = "\n".join(found)
    for key in keys:
        assert key.key_id in dump
        assert key.text not in dump
        assert key.text.split("_", 2)[2][:20] not in dump
        digest = hashlib.sha256(key.text.encode()).hexdigest()
        assert digest in dump
        for stolen in (digest, f"rf_{key.key_id}_{digest}", key.key_id):
            async with client_of(running.service, stolen) as client:
                assert (await client.get(AVAILABILITY)).status_code == 401


async def test_revocation(running: Served) -> None:
    """A revoked key is refused within seconds, and others go on."""
    key, other = await make(running, "read"), await make(running, "read")
    assert await running.service.keys.revoke(key.key_id)
    await becomes_known(running, key, known=False)
    async with client_of(running.service, other.text) as client:
        assert (await client.get(AVAILABILITY)).status_code == 200
    assert not await running.service.keys.revoke(key.key_id)


@pytest.mark.parametrize("scope", SCOPES)
async def test_scopes(running: Served, scope: str) -> None:
    """A key opens the routes of its scope and is forbidden every other one."""
    key = await make(running, scope)
    async with client_of(running.service, key.text) as client:
        for method, path, body, scopes in ROUTES:
            answer = await call(client, method, path, body)
            opened = scope == "admin" or scope in scopes
            assert (answer.status_code not in {401, 403}) is opened, (method, path, answer.text)
            assert answer.status_code < 500, (method, path, answer.text)
            if not opened:
                assert answer.json()["type"].endswith("/forbidden")


async def test_without_a_key(running: Served) -> None:
    """Without a key, or with one that does not exist, every route but the open ones is closed."""
    unknown = make_key().text
    for key in (None, "", unknown, unknown[:-1], ADMIN_KEY.upper(), "x" * 5_000):
        async with client_of(running.service, key) as client:
            bodies: set[bytes] = set()
            for method, path, body, _ in ROUTES:
                answer = await call(client, method, path, body)
                assert answer.status_code == 401, (method, path)
                bodies.add(answer.content)
            assert len(bodies) == 1
            for path in OPEN:
                assert (await client.get(path)).status_code in {200, 503}


async def test_channel_binding(running: Served) -> None:
    """A key of one channel sells on it, and sees nothing of what others sell."""
    await running.client.post("/v1/movements", json=MOVEMENT | {"lines": [MOVED | {"quantity": 9}]})
    key = await make(running, "reserve", channels=(CHANNEL,))
    foreign = RESERVATION | {"reservation_id": "foreign", "channel": OTHER_CHANNEL}
    assert (await running.client.post("/v1/reservations", json=foreign)).status_code == 201
    async with client_of(running.service, key.text) as client:
        assert (await client.post("/v1/reservations", json=RESERVATION)).status_code == 201
        assert (await client.get("/v1/reservations/r")).status_code == 200
        for path, body in (
            ("/v1/reservations", foreign | {"reservation_id": "mine"}),
            ("/v1/orders", ORDER | {"channel": OTHER_CHANNEL}),
        ):
            answer = await client.post(path, json=body)
            assert answer.status_code == 403, path
        other = AVAILABILITY.replace(CHANNEL, OTHER_CHANNEL)
        assert (await client.get(other)).status_code == 403
        theirs = await client.get("/v1/reservations/foreign")
        nobodys = await client.get("/v1/reservations/nobodys")
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.text.replace("foreign", "nobodys") == nobodys.text
        for action in ("confirm", "release"):
            answer = await client.post(f"/v1/reservations/foreign/{action}", json={})
            assert answer.status_code == 404
    state = (await running.client.get("/v1/reservations/foreign")).json()["state"]
    assert state == "held"


# What a raw handler answers below its address, and a stream, which this client would wait for for ever.
BESIDE_THE_MATRIX = {
    "/v1/reservations",
    "/v1/availability",
    "/v1/webhooks",
    "/v1/channels/{code}/deltas",
}


async def test_matrix_is_complete(running: Served) -> None:
    """No route of the application is left out of the matrix."""
    routes = {route.path_format for route in running.service.app.routes}
    wanted = {path for path in routes if path.startswith("/v1")} - BESIDE_THE_MATRIX
    named = {path.partition("?")[0] for _, path, _, _ in ROUTES}
    for path in wanted:
        pattern = re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path))
        assert any(pattern.fullmatch(name) for name in named), path


async def test_stream_needs_read(running: Served) -> None:
    """The stream of a channel's deltas is closed to a key that may not read."""
    key = await make(running, "movements")
    async with client_of(running.service, key.text) as client:
        assert (await client.get(f"/v1/channels/{CHANNEL}/deltas")).status_code == 403


async def test_shown_once(database_url: str) -> None:
    """The list of keys has neither key nor hash."""
    async with pool_of(database_url) as pool:
        store = KeyStore(pool)
        key = await store.add("shop", ["read"], [])
        (row,) = await store.all()
    assert dict(row).keys() == {"key_id", "name", "scopes", "channels", "created_at", "revoked_at"}
    assert key.text not in str(dict(row))


def test_keys_differ() -> None:
    """Every key is made up anew, long enough that nobody guesses it."""
    keys = {make_key().text for _ in range(1_000)}
    assert len(keys) == 1_000
    assert all(key.startswith("rf_") and len(key) > 60 for key in keys)
