"""The command line: what each command does, and the one sentence with which it gives up."""

import asyncio
import errno
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest
from e2e.running import Up, answers, eventually, free_port
from e2e.serving import SERVE, WORK, refusal, ringfence, succeeded
from in_process import pool_of
from redis import Redis
from redis.exceptions import RedisError
from signing import signed_headers
from tested import SHARDS

from allocation.gate.keys import shard_keys
from allocation.shards.routing import shard_of
from service import suitability
from service.commands.faults import sentence_of
from service.embedded.errors import StartError
from service.embedded.placement import place
from service.warehouses.inbox import Inbox

PASSWORD = "do-not-print-me"  # noqa: S105 - what must not be printed
CATALOGUE = """
[locations.LONDON]
name = "London warehouse"

[channels.web]
locations = ["LONDON"]

[skus.TEE]
name = "Tee"
stock = { LONDON = 100 }
safety_stock = { LONDON = 2 }

[skus.MUG]
stock = { LONDON = 5 }
"""
ALL_THAT_CONNECT = [
    ("keys", "list"),
    ("keys", "create", "shop", "--scope", "read"),
    ("keys", "revoke", "x"),
    ("sources", "list"),
    ("sources", "add", "wms"),
    ("events", "list"),
    ("events", "retry", "--all"),
    ("migrate",),
    ("work",),
    ("rebuild",),
    ("verify",),
]


class Servers(Protocol):
    """What this needs of the servers of the session."""

    redis_url: str
    database_url: str


