"""`ringfence serve --workers N`: processes that share a port, end, are killed and are replaced under load."""

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
import pytest
from e2e.contract.auditing import expect_one_truth
from e2e.contract.http_client import Client, Connection, request_bytes
from e2e.contract.processes import Stores
from e2e.contract.shop import Shop, line
from e2e.following import following
from e2e.running import eventually
from e2e.serving import ringfence, succeeded
from e2e.supervised import (
    START_SECONDS_MAX,
    STOP_SECONDS_MAX,
    Load,
    Supervised,
    is_running,
    supervised,
)
from redis import Redis

from service.embedded.ports import require_free

CLIENTS = 24
PLENTY = 1_000_000
# Fewer than are asked for in any of the tests here.
FEW = 300


@pytest.fixture
def stores(redis_url: str, database_url: str) -> Stores:
    """Give empty stores."""
    return Stores(redis_url, database_url)


@pytest.fixture
def settings(stores: Stores) -> dict[str, str]:
    """Name the servers of this test."""
    redis_url, database_url = stores
    return {"RINGFENCE_REDIS_URL": redis_url, "RINGFENCE_DATABASE_URL": database_url}


@pytest.fixture
def admin_key(settings: dict[str, str]) -> str:
    """Give a key that may do everything."""
    return succeeded(ringfence(settings, "keys", "create", "admin", "--scope", "admin")).strip()


@asynccontextmanager
async def loaded(started: Supervised, admin_key: str, units: int) -> AsyncGenerator[Load]:
    """Sell one SKU while a test does things to the processes, then go on for a little and stop."""
    async with Client(started.port, admin_key) as client:
        shop = Shop(client)
        await shop.open()
        sku = await shop.new_sku(units)
    load = Load(started.port, admin_key, sku)
    selling = asyncio.create_task(load.run(CLIENTS))
    try:
        await load.passes(CLIENTS)
        yield load
    finally:
        load.stop.set()
        await selling


async def expect_kept(stores: Stores, sku: str, keys: Sequence[str]) -> None:
    """Check that ledger and gate agree, and that they hold a unit for each of these keys and for no other."""
    found = await expect_one_truth(stores, [], [sku])
    assert sum(place.reserved for place in found.figures[sku].values()) == len(keys)
    connection = await asyncpg.connect(stores.database_url)
    try:
        rows = await connection.fetch("SELECT subject FROM ledger")
    finally:
        await connection.close()
    assert set(keys) <= {row["subject"] for row in rows}


async def test_start_and_stop(
    stores: Stores, settings: dict[str, str], admin_key: str, tmp_path: Path
) -> None:
    """Several processes answer on one port; a stop answers what was sent before, and leaves nothing behind."""
    with supervised(settings, tmp_path) as started:
        workers = started.await_workers(2)
        async with Client(started.port, admin_key) as client:
            shop = Shop(client)
            await shop.open()
            sku = await shop.new_sku(PLENTY)
        connections = [await Connection.open(started.port) for _ in range(CLIENTS)]
        for request in ("first", "last"):
            for number, connection in enumerate(connections):
                headers = client.headers(("Idempotency-Key", f"{request}-{number}"))
                body = msgspec.json.encode({"channel": "web", "lines": [line(sku)]})
                connection.write(request_bytes("POST", "/v1/reservations", headers, body))
            if request == "last":
                started.process.send_signal(signal.SIGTERM)
            found = await asyncio.gather(*(one.read_answer() for one in connections))
            assert {answer.status for answer in found} == {201}
        assert started.process.wait(STOP_SECONDS_MAX) == 0
        assert not any(is_running(worker) for worker in workers)
        told = [f"Worker {worker} is ready." for worker in workers]
        assert sorted(started.said.splitlines()) == sorted(told)
        require_free("127.0.0.1", started.port)
        for connection in connections:
            await connection.close()
    keys = [f"{request}-{number}" for request in ("first", "last") for number in range(CLIENTS)]
    await expect_kept(stores, sku, keys)


async def test_metrics_say_who_answers(settings: dict[str, str], tmp_path: Path) -> None:
    """The metrics name the process that gives them, so that those of several behind one port can be told apart."""
    with supervised(settings, tmp_path) as started:
        workers = started.await_workers(2)
        told = set[int]()
        while told != set(workers):
            async with Client(started.port, "") as stranger:
                answer = await stranger.send(request_bytes("GET", "/metrics"))
            (process,) = re.findall(r'ringfence_process{pid="(\d+)"} 1.0', answer.body.decode())
            told.add(int(process))
            assert told <= set(workers)
        assert started.end() == 0


async def test_worker_killed(
    stores: Stores, settings: dict[str, str], admin_key: str, tmp_path: Path
) -> None:
    """A killed worker is replaced while the others sell: all that was acknowledged is there, and no more."""
    with supervised(settings, tmp_path) as started:
        before = started.await_workers(2)
        async with loaded(started, admin_key, FEW) as load:
            for worker in before:
                os.kill(worker, signal.SIGKILL)
                await load.passes(4 * CLIENTS)
                await started.await_said(f"Worker {worker} has ended with status -9.")
        after = started.await_workers(2)
        assert not set(before) & set(after)
        assert started.end() == 0
    assert {answer.status for answer in load.answers.values()} <= {200, 201, 409}
    assert len(load.held) <= FEW
    await expect_kept(stores, load.sku, load.held)


