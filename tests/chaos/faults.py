"""Carries the plan out: each fault on its target, several at once where the plan says so."""

import asyncio
import os
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
from chaos.disks import (
    ROOM_BYTES_MAX,
    fill,
    give_room,
    log_position_bytes,
    newest_append_only_file,
)
from chaos.plan import LATENCY_SECONDS, Fault
from chaos.processes import Service, World, kill, revive, signal_all_of
from chaos.proxy import BOTH_WAYS, Link, Way
from redis.asyncio import Redis

from service.embedded.server import EmbeddedServer

# What the kernel had not written yet is seldom more than this.
POWER_LOSS_BYTES_MAX = 65_536
REPLY_PATIENCE_SECONDS = 3.0
CANCEL_SECONDS = 0.005
# By how much a clock is set; 0 stands for one that drifts.
CLOCK_STEPS_SECONDS = (-3_600, -300, -1, 0, 1, 300, 3_600)
CLOCK_DRIFT_SHARE = 0.05
LOOK_SECONDS = 0.01
# A machine may be slow.
RECOVERY_SECONDS_MAX = 60.0
# A fault waits for a commit to strike, but no longer than this many operations.
PATIENCE_OPERATIONS = 15


class Faults:
    """The plan under way."""

    def __init__(self, world: World, plan: Sequence[Fault], started: float) -> None:
        # What is known of each fault that was carried out; times in seconds since the start.
        self.struck: list[dict[str, Any]] = []
        self._world, self._started = world, started
        self._left = list(plan)
        self._operations = 0
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._under_way: list[asyncio.Task[None]] = []

    def note_operation(self, number: int) -> None:
        """Learn how many operations have begun: what is due strikes with the next commit, or else soon."""
        self._operations = number
        self._strike(number - PATIENCE_OPERATIONS)

    def note_commit(self) -> None:
        """Set off what is due, now that there is a commit to strike."""
        self._strike(self._operations)

    def _strike(self, operations: int) -> None:
        while self._left and self._left[0].at_operation <= operations:
            fault = self._left.pop(0)
            self._under_way.append(asyncio.create_task(self._carry_out(fault)))

    async def finish(self) -> None:
        """Wait until everything that was set off is over."""
        assert not self._left, "Bug: operations ended before the plan"
        await asyncio.gather(*self._under_way)

    async def _carry_out(self, fault: Fault) -> None:
        # One target suffers one fault at a time; the plan is the same all the same.
        async with self._turns[fault.target]:
            struck: dict[str, Any] = {
                "kind": fault.kind,
                "target": fault.target,
                "at_operation": fault.at_operation,
                "commits_in_flight": self._world.commits_in_flight,
                "began": time.monotonic() - self._started,
            }
            self.struck.append(struck)
            struck["note"] = await _ACTS[fault.kind](self._world, fault)
            struck["ended"] = time.monotonic() - self._started


def _service(world: World, fault: Fault) -> Service:
    return next(service for service in world.services if service.name == fault.target)


def _link(world: World, fault: Fault) -> Link:
    return world.links[fault.target]


async def _kill_service(world: World, fault: Fault) -> str:
    service = _service(world, fault)
    service.is_kept_down = True
    service.kill()
    await asyncio.sleep(fault.seconds)
    service.start()
    service.is_kept_down = False
    return ""


async def _pause_service(world: World, fault: Fault) -> str:
    service = _service(world, fault)
    service.send(signal.SIGSTOP)
    await asyncio.sleep(fault.seconds)
    service.send(signal.SIGCONT)
    return ""


async def _restart_service(world: World, fault: Fault) -> str:
    service = _service(world, fault)
    service.exit_statuses.append(await service.stop())
    await asyncio.sleep(fault.seconds)
    service.start()
    service.is_kept_down = False
    return ""


async def _kill_redis(world: World, fault: Fault) -> str:
    kill(world.redis)
    await asyncio.sleep(fault.seconds)
    await revive(world.redis)
    return ""


async def _cut_power_of_redis(world: World, fault: Fault) -> str:
    kill(world.redis)
    path = newest_append_only_file(world.redis)
    size = path.stat().st_size
    lost = int(fault.amount * min(size, POWER_LOSS_BYTES_MAX))
    os.truncate(path, size - lost)
    await asyncio.sleep(fault.seconds)
    await revive(world.redis)
    return f"{lost} of {size} bytes lost"


async def _fill_disk_of_redis(world: World, fault: Fault) -> str:
    server = world.redis
    # Where every write must be on disk before it is answered, Redis ends when one cannot be.
    always = int(fault.amount * 1_000) % 2 == 1
    await _ask(server.url, "CONFIG", "SET", "appendfsync", "always" if always else "everysec")
    room = int(fault.amount * ROOM_BYTES_MAX)
    fill(server, newest_append_only_file(server).stat().st_size + room)
    await asyncio.sleep(fault.seconds)
    return await _give_room(server, f"{room} bytes left, {'always' if always else 'everysec'}")


async def _fill_disk_of_postgres(world: World, fault: Fault) -> str:
    room = int(fault.amount * ROOM_BYTES_MAX)
    fill(world.postgres, await log_position_bytes(world.postgres) + room)
    await asyncio.sleep(fault.seconds)
    note = await _give_room(world.postgres, f"{room} bytes left")
    # It may still be recovering by itself, or be about to end because it could not.
    async with asyncio.timeout(RECOVERY_SECONDS_MAX):
        while not await _takes_statements(world.servers.database_url):
            await revive(world.postgres)
            await asyncio.sleep(LOOK_SECONDS)
    return note