@pytest.fixture
def settings(redis_url: str, database_url: str) -> dict[str, str]:
    """Name the servers of this test."""
    return {"RINGFENCE_REDIS_URL": redis_url, "RINGFENCE_DATABASE_URL": database_url}


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Give a catalogue of two SKUs."""
    path = tmp_path / "catalogue.toml"
    path.write_text(CATALOGUE)
    return path


def ask(database_url: str, statement: str) -> object:
    async def fetch() -> object:
        connection = await asyncpg.connect(database_url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def call(port: int, key: str, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}{path}", headers={"authorization": f"Bearer {key}"})


def test_keys(settings: dict[str, str]) -> None:
    """A key is shown once, listed without its secret, and revoked once."""
    made = succeeded(
        ringfence(settings, "keys", "create", "shop", "--scope", "reserve", "--channel", "web")
    )
    key = made.strip()
    key_id = key.split("_")[1]
    listed = succeeded(ringfence(settings, "keys", "list"))
    assert {"shop", "reserve", "web", key_id} <= set(listed.split())
    assert key not in listed
    succeeded(ringfence(settings, "keys", "revoke", key_id))
    assert "no live key" in refusal(ringfence(settings, "keys", "revoke", key_id))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--scope", "reserve"), "--all-channels"),
        (("--scope", "read", "--scope", "reserve"), "--all-channels"),
        (("--scope", "reserve", "--channel", "web", "--all-channels"), "not both"),
    ],
)
def test_key_that_reserves_names_its_channels(
    settings: dict[str, str], options: tuple[str, ...], word: str
) -> None:
    """A key that may reserve is for the channels that are named, or for all of them in so many words."""
    refused = ringfence(settings, "keys", "create", "shop", *options)
    assert refused.exit_code == 2
    assert word in refused.stderr
    assert "shop" not in succeeded(ringfence(settings, "keys", "list"))
    made = ringfence(settings, "keys", "create", "shop", "--scope", "reserve", "--all-channels")
    succeeded(made)
    assert "every channel" in made.stderr
    assert {"reserve", "all"} <= set(succeeded(ringfence(settings, "keys", "list")).split())


def test_sources(settings: dict[str, str]) -> None:
    """A secret is shown once; there are two at a time at most, and one at least."""
    first = succeeded(ringfence(settings, "sources", "add", "wms")).strip()
    assert first.startswith("whsec_")
    assert "a source wms already" in refusal(ringfence(settings, "sources", "add", "wms"))
    second = succeeded(ringfence(settings, "sources", "rotate", "wms")).strip()
    assert second.startswith("whsec_")
    assert second != first
    assert "two secrets already" in refusal(ringfence(settings, "sources", "rotate", "wms"))
    listed = succeeded(ringfence(settings, "sources", "list"))
    assert "wms" in listed
    assert "whsec_" not in listed
    succeeded(ringfence(settings, "sources", "retire", "wms"))
    refusal(ringfence(settings, "sources", "retire", "wms"))
    refusal(ringfence(settings, "sources", "rotate", "nobody"))
    refusal(ringfence(settings, "sources", "add", "a/b"))


def test_events(settings: dict[str, str], database_url: str) -> None:
    """Dead letters are listed with their reasons, and tried again by id or all at once."""

    async def bury() -> None:
        async with pool_of(database_url) as pool:
            for number in range(3):
                await Inbox(pool).store("wms", f"msg_{number}", b"{}")
            await pool.execute("UPDATE inbound_event SET state = 'dead', reason = 'unknown-sku'")

    asyncio.run(bury())
    listed = succeeded(ringfence(settings, "events", "list"))
    assert listed.count("unknown-sku") == 3
    assert "received" in succeeded(ringfence(settings, "events", "retry", "1"))
    assert ringfence(settings, "events", "retry", "99").exit_code == 1
    assert "2 dead letters" in succeeded(ringfence(settings, "events", "retry", "--all"))
    assert succeeded(ringfence(settings, "events", "list")) == ""
    assert ringfence(settings, "events", "retry").exit_code == 2


def test_migrate(empty_database_url: str) -> None:
    """An empty database gets the tables, and a second time nothing."""
    settings = {"RINGFENCE_DATABASE_URL": empty_database_url}
    assert "ringfence migrate" in refusal(ringfence(settings, "keys", "list"))
    for _ in range(2):
        succeeded(ringfence(settings, "migrate"))
    assert succeeded(ringfence(settings, "keys", "list"))


@pytest.mark.parametrize("form", ["toml", "json"])
def test_load(settings: dict[str, str], tmp_path: Path, form: str) -> None:
    """A file is loaded once, whatever its form and however often it is named."""
    entries = {
        "locations": {"LONDON": {}},
        "channels": {"web": {"locations": ["LONDON"]}},
        "skus": {"TEE": {"name": "Tee", "stock": {"LONDON": 100}}},
    }
    path = tmp_path / f"catalogue.{form}"
    path.write_text(CATALOGUE if form == "toml" else json.dumps(entries))
    assert "was received" in succeeded(ringfence(settings, "load", path))
    assert "had been received before" in succeeded(ringfence(settings, "load", path))
    assert "The audit holds" in succeeded(ringfence(settings, "verify"))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[locations", "not a catalogue"),
        ("colour = 1", "colour"),
        ("[skus.TEE]\nstock = { LONDON = -1 }", "not a catalogue"),
        ("[skus.TEE]\nstock = { LONDON = 1 }", "location"),
        ('[channels.web]\nlocations = ["NOWHERE"]', "NOWHERE"),
        ('[locations."a/b"]', "slash"),
    ],
)
def test_load_refuses(settings: dict[str, str], tmp_path: Path, text: str, word: str) -> None:
    """What is wrong with a file is one sentence."""
    path = tmp_path / "catalogue.toml"
    path.write_text(text)
    assert word in refusal(ringfence(settings, "load", path))


def test_verify_and_rebuild(settings: dict[str, str], catalogue: Path, redis_url: str) -> None:
    """A gate that was tampered with fails the audit, and is made anew from the ledger."""
    succeeded(ringfence(settings, "load", catalogue))
    with Redis.from_url(redis_url) as redis:
        stock_key = shard_keys(shard_of("TEE", SHARDS))[1]
        whole = redis.hget(stock_key, "TEE")
        other = redis.hget(shard_keys(shard_of("MUG", SHARDS))[1], "MUG")
        redis.hset(stock_key, "TEE", other)
        found = ringfence(settings, "verify")
        assert found.exit_code == 1
        assert "TEE" in found.stdout
        assert "does not hold" in found.stderr
        rebuilt = ringfence(settings, "rebuild")
        assert "Rebuilt" in succeeded(rebuilt)
        assert "entries (100 %)" in rebuilt.stderr
        assert redis.hget(stock_key, "TEE") == whole
    assert "The audit holds" in succeeded(ringfence(settings, "verify"))


def test_checkpoint(settings: dict[str, str], catalogue: Path, redis_url: str) -> None:
    """A rebuild begins at the checkpoint, says how far it is, and ends with the same stock."""
    assert "nothing to keep" in succeeded(ringfence(settings, "checkpoint"))
    succeeded(ringfence(settings, "load", catalogue))
    kept = ringfence(settings, "checkpoint")
    assert "Kept the state of " in succeeded(kept)
    assert "entries (100 %)" in kept.stderr
    with Redis.from_url(redis_url) as redis:
        before = redis.hgetall(shard_keys(0)[1])
        redis.delete(*shard_keys(0))
        rebuilt = ringfence(settings, "rebuild")
        assert "Rebuilt" in succeeded(rebuilt)
        assert "entries (100 %)" in rebuilt.stderr
        assert redis.hgetall(shard_keys(0)[1]) == before
    assert "The audit holds" in succeeded(ringfence(settings, "verify"))


def test_rebuild_beside_a_service(
    settings: dict[str, str], catalogue: Path, tmp_path: Path, redis_url: str
) -> None:
    """A service goes on by itself after the gate under it was emptied and rebuilt."""
    succeeded(ringfence(settings, "load", catalogue))
    key = succeeded(ringfence(settings, "keys", "create", "shop", "--scope", "read")).strip()
    with Up(tmp_path, command=SERVE, environment=settings) as up:
        eventually(lambda: answers(up.port))
        with Redis.from_url(redis_url) as redis:
            redis.delete(*shard_keys(0))
        succeeded(ringfence(settings, "rebuild"))
        eventually(lambda: call(up.port, key, "/v1/stock/MUG").status_code == 200)
        assert up.stop() == 0
    succeeded(ringfence(settings, "verify"))


def test_serve(settings: dict[str, str], catalogue: Path, tmp_path: Path) -> None:
    """It serves without a demo or a development key, and knows a key as soon as that is made."""
    succeeded(ringfence(settings, "load", catalogue))
    more = settings | {"RINGFENCE_DEV_KEY": "development", "RINGFENCE_DEMO": "1"}
    path = "/v1/availability?channel=web&sku=TEE"
    with Up(tmp_path, command=SERVE, environment=more) as up:
        eventually(lambda: answers(up.port))
        assert call(up.port, "development", path).status_code == 401
        made = ringfence(settings, "keys", "create", "shop", "--scope", "read")
        key = succeeded(made).strip()
        eventually(lambda: call(up.port, key, path).status_code == 200, 5)
        assert call(up.port, key, path).json()["items"][0]["available"] == 98
        assert call(up.port, key, "/v1/availability?channel=web&sku=LAST-ONE").status_code == 422
        taken = settings | {"RINGFENCE_PORT": str(up.port)}
        assert f"Port {up.port}" in refusal(ringfence(taken, "serve"))
        succeeded(ringfence(settings, "keys", "revoke", key.split("_")[1]))
        eventually(lambda: call(up.port, key, path).status_code == 401, 5)
        status = up.stop()
        assert status == 0
    assert not (tmp_path / "up.json").exists()


def test_serve_needs_servers(tmp_path: Path) -> None:
    """Without servers that are named, `serve` points to `up`."""
    settings = {"RINGFENCE_DATA_DIR": str(tmp_path), "RINGFENCE_PORT": str(free_port())}
    assert "ringfence up" in refusal(ringfence(settings, "serve"))


def test_work(settings: dict[str, str], catalogue: Path, database_url: str, tmp_path: Path) -> None:
    """A process that only works applies what was delivered, and stops when it is asked to."""
    succeeded(ringfence(settings, "load", catalogue))
    succeeded(ringfence(settings, "sources", "add", "wms"))
    line = {"sku": "TEE", "location": "LONDON", "quantity": 7}
    body = json.dumps({"kind": "receipt", "lines": [line]}).encode()

    async def store() -> None:
        async with pool_of(database_url) as pool:
            await Inbox(pool).store("wms", "msg_1", body)

    asyncio.run(store())
    with Up(tmp_path, command=WORK, environment=settings) as up:
        eventually(
            lambda: ask(database_url, "SELECT state FROM inbound_event WHERE id = 1") == "applied"
        )
        assert up.stop() == 0
    succeeded(ringfence(settings, "verify"))


def test_work_on_a_redis_that_begins_to_evict(
    settings: dict[str, str], catalogue: Path, tmp_path: Path
) -> None:
    """A process that only works ends with the fault when its pipeline breaks."""
    with own_redis(tmp_path) as url, Redis.from_url(url) as redis:
        own = settings | {"RINGFENCE_REDIS_URL": url}
        succeeded(ringfence(own, "load", catalogue))
        with Up(tmp_path, command=WORK, environment=own) as up:
            assert up.process.stderr is not None
            assert up.process.stderr.readline().startswith("Working")
            redis.config_set("maxmemory-policy", "allkeys-lru")
            eventually(lambda: up.process.poll() is not None)
            status, errors = up.finish()
    assert status == 1
    assert "noeviction" in errors


def test_serve_on_a_ledger_with_a_gap(
    settings: dict[str, str], catalogue: Path, database_url: str, tmp_path: Path
) -> None:
    """A process that cannot follow the ledger ends with the number of the entry that is missing."""
    with Up(tmp_path, command=SERVE, environment=settings) as up:
        eventually(lambda: answers(up.port))
        key = succeeded(ringfence(settings, "keys", "create", "shop", "--scope", "read")).strip()
        eventually(lambda: call(up.port, key, "/v1/stock/TEE").status_code != 401, 5)
        # What another process appends meanwhile it can only learn from the ledger.
        up.process.send_signal(signal.SIGSTOP)
        succeeded(ringfence(settings, "load", catalogue))
        ask(database_url, "ALTER TABLE ledger DISABLE TRIGGER ledger_is_append_only")
        ask(database_url, "DELETE FROM ledger WHERE sequence = 2")
        up.process.send_signal(signal.SIGCONT)
        eventually(lambda: _ended_when_asked(up, key))
        status, errors = up.finish()
    assert status == 1
    assert "entry 2 " in errors


def _ended_when_asked(up: Up, key: str) -> bool:
    with suppress(httpx.HTTPError):
        call(up.port, key, "/v1/stock/TEE")
    return up.process.poll() is not None


def test_beside_up(data_dir: Path) -> None:
    """Commands find the servers of the `ringfence up` that runs on the data folder."""
    settings = {"RINGFENCE_DATA_DIR": str(data_dir)}
    assert "Nothing runs on the data folder" in refusal(ringfence(settings, "keys", "list"))
    with Up(data_dir) as up:
        up.await_ready()
        key = succeeded(ringfence(settings, "keys", "create", "all", "--scope", "admin")).strip()
        eventually(lambda: call(up.port, key, "/v1/dead-letters").status_code == 200, 5)
        secret = succeeded(ringfence(settings, "sources", "add", "wms")).strip()

        def deliver() -> int:
            headers = signed_headers(secret, "msg_1", b"{}")
            url = f"http://127.0.0.1:{up.port}/v1/webhooks/wms"
            return httpx.post(url, content=b"{}", headers=headers).status_code

        eventually(lambda: deliver() == 200, 5)
        eventually(lambda: "not a movement" in ringfence(settings, "events", "list").stdout, 5)
        assert "The audit holds" in succeeded(ringfence(settings, "verify"))


@pytest.mark.parametrize("arguments", ALL_THAT_CONNECT, ids=" ".join)
def test_nothing_runs(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Where nothing runs, every command says so and what to do."""
    told = refusal(ringfence({"RINGFENCE_DATA_DIR": str(tmp_path)}, *arguments))
    assert "ringfence up" in told
    assert "RINGFENCE_DATABASE_URL" in told


