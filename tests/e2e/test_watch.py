"""`ringfence watch` as real processes: beside `up`, one at a time, and with what it finds."""

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import httpx
import pytest
from e2e.running import Up, answers, ask_postgres, eventually, processes_in, redis_client
from e2e.serving import COMMAND, SERVE, refusal, ringfence, succeeded
from redis import Redis

from allocation.gate.keys import shard_keys

_, STOCK, RESERVATIONS, *_ = shard_keys(0)
WATCH = (*COMMAND, "watch")
SECONDS = {"RINGFENCE_VERIFY_SECONDS": "1"}
# A process may have to start, and to go a round at the pace that it keeps beside sales.
ROUND_SECONDS = 60.0
CATALOGUE = """
[locations.LONDON]
name = "London"

[channels.web]
locations = ["LONDON"]

[skus.TEE]
stock = { LONDON = 100 }
"""
FAULT = "UPDATE ledger SET body = body || '\\x00' WHERE sequence = 2"
MEND = "UPDATE ledger SET body = substring(body FOR length(body) - 1) WHERE sequence = 2"


@pytest.fixture
def settings(redis_url: str, database_url: str, tmp_path: Path) -> dict[str, str]:
    """Name the servers of this test, with a catalogue in them."""
    settings = {
        "RINGFENCE_REDIS_URL": redis_url,
        "RINGFENCE_DATABASE_URL": database_url,
        **SECONDS,
    }
    path = tmp_path / "catalogue.toml"
    path.write_text(CATALOGUE)
    succeeded(ringfence(settings, "load", path))
    return settings


def change_ledger(settings: dict[str, str], statement: str) -> None:
    """Change the ledger as nobody but its owner can."""

    async def change() -> None:
        connection = await asyncpg.connect(settings["RINGFENCE_DATABASE_URL"])
        try:
            await connection.execute("ALTER TABLE ledger DISABLE TRIGGER USER")
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(change())


def ask(settings: dict[str, str], statement: str) -> object:
    async def fetch() -> object:
        connection = await asyncpg.connect(settings["RINGFENCE_DATABASE_URL"])
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def reserve(port: int, key: str, name: str) -> int:
    """Hold a shirt; give the status."""
    body = {"channel": "web", "lines": [{"sku": "TEE", "quantity": 1}]}
    headers = {"authorization": f"Bearer {key}", "idempotency-key": name}
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/reservations", json=body, headers=headers)
    return answer.status_code


def new_key(settings: dict[str, str]) -> str:
    return succeeded(
        ringfence(settings, "keys", "create", "shop", "--scope", "reserve", "--all-channels")
    ).strip()


def sells(port: int, key: str, name: str) -> bool:
    return reserve(port, key, name) == 201


def test_two_watchers(settings: dict[str, str], tmp_path: Path) -> None:
    """One watches, and after its kill -9 the other; each finds an edit, and sales go on through both."""
    first_dir, second_dir = tmp_path / "first", tmp_path / "second"
    with (
        Up(tmp_path / "serve", command=SERVE, environment=settings) as serving,
        Up(first_dir, command=WATCH, environment=settings) as first,
        Redis.from_url(settings["RINGFENCE_REDIS_URL"]) as redis,
    ):
        eventually(lambda: answers(serving.port), ROUND_SECONDS)
        key = new_key(settings)
        eventually(lambda: sells(serving.port, key, "a"), ROUND_SECONDS)
        redis.hset(STOCK, "HAT", "?")
        eventually(lambda: not redis.hexists(STOCK, "HAT"), ROUND_SECONDS)
        assert ask(settings, "SELECT count(*) FROM drift WHERE field = 'HAT'") == 1
        with Up(second_dir, command=WATCH, environment=settings) as second:
            assert second.process.stderr is not None
            eventually(lambda: "another process" in second.process.stderr.readline(), ROUND_SECONDS)
            first.process.kill()
            redis.hset(RESERVATIONS, "HOAX", "?")
            eventually(lambda: not redis.hexists(RESERVATIONS, "HOAX"), ROUND_SECONDS)
            assert ask(settings, "SELECT count(*) FROM drift WHERE field = 'HOAX'") == 1
            eventually(lambda: sells(serving.port, key, "b"), ROUND_SECONDS)
            second.process.send_signal(signal.SIGTERM)
            status, errors = second.finish()
        assert status == 0
        found = [line for line in errors.splitlines() if "ERROR" in line]
        assert len(found) == 1
        assert "reservations HOAX" in found[0]
    succeeded(ringfence(settings, "verify"))


