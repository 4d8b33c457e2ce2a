"""A scenario of its own: a standby of Postgres is promoted that did not have the last commits.

Redis keeps what it has, as far as it was not told that it is durable. So either the journal gives the ledger back
what it lost, or every process closes the shard until an operator says that the ledger is right all the same. What
is not covered: a promotion while Redis is empty, or has lost its own end; nobody then knows what was lost.
"""

import asyncio

from simulation.checks import check_all
from simulation.clients import CATALOGUE, SKUS, moved
from simulation.history import OK
from simulation.nemesis import LOOK_SECONDS, RAGE_SECONDS, Fault, Nemesis
from simulation.processes import Process
from simulation.world import Build, World

from allocation.errors import Diverged, EngineError, StaleProcess
from allocation.takeover import take_over_and_rebuild

COMMITS_LOST = (0, 1, 1, 2, 8)
# Every process has looked again meanwhile, whatever it was waiting for.
CLOSED_SECONDS = 5.0
PROBING_SECONDS = 0.5


class PromotionNemesis(Nemesis):
    """Whoever promotes the standby, amid faults that take nothing from Redis."""

    def faults(self) -> tuple[Fault, ...]:
        return (
            self.process_crashes,
            self.process_sleeps,
            self.process_stops,
            self.redis_restarts,
            self.redis_freezes,
            self.redis_refuses,
            self.postgres_restarts,
            self.postgres_freezes,
            self.network_storms,
            self.ledger_lags,
        )

    async def rage(self) -> None:
        await asyncio.gather(super().rage(), self._promote())

    async def _promote(self) -> None:
        while len(self._world.operations) <= len(CATALOGUE) + len(SKUS):  # noqa: ASYNC110 - it is drawn when
            await asyncio.sleep(LOOK_SECONDS)
        await self._at_some_time(self.standby_promoted, RAGE_SECONDS * self._random.random())

    async def standby_promoted(self) -> None:
        """End Postgres, and go on with a standby that lacks some of the last commits, or none."""
        postgres = self._world.postgres
        postgres.kill()
        await self._wait(1.0)
        postgres.lose(self._random.choice(COMMITS_LOST))
        postgres.start()
        # One process looks at once, in no hurry, while others have noticed nothing and go on deciding.
        postgres.weather.way_seconds = self._random.choice((0.001, 0.05, 0.2))
        if self._random.random() < 0.5:
            process = self._random.choice(self._world.processes)
            process.crash()
            process.start()
        await self._wait(4.0)
        postgres.weather.way_seconds = 0.001


class PromotionWorld(World):
    """A world in which the ledger may lose its end."""

    nemesis_type = PromotionNemesis

    def __init__(self, seed: int, build: Build) -> None:
        super().__init__(seed, build)
        self.ending = "whole"
        self._found: list[str] = []
        self._accepted_at, self._probes = 0.0, 0
        for process in self.processes:
            process.expected = (Diverged,)

    async def settle(self) -> None:
        """Wait until the shard is open again, or closed for good; then accept what the ledger has."""
        if await self._closed():
            self.ending = "closed"
            await self._ask_in_vain()
            await self._accept()
        elif self.postgres.lost:
            self.ending = "healed"
            if not self.postgres.is_whole:
                self._found.append("silence: the ledger has lost entries, and the shard is open")
        self.ways[f"ledger {self.ending}"] += 1
        await super().settle()

    async def check(self) -> list[str]:
        if self.ending != "closed":
            return [*self._found, *await check_all(self)]
        self.ways["stale process"] += sum(process.restarts for process in self.processes)
        # What was answered before is lost by an operator's word; everything after must stand.
        after = [
            operation
            for operation in self.operations
            if operation.decision is not None and operation.answered_at > self._accepted_at
        ]
        return [*self._found, *await check_all(self, after)]

    async def _closed(self) -> bool:
        closed_since = self.loop.time()
        while True:
            if not all(process.is_rewound for process in self.processes):
                closed_since = self.loop.time()
            if self.loop.time() > closed_since + CLOSED_SECONDS:
                return True
            if all(map(self._is_open, self.processes)):
                return False
            # Whoever has nothing to do notices nothing.
            self._probes += 1
            await self.clients.ask_each(moved(f"probe {self._probes}", SKUS[0], 1))
            await asyncio.sleep(PROBING_SECONDS)

    def _is_open(self, process: Process) -> bool:
        verified = process.is_serving and process.pipeline.verified
        return bool(verified) and verified.head.taken_on == self.postgres.present_server

    async def _ask_in_vain(self) -> None:
        """Ask every process for something: none may answer."""
        before = self.postgres.head
        asked = await self.clients.ask_each(moved("in vain", SKUS[0], 1))
        if OK in asked or self.postgres.head.last_sequence != before.last_sequence:
            self._found.append("closed: a shard that has lost its end answered")

    async def _accept(self) -> None:
        for process in self.processes:
            process.expected = (Diverged, StaleProcess)
        self.decided.clear()
        operator = self.new_operator()
        while True:
            try:
                await take_over_and_rebuild(*operator, lambda _read, _through: None)
            except EngineError:
                await asyncio.sleep(1.0)
            else:
                break
        self._accepted_at = self.loop.time()