async def test_rolling_restart(
    stores: Stores, settings: dict[str, str], admin_key: str, tmp_path: Path
) -> None:
    """SIGHUP replaces each worker: every request is answered, and who follows a channel misses nothing."""
    with supervised(settings, tmp_path) as started:
        before = started.await_workers(2)
        async with loaded(started, admin_key, PLENTY) as load, following(load) as follower:
            started.process.send_signal(signal.SIGHUP)
            await started.await_said("Every worker is new.")
            load.stop.set()
            await follower.reaches(lambda: PLENTY - len(load.held))
        assert follower.connections > 1
        after = started.await_workers(2)
        assert not set(before) & set(after)
        assert load.unanswered == []
        assert {answer.status for answer in load.answers.values()} == {201}
        assert started.end(signal.SIGINT) == 0
    await expect_kept(stores, load.sku, load.held)


async def test_waiting_connections(
    settings: dict[str, str], admin_key: str, tmp_path: Path
) -> None:
    """Connections that wait to be let in when the workers are killed are answered by those that follow."""
    with supervised(settings, tmp_path) as started:
        workers = started.await_workers(2)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        async with Client(started.port, admin_key) as client:
            asked = [
                asyncio.create_task(client.get("/v1/reservations/none")) for _ in range(CLIENTS)
            ]
            await asyncio.sleep(0)
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            assert {answer.status for answer in await asyncio.gather(*asked)} == {404}
        assert started.end() == 0


async def test_broken_worker(
    stores: Stores, settings: dict[str, str], admin_key: str, tmp_path: Path
) -> None:
    """No worker is replaced by one that cannot start; one that breaks ends, and another follows when it can."""
    database = f'"{urlsplit(stores.database_url).path.strip("/")}"'
    with supervised(settings, tmp_path) as started:
        before = started.await_workers(2)
        # Each connection that is opened from now on would call a commit done before it is on disk.
        await execute(
            stores.database_url, f"ALTER DATABASE {database} SET synchronous_commit = off"
        )
        started.process.send_signal(signal.SIGHUP)
        await started.await_said("The workers that were there go on.")
        assert started.await_workers(2) == before
        await execute(
            stores.database_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        async with Client(started.port, admin_key) as client:
            with suppress(ConnectionError):
                assert (await client.put("/v1/locations/NORTH", {})).status == 503
        await started.await_said(" has ended with status 1.")
        assert "Error: Postgres must have synchronous_commit on" in started.said
        await execute(stores.database_url, f"ALTER DATABASE {database} RESET synchronous_commit")
        assert started.await_workers(2) != before
        assert started.end() == 0


async def execute(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def test_first_worker_cannot_start(settings: dict[str, str], tmp_path: Path) -> None:
    """Where not even the first worker can start, it says why, once, and nothing is tried again."""
    parts = urlsplit(settings["RINGFENCE_REDIS_URL"])
    user = "ringfence-test-without-scripts"
    netloc = f"{user}:password@{parts.hostname}:{parts.port}"
    with Redis.from_url(settings["RINGFENCE_REDIS_URL"]) as redis:
        redis.execute_command(
            "ACL", "SETUSER", user, "on", ">password", "~*", "+@all", "-@scripting"
        )
        weak = settings | {"RINGFENCE_REDIS_URL": urlunsplit(parts._replace(netloc=netloc))}
        try:
            with supervised(weak, tmp_path) as started:
                assert started.process.wait(START_SECONDS_MAX) == 1
                assert started.said.startswith("Error: ")
                assert len(started.said.splitlines()) == 1
        finally:
            redis.execute_command("ACL", "DELUSER", user)


async def test_supervisor_killed(settings: dict[str, str], tmp_path: Path) -> None:
    """Workers end with the process that started them, also where that is killed."""
    with supervised(settings, tmp_path) as started:
        workers = started.await_workers(2)
        started.end(signal.SIGKILL)
        eventually(lambda: not any(is_running(worker) for worker in workers), START_SECONDS_MAX)


def test_taken_port(settings: dict[str, str], tmp_path: Path) -> None:
    """A port that another process has is one sentence, and no process stays."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with supervised(settings, tmp_path, port=port) as started:
            assert started.process.wait(START_SECONDS_MAX) == 1
            assert started.said.startswith(f"Error: Port {port} on 127.0.0.1 is taken")
            assert len(started.said.splitlines()) == 1


def test_wrong_database(settings: dict[str, str], tmp_path: Path) -> None:
    """A database that is not there is one sentence."""
    url = urlunsplit(
        urlsplit(settings["RINGFENCE_DATABASE_URL"])._replace(path="/no_such_database")
    )
    with supervised(settings | {"RINGFENCE_DATABASE_URL": url}, tmp_path) as started:
        assert started.process.wait(START_SECONDS_MAX) == 1
        assert "no_such_database" in started.said
        assert len(started.said.splitlines()) == 1
