"""Clients that are slow, silent or many: each is seen off in bounded time and costs nobody else."""

import asyncio
import time

import pytest
from e2e.contract.http_client import Client, Connection, request_bytes
from e2e.contract.neighbours import Watch
from e2e.contract.processes import ServiceProcess
from e2e.contract.shop import Shop, expect_problem, line, unique

from service import http_server

pytestmark = pytest.mark.usefixtures("steady_memory")
PATIENCE_SECONDS = 1.0
# A look is taken now and then, on a machine that does much else.
SEEN_OFF_SECONDS_MAX = PATIENCE_SECONDS + 2.0
PAUSE_SECONDS = 0.05
IDLE_CONNECTIONS = 2_000


@pytest.fixture(scope="module")
def replaced_constants() -> dict[str, object]:
    """Shorten the service's patience to less than that of a test."""
    return {
        "service.http_server:BODY_SECONDS_MAX": PATIENCE_SECONDS,
        "service.http_server:HEAD_SECONDS_MAX": PATIENCE_SECONDS,
        "service.http_server:IDLE_SECONDS_MAX": PATIENCE_SECONDS,
    }


def test_patience() -> None:
    """The service waits ten seconds for a header or a body, and no longer."""
    assert http_server.BODY_SECONDS_MAX + 1 <= 11
    assert http_server.HEAD_SECONDS_MAX + 1 <= 11
    assert http_server.IDLE_SECONDS_MAX <= 75


@pytest.mark.parametrize(
    "address",
    [
        "POST /v1/reservations",
        "POST /v1/reservations/x/confirm",
        "POST /v1/orders",
        "POST /v1/movements",
        "PUT /v1/locations/NORTH",
    ],
)
@pytest.mark.parametrize("silent", [True, False], ids=["silent", "dribbling"])
async def test_slow_body(client: Client, watch: Watch, address: str, silent: bool) -> None:
    """A body that does not arrive in time is given up, whether nothing comes or a little at a time."""
    headers = client.headers(("Idempotency-Key", unique("key")), ("Content-Length", "1000"))
    connection = await Connection.open(client.port)
    connection.write(request_bytes(*address.split(" "), headers) + b'{"channel":')
    began = time.monotonic()
    async with watch.undisturbed():
        answer = asyncio.create_task(connection.read_answer())
        while not answer.done() and time.monotonic() - began < SEEN_OFF_SECONDS_MAX:
            if not silent:
                connection.write(b" ")
            await asyncio.wait({answer}, timeout=PAUSE_SECONDS)
        expect_problem(await answer, 408, "request-timeout")
    assert time.monotonic() - began < SEEN_OFF_SECONDS_MAX
    await connection.close()


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "dribbling"])
async def test_slow_header(service: ServiceProcess, watch: Watch, silent: bool) -> None:
    """A connection whose header does not arrive in time is closed."""
    connection = await Connection.open(service.port)
    connection.write(b"GET /health/live HTTP/1.1\r\nX-Slow: ")
    began = time.monotonic()
    async with watch.undisturbed():
        closed = asyncio.create_task(connection.until_closed())
        while not closed.done() and time.monotonic() - began < SEEN_OFF_SECONDS_MAX:
            if not silent:
                connection.write(b"x")
            await asyncio.wait({closed}, timeout=PAUSE_SECONDS)
        answer = await closed
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < SEEN_OFF_SECONDS_MAX
    await connection.close()


async def test_slow_but_steady(service: ServiceProcess, shop: Shop) -> None:
    """A body that comes in pieces, in time, is as good as another."""
    sku = await shop.new_sku(1)
    body = b'{"channel":"web","lines":[{"sku":"%s","quantity":1}]}' % sku.encode()
    headers = shop.client.headers(("Idempotency-Key", unique("key")))
    connection = await Connection.open(service.port)
    connection.write(request_bytes("POST", "/v1/reservations", headers, body)[: -len(body)])
    for place in range(0, len(body), 16):
        connection.write(body[place : place + 16])
        await asyncio.sleep(PAUSE_SECONDS / 10)
    assert (await connection.read_answer()).status == 201
    await connection.close()


async def test_client_that_leaves(service: ServiceProcess, shop: Shop) -> None:
    """A client that leaves before its answer changes nothing for others, and finds its hold later."""
    sku = await shop.new_sku(100)
    keys = [unique("left") for _ in range(50)]
    body = b'{"channel":"web","lines":[{"sku":"%s","quantity":1}]}' % sku.encode()
    for key in keys:
        connection = await Connection.open(service.port)
        headers = shop.client.headers(("Idempotency-Key", key))
        connection.write(request_bytes("POST", "/v1/reservations", headers, body))
        await connection.drain()
        await connection.close()
    for key in keys:
        assert (await shop.reserve([line(sku)], key=key)).status in {200, 201}
    await shop.settles(sku, {"NORTH": {"reserved": 50}})


async def test_idle_connections(service: ServiceProcess, watch: Watch) -> None:
    """Thousands of connections that ask for nothing cost nobody anything, and are closed."""
    async with watch.undisturbed():
        idle: list[Connection] = []
        for _ in range(IDLE_CONNECTIONS // 100):
            idle += await asyncio.gather(*(Connection.open(service.port) for _ in range(100)))
        for closed in await asyncio.gather(*(connection.until_closed() for connection in idle)):
            assert not closed or closed.startswith(b"HTTP/1.1 408 ")
        await asyncio.gather(*(connection.close() for connection in idle))
