"""What is done to a service to see whether a safeguard is there: each is short, and needs no luck."""

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
from chaos.processes import kill, revive
from mutants.scene import PLACE, Scene
from redis.asyncio import Redis

LOOK_SECONDS = 0.05
HOUR_SECONDS = 3_600
# Long enough for an answer where one is given.
DELIVERING_SECONDS = 1.0
# Longer than a scenario: nothing is flushed by the way.
FLUSH_DELAY_MS = 10_000


async def lag_and_be_promoted(scene: Scene) -> None:
    """M3: while the service sleeps, its Redis follows one that is behind, and is promoted again (ABA)."""
    await scene.reserve("before")
    await _command(scene.pair.other.url, "REPLICAOF", "NO", "ONE")
    assert await scene.reserve("acknowledged")
    async with _asleep(scene):
        here, other = scene.pair.in_use, scene.pair.other
        await _command(other.url, "CONFIG", "SET", "repl-diskless-sync-delay", "0")
        await _command(here.url, "CONFIG", "SET", "masterauth", other.access.password)
        await _command(here.url, "REPLICAOF", "127.0.0.1", str(other.access.port))
        while not await _follows(here.url):  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(LOOK_SECONDS)
        await _command(here.url, "REPLICAOF", "NO", "ONE")
    await scene.reserve("after")


async def lose_what_was_not_flushed(scene: Scene) -> None:
    """M9: an operator makes commits asynchronous while the service sells; then all power is lost."""
    await _set_postgres(scene, f"wal_writer_delay = {FLUSH_DELAY_MS}", "synchronous_commit = off")
    for number in range(3):
        assert await scene.reserve(f"sold-{number}")
    # What is written in the files is right again before the power fails; only the server has not read it.
    async with _operator(scene) as operator:
        await operator.execute("ALTER SYSTEM RESET ALL")
    scene.service.kill()
    kill(scene.postgres)
    await _command(scene.redis.url, "FLUSHALL")
    await revive(scene.postgres)
    scene.service.start()


async def set_the_clock(scene: Scene) -> None:
    """M10, M22: the clock of Redis is set an hour ahead while one checks out, and another wants the same units."""
    assert await scene.reserve("checking-out", {"quantity": 4})
    scene.redis.set_clock(HOUR_SECONDS)
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        await scene.reserve(f"waiting-{time.monotonic_ns()}", {"quantity": 4})
    await scene.read("checking-out")


async def name_one_thing_twice(scene: Scene) -> None:
    """M12: two lines of a cart want more together than there is, and neither does alone."""
    await scene.reserve("cart", {"quantity": 3, "location": PLACE}, {"quantity": 3})


async def count_late(scene: Scene) -> None:
    """M13: what was counted before a shipment arrives after it."""
    counted_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    await asyncio.sleep(LOOK_SECONDS)
    await scene.move(
        "shipment", 3, occurred_at=datetime.now(UTC).isoformat(timespec="milliseconds")
    )
    await scene.move("count", 4, as_of=counted_at)
    await scene.reserve("too-much", {"quantity": 4})


async def deliver_amid_a_power_cut(scene: Scene) -> None:
    """M23: a warehouse delivers while Postgres is away, and the service does not live until it is back."""
    kill(scene.postgres)
    delivering = asyncio.create_task(scene.deliver("delivery", 2))
    await asyncio.sleep(DELIVERING_SECONDS)
    scene.service.kill()
    await revive(scene.postgres)
    scene.service.start()
    await delivering


class Scenario:
    """What is done to a build, and the checkers of which one at least must complain of it."""

    def __init__(self, act: Callable[[Scene], Awaitable[None]], *shows: str) -> None:
        self.act, self.shows = act, frozenset(shows)


UNITS = 4
SCENARIOS: dict[str, Scenario] = {
    "M3": Scenario(lag_and_be_promoted, "C2"),
    "M9": Scenario(lose_what_was_not_flushed, "C2"),
    "M10": Scenario(set_the_clock, "C12"),
    "M12": Scenario(name_one_thing_twice, "C1", "C5"),
    "M13": Scenario(count_late, "C1", "C5"),
    "M22": Scenario(set_the_clock, "C16"),
    "M23": Scenario(deliver_amid_a_power_cut, "C14"),
}


@asynccontextmanager
async def _asleep(scene: Scene) -> AsyncGenerator[None]:
    scene.service.send(signal.SIGSTOP)
    try:
        yield
    finally:
        scene.service.send(signal.SIGCONT)


async def _command(url: str, *words: str) -> Any:
    redis: Any = Redis.from_url(url)
    try:
        return await redis.execute_command(*words)
    finally:
        await redis.aclose()


async def _follows(url: str) -> bool:
    known = await _command(url, "INFO", "replication")
    return bool(known["master_link_status"] == "up")


async def _set_postgres(scene: Scene, *settings: str) -> None:
    """Set what every session reads at once, and wait until one has."""
    async with _operator(scene) as operator:
        for setting in settings:
            await operator.execute(f"ALTER SYSTEM SET {setting}")
        await operator.execute("SELECT pg_reload_conf()")
        while await operator.fetchval("SHOW synchronous_commit") != "off":  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def _operator(scene: Scene) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(scene.database_url)
    try:
        yield connection
    finally:
        await connection.close()
