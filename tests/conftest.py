"""A real Redis and a real PostgreSQL for every test: those that the environment names, else embedded ones."""

import asyncio
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from one_redis import OneRedis
from pogo_core.util import migrate
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from tested import SHARDS

from allocation.gate.redis_gate import RedisGate
from allocation.gate.servers import connect
from allocation.shards.layout import lay_out
from service.embedded.servers import embedded_servers
from service.settings import Settings

ROOT = Path(__file__).parents[1]
MIGRATIONS = (ROOT / "allocation/ledger/migrations", ROOT / "service/migrations")
# Tests take a database of Redis that is empty or was left by tests, never one that others use.
REDIS_DATABASES = range(15, 7, -1)
MARK = "left-by-tests-of-ringfence"
DAY_MS = 86_400_000


class Servers(NamedTuple):
    """Where the servers of a test session listen."""

    redis_url: str
    database_url: str


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Give the servers that the environment names, and embedded ones for those it does not."""
    redis_url = os.environ.get("RINGFENCE_REDIS_URL") or None
    database_url = os.environ.get("RINGFENCE_DATABASE_URL") or None
    # Not tmp_path: its parents are closed to the account that the servers run under.
    folder = Path(tempfile.mkdtemp(prefix="ringfence-test-"))
    folder.chmod(0o755)
    settings = Settings(
        redis_url=redis_url, database_url=database_url, data_dir=folder / "servers", demo=False
    )
    with embedded_servers(settings) as started:
        yield Servers(started.redis_url, started.database_url)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def _redis_database(servers: Servers) -> Iterator[str]:
    with _claimed_database(servers.redis_url) as url:
        yield url


@pytest.fixture
def redis_url(_redis_database: str) -> Iterator[str]:
    """Give an empty Redis database that no other test run uses."""
    yield _redis_database
    with BlockingRedis.from_url(_redis_database) as redis:
        redis.flushdb()
        redis.set(MARK, "1")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """Give a client that never repeats a call by itself, as the engine uses it."""
    client = connect(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def gate(redis: Redis) -> RedisGate:
    """Give a gate with a week's retention that holds no state yet."""
    return RedisGate(OneRedis(redis), 0, 7 * DAY_MS, 14 * DAY_MS)


@pytest.fixture(scope="session")
def _template(servers: Servers) -> Iterator[str]:
    name = f"ringfence_test_{uuid.uuid4().hex[:12]}"
    asyncio.run(_create_template(servers.database_url, name))
    yield name
    asyncio.run(_execute(servers.database_url, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def database_url(servers: Servers, _template: str) -> Iterator[str]:
    """Give a migrated database of the test's own; the ledger in it could not be emptied again."""
    name = f"{_template}_{uuid.uuid4().hex[:8]}"
    asyncio.run(_execute(servers.database_url, f'CREATE DATABASE "{name}" TEMPLATE "{_template}"'))
    yield _with_path(servers.database_url, name)
    asyncio.run(_execute(servers.database_url, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def empty_database_url(servers: Servers) -> Iterator[str]:
    """Give a database without any table."""
    name = f"ringfence_test_{uuid.uuid4().hex[:12]}"
    asyncio.run(_execute(servers.database_url, f'CREATE DATABASE "{name}"'))
    yield _with_path(servers.database_url, name)
    asyncio.run(_execute(servers.database_url, f'DROP DATABASE "{name}" WITH (FORCE)'))


@contextmanager
def _claimed_database(redis_url: str) -> Iterator[str]:
    for number in REDIS_DATABASES:
        url = _with_path(redis_url, str(number))
        address = urlsplit(redis_url).netloc.rpartition("@")[2].replace(":", "-")
        lock_path = Path(tempfile.gettempdir()) / f"ringfence-test-{address}-{number}.lock"
        with lock_path.open("ab") as lock, BlockingRedis.from_url(url) as redis:
            if not _lock(lock.fileno()) or (redis.dbsize() and not redis.exists(MARK)):
                continue
            redis.flushdb()
            redis.set(MARK, "1")
            yield url
            redis.flushdb()
            return
    pytest.fail(f"Every Redis database of {list(REDIS_DATABASES)} is in use; empty one of them.")


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _create_template(database_url: str, name: str) -> None:
    await _execute(database_url, f'CREATE DATABASE "{name}"')
    connection = await asyncpg.connect(_with_path(database_url, name))
    try:
        for folder in MIGRATIONS:
            if folder.is_dir():
                await migrate.apply(connection, folder, schema_name="public")
        await lay_out(connection, SHARDS)
    finally:
        await connection.close()


async def _execute(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _with_path(url: str, path: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{path}"))