@pytest.mark.parametrize("arguments", ALL_THAT_CONNECT, ids=" ".join)
def test_unreachable_servers(arguments: tuple[str, ...]) -> None:
    """A server that does not answer is one sentence, without its password."""
    port = free_port()
    settings = {
        "RINGFENCE_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{port}/0",
        "RINGFENCE_DATABASE_URL": f"postgres://me:{PASSWORD}@127.0.0.1:{port}/none",
    }
    told = refusal(ringfence(settings, *arguments))
    assert f"127.0.0.1:{port} cannot be used" in told
    assert PASSWORD not in told


def test_unknown_database(settings: dict[str, str], servers: Servers) -> None:
    """A database that does not exist is one sentence."""
    url = urlunsplit(urlsplit(servers.database_url)._replace(path="/no_such_database"))
    told = refusal(ringfence(settings | {"RINGFENCE_DATABASE_URL": url}, "keys", "list"))
    assert "no_such_database" in told


@pytest.mark.parametrize("arguments", [("keys", "list"), ("serve",), ("migrate",)], ids=" ".join)
def test_invalid_setting(arguments: tuple[str, ...]) -> None:
    """A setting that does not exist stops every command."""
    assert "RINGFENCE_PROT is not" in refusal(ringfence({"RINGFENCE_PROT": "1"}, *arguments))