def test_closed_shard(settings: dict[str, str], tmp_path: Path) -> None:
    """A ledger that was changed closes the shard for every process, until it is mended and reopened."""
    key = new_key(settings)
    with Up(tmp_path / "serve", command=SERVE, environment=settings) as serving:
        eventually(lambda: answers(serving.port), ROUND_SECONDS)
        eventually(lambda: sells(serving.port, key, "a"), ROUND_SECONDS)
        change_ledger(settings, FAULT)
        with Up(tmp_path / "watch", command=WATCH, environment=settings):
            eventually(lambda: ask(settings, "SELECT closed_reason FROM shard_head"), ROUND_SECONDS)
        eventually(lambda: reserve(serving.port, key, "b") == 503)
        assert "Entry 2 of the ledger" in refusal(ringfence(settings, "rebuild"))
        verified = ringfence(settings, "verify")
        assert verified.exit_code == 1
        assert "Entry 2: its body does not have its hash." in verified.stdout
        change_ledger(settings, MEND)
        assert "Entry 2" in succeeded(ringfence(settings, "reopen"))
        eventually(lambda: sells(serving.port, key, "c"), ROUND_SECONDS)
    assert "not closed" in refusal(ringfence(settings, "reopen"))
    succeeded(ringfence(settings, "verify"))


def watchers_of(data_dir: Path) -> list[int]:
    return [
        process
        for process in processes_in(data_dir)
        if b"watch\0--quiet" in Path(f"/proc/{process}/cmdline").read_bytes()
    ]


async def test_up_watches(data_dir: Path) -> None:
    """`up` starts the verification, starts it again when it is killed, and leaves none behind."""
    with Up(data_dir, environment=SECONDS) as up:
        up.await_ready()
        eventually(lambda: watchers_of(data_dir) != [], ROUND_SECONDS)
        (before,) = watchers_of(data_dir)
        os.kill(before, signal.SIGKILL)
        eventually(lambda: watchers_of(data_dir) not in ([], [before]), ROUND_SECONDS)
        redis = redis_client(data_dir)
        redis.hset(STOCK, "HAT", "?")
        eventually(lambda: not redis.hexists(STOCK, "HAT"), ROUND_SECONDS)
        assert up.stop() == 0
        assert processes_in(data_dir) == []
    with Up(data_dir, environment=SECONDS) as up:
        up.await_ready()
        eventually(lambda: watchers_of(data_dir) != [], ROUND_SECONDS)
        up.process.kill()
        up.finish()
        eventually(lambda: processes_in(data_dir) == [])


async def test_up_on_a_closed_shard(data_dir: Path) -> None:
    """`up` keeps the servers at hand while the shard is closed, and serves as soon as it is reopened."""
    close = "UPDATE shard_head SET closed_reason = 'A test closed it.' RETURNING 1"
    with Up(data_dir) as up:
        up.await_ready()
        await ask_postgres(data_dir, close)
        up.stop()
    environment = {"RINGFENCE_DATA_DIR": str(data_dir)}
    with Up(data_dir) as up:
        assert up.process.stderr is not None
        assert "A test closed it." in up.process.stderr.readline()
        assert not answers(up.port)
        assert "A test closed it." in await asyncio.to_thread(
            lambda: succeeded(ringfence(environment, "reopen"))
        )
        up.await_ready()
        await ask_postgres(data_dir, close)
        up.stop()
    with Up(data_dir) as up:
        assert up.process.stderr is not None
        assert "A test closed it." in up.process.stderr.readline()
        up.process.send_signal(signal.SIGTERM)
        assert up.finish()[0] == 0
        assert processes_in(data_dir) == []


def test_turned_off(settings: dict[str, str]) -> None:
    """No interval is no verification, and says so."""
    refused = refusal(ringfence(settings | {"RINGFENCE_VERIFY_SECONDS": "0"}, "watch"))
    assert "RINGFENCE_VERIFY_SECONDS is 0" in refused
