"""The faults of a run: which, when and for how long, all drawn from the seed."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING

from simulation.gate import RedisServer
from simulation.store import Store

if TYPE_CHECKING:
    from simulation.world import World

RAGE_SECONDS = 2.5
LOOKS_MAX, LOOK_SECONDS = 80, 0.003
Fault = Callable[[], Awaitable[None]]


class Nemesis:
    """Whoever breaks things, and mends them in the end."""

    def __init__(self, world: "World", random: Random) -> None:
        self._world, self._random = world, random
        self.done: list[str] = []
        self._servers = [world.postgres, world.redis]

    def faults(self) -> tuple[Fault, ...]:
        """Name what may happen, some more often than other."""
        return (
            self.process_crashes,
            self.process_crashes,
            self.process_sleeps,
            self.process_sleeps,
            self.process_stops,
            self.redis_restarts,
            self.redis_loses_a_suffix,
            self.redis_loses_a_suffix,
            self.redis_comes_back_empty,
            self.redis_flushed,
            self.replica_promoted,
            self.replica_promoted,
            self.promoted_and_back,
            self.promoted_and_back,
            self.redis_breaks_while_loaded,
            self.redis_freezes,
            self.redis_refuses,
            self.redis_clock_jumps,
            self.postgres_restarts,
            self.postgres_freezes,
            self.network_storms,
            self.network_storms,
            self.network_slows,
            self.ledger_lags,
            self.ledger_lags,
        )

    async def rage(self) -> None:
        """Do a few faults, some at the same time."""
        self._world.redis.overdue_max = self._random.choice((1, 3, 128))
        chosen = self._random.choices(self.faults(), k=self._random.randint(2, 7))
        # Faults that come together find what faults that come alone do not.
        together = self._random.random() < 0.6
        centre = self._random.random() * RAGE_SECONDS
        await asyncio.gather(
            *(
                self._at_some_time(
                    fault,
                    max(0.0, centre + self._random.random() - 0.5)
                    if together
                    else self._random.random() * RAGE_SECONDS,
                )
                for fault in chosen
            )
        )

    def heal(self) -> None:
        """End every fault that still goes on."""
        world = self._world
        for server in self._servers:
            server.weather.clear_up()
            server.weather.way_seconds = 0.001
            server.thaw()
            server.start()
            if isinstance(server, RedisServer):
                server.refusals = server.memory_share = 0.0
        world.clients.reply_lost = 0.0
        for process in world.processes:
            process.resume()
            process.gate.server = world.redis
            if not process.is_up:
                process.start()

    async def _at_some_time(self, fault: Fault, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self._random.random() < 0.7:
            await self._adverse_moment()
        self.done.append(fault.__name__)
        self._world.note("fault:", fault.__name__)
        await fault()

    async def _wait(self, seconds_max: float) -> None:
        # Short waits as often as long ones.
        await asyncio.sleep(seconds_max * self._random.random() ** 3)

    async def _adverse_moment(self) -> None:
        """Wait a little for the gate to be ahead of the ledger: what happens then is worth most."""
        world, entries = self._world, self._random.randint(1, 4)
        for _ in range(LOOKS_MAX):
            if world.redis.store.sequence >= world.postgres.head.last_sequence + entries:
                return
            await asyncio.sleep(LOOK_SECONDS)

    # Processes.

    async def process_crashes(self) -> None:
        process = self._random.choice(self._world.processes)
        process.crash()
        await self._wait(4.0)
        if not process.is_up:
            process.start()

    async def process_sleeps(self) -> None:
        process = self._random.choice(self._world.processes)
        process.pause()
        await self._wait(12.0)
        process.resume()

    async def process_stops(self) -> None:
        process = self._random.choice(self._world.processes)
        await process.stop()
        await self._wait(2.0)
        if not process.is_up:
            process.start()

    # Redis.

    async def redis_restarts(self) -> None:
        await self._restart(lambda redis: redis.store)

    async def redis_loses_a_suffix(self) -> None:
        await self._restart(lambda redis: redis.earlier(self._random.randint(1, 8)))

    async def redis_comes_back_empty(self) -> None:
        await self._restart(lambda _redis: Store())

    async def redis_flushed(self) -> None:
        self._world.redis.store = Store()
        self._world.decided.clear()

    async def replica_promoted(self) -> None:
        """Make a replica primary that lacks the last calls; some still hold to the old primary."""
        self._promote_replica()
        # All at once where a proxy leads the way, one after the other where each finds out by itself.
        self._lead_all_to_primary(self._random.choice((0.0, 3.0)))

    async def promoted_and_back(self) -> None:
        """Promote a replica, then the old primary again, with its own data or those of the replica."""
        world, first = self._world, self._world.redis
        second = self._promote_replica()
        if self._random.random() < 0.5:
            self._lead_all_to_primary(1.0)
        await self._wait(2.0)
        if world.redis is not second:
            return
        if self._random.random() < 0.7:
            first.store = second.store.copy()
        first.identity = world.new_identity(first.identity.run_id)
        world.redis = first
        world.decided.clear()
        self._lead_all_to_primary(1.0)

    async def redis_breaks_while_loaded(self) -> None:
        """Empty the gate, and break it again while it is loaded."""
        await self.redis_flushed()
        for _ in range(LOOKS_MAX):
            if self._world.redis.store.loading is not None:
                break
            await asyncio.sleep(LOOK_SECONDS)
        await self._wait(0.015)
        await self._random.choice((self.redis_loses_a_suffix, self.replica_promoted))()

    async def redis_freezes(self) -> None:
        redis = self._world.redis
        redis.freeze()
        await self._wait(8.0)
        redis.thaw()

    async def redis_refuses(self) -> None:
        """Let the journal refuse entries, and let the memory seem full."""
        redis = self._world.redis
        redis.refusals = 0.3
        redis.memory_share = self._random.choice((0.0, 0.9))
        await self._wait(4.0)
        redis.refusals = redis.memory_share = 0.0

    async def redis_clock_jumps(self) -> None:
        self._world.redis.clock_ahead_ms += self._random.choice((-60_000, -500, 500, 60_000))

    # Postgres and the network.

    async def postgres_restarts(self) -> None:
        postgres = self._world.postgres
        postgres.kill()
        await self._wait(4.0)
        postgres.start()

    async def postgres_freezes(self) -> None:
        postgres = self._world.postgres
        postgres.freeze()
        await self._wait(12.0)
        postgres.thaw()

    async def ledger_lags(self) -> None:
        """Let commits take long, so that much is decided and not yet durable."""
        weather = self._world.postgres.weather
        weather.way_seconds = self._random.choice((0.05, 0.2, 0.6))
        await self._wait(6.0)
        weather.way_seconds = 0.001

    async def network_storms(self) -> None:
        """Lose calls and replies, and hold calls up, on the way to one server."""
        server = self._random.choice((self._world.redis, self._world.postgres))
        server.weather.call_lost = self._random.choice((0.0, 0.1))
        server.weather.reply_lost = self._random.choice((0.0, 0.1, 0.3))
        server.weather.held_up = self._random.choice((0.0, 0.1))
        self._world.clients.reply_lost = self._random.choice((0.0, 0.2))
        await self._wait(8.0)
        server.weather.clear_up()
        self._world.clients.reply_lost = 0.0

    async def network_slows(self) -> None:
        server = self._random.choice((self._world.redis, self._world.postgres))
        server.weather.way_seconds = self._random.choice((0.02, 0.2, 1.0))
        await self._wait(8.0)
        server.weather.way_seconds = 0.001

    async def _restart(self, data_after: Callable[[RedisServer], Store]) -> None:
        world, redis = self._world, self._world.redis
        redis.kill()
        # So short at times that a client only sees its next connection.
        await self._wait(self._random.choice((0.0, 2.0)))
        before = redis.store
        redis.store = data_after(redis)
        redis.identity = world.new_identity()
        if redis is world.redis and redis.store is not before:
            world.decided.clear()
        redis.start()

    def _promote_replica(self) -> RedisServer:
        world, old = self._world, self._world.redis
        replica = world.new_redis()
        lag = self._random.choice((0, 1, 2, 8))
        replica.store = old.earlier(lag) if lag else old.store.copy()
        replica.overdue_max = old.overdue_max
        replica.snapshots = [each.copy() for each in old.snapshots]
        self._servers.append(replica)
        world.redis = replica
        world.decided.clear()
        return replica

    def _lead_all_to_primary(self, seconds_max: float) -> None:
        for process in self._world.processes:
            seconds = seconds_max * self._random.random() ** 3
            self._world.loop.call_later(seconds, self._lead_to_primary, process.gate)

    def _lead_to_primary(self, gate: object) -> None:
        gate.server = self._world.redis
