"""One service for the tests of a module, as a real process with stores of its own."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from e2e.contract.api_keys import Keys, make_keys
from e2e.contract.http_client import Client
from e2e.contract.neighbours import Watch, watching
from e2e.contract.processes import ADMIN_KEY, Nursery, ServiceProcess, Stores, nursery
from e2e.contract.shop import Shop, line
from redis import Redis

GROWTH_BYTES_MAX = 50 * 1_048_576


class Servers(Protocol):
    """What this needs of the servers of the session."""

    redis_url: str
    database_url: str


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Give a place to start services from."""
    with nursery(tmp_path_factory.mktemp("services")) as opened:
        yield opened


@pytest.fixture(scope="module")
def stores(servers: Servers, _redis_database: str, _template: str) -> Iterator[Stores]:
    """Give an empty Redis database and a migrated PostgreSQL database to the tests of one module."""
    name = f"{_template}_{uuid.uuid4().hex[:8]}"
    _execute(servers.database_url, f'CREATE DATABASE "{name}" TEMPLATE "{_template}"')
    url = urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
    yield Stores(_redis_database, url)
    _execute(servers.database_url, f'DROP DATABASE "{name}" WITH (FORCE)')
    with Redis.from_url(_redis_database) as redis:
        mark = redis.keys("left-by-tests*")
        redis.flushdb()
        for key in mark:
            redis.set(key, "1")


@pytest.fixture(scope="module")
def keys(stores: Stores) -> Keys:
    """Make API keys before the service starts, so that it knows them at once."""
    return asyncio.run(make_keys(stores.database_url))


@pytest.fixture(scope="module")
def replaced_constants() -> dict[str, object]:
    """Give what a module wants to be otherwise than it is in the service: nothing."""
    return {}


@pytest.fixture(scope="module")
def service(
    services: Nursery, stores: Stores, keys: Keys, replaced_constants: dict[str, object]
) -> Iterator[ServiceProcess]:
    """Run the service; nothing in the module may make it stumble over a fault of its own."""
    del keys
    started = services.start(stores, replacing=replaced_constants)
    started.await_ready()
    asyncio.run(_open_shop(started.port))
    yield started
    started.stop()
    expect_no_fault(started.log_path)


@pytest.fixture
async def shop(service: ServiceProcess) -> AsyncIterator[Shop]:
    """Give the shop, with a key that may do everything."""
    async with Client(service.port, ADMIN_KEY) as client:
        yield Shop(client)


@pytest.fixture
def client(shop: Shop) -> Client:
    """Give the client of the shop."""
    return shop.client


def expect_no_fault(log_path: Path) -> None:
    """Check that the service wrote of no error."""
    log = log_path.read_text()
    assert "Traceback" not in log, log
    assert "fault of our own" not in log, log


async def _open_shop(port: int) -> None:
    async with Client(port, ADMIN_KEY) as client:
        await Shop(client).open()


def _execute(database_url: str, statement: str) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(execute())


@pytest.fixture
async def watch(service: ServiceProcess, stores: Stores) -> AsyncIterator[Watch]:
    """Give the proof that a bad request changes nothing and costs no other."""
    async with watching(service, stores) as found:
        yield found


@pytest.fixture(scope="module")
def steady_memory(service: ServiceProcess) -> Iterator[None]:
    """Check that nothing in the module makes the service grow."""
    asyncio.run(_warm_up(service.port))
    before = service.resident_bytes()
    yield
    assert service.resident_bytes() - before < GROWTH_BYTES_MAX


async def _warm_up(port: int) -> None:
    async with Client(port, ADMIN_KEY) as client:
        shop = Shop(client)
        for _ in range(20):
            await shop.held([line(await shop.new_sku(1))])