@contextmanager
def own_redis(folder: Path, *options: str) -> Iterator[str]:
    """Run a Redis that no other test uses."""
    port = free_port()
    command = [place(folder).redis_binary, "--port", str(port), "--save", "", *options]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as server:
        try:
            url = f"redis://127.0.0.1:{port}"
            with Redis.from_url(url) as redis:
                eventually(lambda: _pings(redis))
            yield url
        finally:
            server.terminate()


def test_redis_that_evicts(settings: dict[str, str], tmp_path: Path) -> None:
    """A Redis that would drop stock when it is full is refused."""
    with own_redis(tmp_path, "--maxmemory-policy", "allkeys-lru") as url:
        evicting = {"RINGFENCE_REDIS_URL": url, "RINGFENCE_PORT": str(free_port())}
        told = refusal(ringfence(settings | evicting, "serve"))
    assert "allkeys-lru" in told
    assert "noeviction" in told


def test_postgres_that_forgets(settings: dict[str, str], database_url: str) -> None:
    """A PostgreSQL that confirms what is not on disk yet is refused."""
    name = urlsplit(database_url).path.strip("/")
    ask(database_url, f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    told = refusal(ringfence(settings | {"RINGFENCE_PORT": str(free_port())}, "serve"))
    assert "synchronous_commit off" in told


async def test_old_servers(
    redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is too old is refused, with its version."""
    monkeypatch.setattr(suitability, "REDIS_VERSION_MIN", (99, 0))
    monkeypatch.setattr(suitability, "POSTGRES_VERSION_MIN", 99)
    with pytest.raises(StartError, match=r"Redis at .* is version \d+\.\d+\.\d+; it must be"):
        await suitability.require_suitable_redis(redis_url)
    with pytest.raises(StartError, match=r"PostgreSQL at .* is version \d+; it must be"):
        await suitability.require_suitable_postgres(database_url)


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "no space"),
        (asyncpg.DiskFullError("could not extend file"), "no space"),
        (asyncpg.InsufficientPrivilegeError("permission denied for table"), "permission denied"),
    ],
)
def test_sentences(fault: Exception, word: str) -> None:
    """A full disk and a refused right are named as what they are."""
    told = sentence_of(fault)
    assert word in told
    assert told.endswith(".")
    assert "\n" not in told


def test_replay_is_a_command() -> None:
    """`ringfence replay` is there, and so is every command of the documentation."""
    listed = succeeded(ringfence({}, "--help"))
    for name in ("up", "serve", "work", "migrate", "load", "replay", "verify", "rebuild", "keys"):
        assert f"\n  {name} " in listed


def _pings(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:
        return False