async def _takes_statements(database_url: str) -> bool:
    try:
        connection = await asyncpg.connect(database_url)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close()
    return True


async def _give_room(server: EmbeddedServer, note: str) -> str:
    ended = server.has_ended()
    if not ended:
        give_room(server)
    await revive(server)
    return f"{note}, {'ended' if ended else 'went on'}"


async def _set_clock(world: World, fault: Fault) -> str:
    """Set the clock of Redis, or let it run fast or slow, and in the end put it right."""
    server = world.redis
    ahead_seconds = CLOCK_STEPS_SECONDS[int(fault.amount * len(CLOCK_STEPS_SECONDS))]
    began = time.monotonic()
    try:
        if ahead_seconds:
            server.set_clock(ahead_seconds)
            await asyncio.sleep(fault.seconds)
            return f"{ahead_seconds} s ahead"
        while (passed := time.monotonic() - began) < fault.seconds:
            server.set_clock(passed * CLOCK_DRIFT_SHARE)
            await asyncio.sleep(LOOK_SECONDS)
        return f"fast by {CLOCK_DRIFT_SHARE:.0%}"
    finally:
        server.set_clock(0.0)


async def _ask(url: str, *words: str) -> None:
    redis: Any = Redis.from_url(url)
    try:
        await redis.execute_command(*words)
    finally:
        await redis.aclose()


def _tell_redis(*words: str) -> Callable[[World, Fault], Awaitable[str]]:
    async def tell(world: World, _: Fault) -> str:
        await _ask(world.redis.url, *words)
        return ""

    return tell


async def _fail_over(world: World, fault: Fault) -> str:
    return await world.pair.fail_over(world.links, fault)


async def _kill_postgres(world: World, fault: Fault) -> str:
    kill(world.postgres)
    await asyncio.sleep(fault.seconds)
    await revive(world.postgres)
    return ""


async def _cancel(world: World, fault: Fault) -> str:
    """Cancel whatever Postgres does for the services, again and again."""
    connection = await asyncpg.connect(world.servers.database_url)
    deadline, cancelled = time.monotonic() + fault.seconds, 0
    while time.monotonic() < deadline:
        cancelled += await connection.fetchval(
            "SELECT count(*) FILTER (WHERE pg_cancel_backend(pid)) FROM pg_stat_activity"
            " WHERE state = 'active' AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        await asyncio.sleep(CANCEL_SECONDS)
    await connection.close()
    return f"{cancelled} cancelled"


async def _freeze(world: World, fault: Fault) -> str:
    server = world.redis if fault.target == "redis" else world.postgres
    signal_all_of(server, signal.SIGSTOP)
    await asyncio.sleep(fault.seconds)
    signal_all_of(server, signal.SIGCONT)
    return ""


async def _lose_reply(world: World, fault: Fault) -> str:
    dropped = await _link(world, fault).drop_next_reply(REPLY_PATIENCE_SECONDS)
    return "dropped" if dropped else "none came by"


async def _repeat_request(world: World, fault: Fault) -> str:
    repeated = await _link(world, fault).repeat_next_request(REPLY_PATIENCE_SECONDS)
    return "repeated" if repeated else "none came by"


async def _reset(world: World, fault: Fault) -> str:
    _link(world, fault).reset()
    return ""


def _cut(ways: frozenset[Way]) -> Callable[[World, Fault], Awaitable[str]]:
    async def cut(world: World, fault: Fault) -> str:
        _link(world, fault).stop(ways)
        await asyncio.sleep(fault.seconds)
        _link(world, fault).heal()
        return ""

    return cut


def _hold(ways: frozenset[Way]) -> Callable[[World, Fault], Awaitable[str]]:
    async def hold(world: World, fault: Fault) -> str:
        _link(world, fault).stop(ways)
        await asyncio.sleep(fault.seconds)
        _link(world, fault).release()
        return ""

    return hold


async def _slow(world: World, fault: Fault) -> str:
    least, most = LATENCY_SECONDS
    _link(world, fault).latency_seconds = least + fault.amount * (most - least)
    await asyncio.sleep(fault.seconds)
    _link(world, fault).latency_seconds = 0.0
    return ""


_ACTS: dict[str, Callable[[World, Fault], Awaitable[str]]] = {
    "service-kill": _kill_service,
    "service-pause": _pause_service,
    "redis-kill": _kill_redis,
    "redis-power-loss": _cut_power_of_redis,
    "redis-disk-full": _fill_disk_of_redis,
    "redis-clock": _set_clock,
    "redis-flush": _tell_redis("FLUSHALL"),
    "redis-functions-lost": _tell_redis("FUNCTION", "FLUSH"),
    "service-restart": _restart_service,
    "postgres-cancels": _cancel,
    "redis-freeze": _freeze,
    "redis-failover": _fail_over,
    "postgres-kill": _kill_postgres,
    "postgres-freeze": _freeze,
    "postgres-disk-full": _fill_disk_of_postgres,
    "gate-reply-lost": _lose_reply,
    "commit-reply-lost": _lose_reply,
    "gate-request-twice": _repeat_request,
    "link-reset": _reset,
    "link-cut": _cut(BOTH_WAYS),
    "requests-cut": _cut(frozenset({Way.REQUESTS})),
    "replies-cut": _cut(frozenset({Way.REPLIES})),
    "link-held": _hold(BOTH_WAYS),
    "requests-held": _hold(frozenset({Way.REQUESTS})),
    "link-slow": _slow,
}
