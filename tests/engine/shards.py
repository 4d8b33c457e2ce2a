"""Pipelines on a real gate and ledger, and the ways in which tests get between their steps."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg

from allocation.commands import (
    Command,
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Move,
    MovedLine,
    Movement,
    Reserve,
    Wanted,
)
from allocation.gate.redis_gate import RedisGate
from allocation.group_commit import OnDurable
from allocation.journal import GENESIS_HASH, chain
from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.pipeline import Limits, Pipeline
from allocation.ports import Decision, Head

# Long enough that only the event under test can end a wait; and each command goes to the gate at once.
PATIENT = Limits(
    early_batch_min=1, ledger_lag_seconds_max=60.0, sweep_seconds=60.0, retry_seconds=0.01
)
# Not partial, and replaces nothing.
WHOLE = (False, "")
CATALOGUE: tuple[Command, ...] = (
    ConfigureLocation("LON", ""),
    ConfigureChannel("web", "", ("LON",)),
    ConfigureSku("MUG", ()),
    Move("opening", "", int(Movement.RECEIPT), 0, "", (MovedLine("MUG", "LON", 100),)),
)


async def _at_once() -> None:
    """Wait for nothing."""


class WatchedLedger(PostgresLedger):
    """The real ledger; tests may act before and after an append, and see how much went into each."""

    def __init__(self, database_url: str, shard: int = 0) -> None:
        super().__init__(database_url, shard)
        self.before: Callable[[], Awaitable[None]] = _at_once
        self.after: Callable[[], Awaitable[None]] = _at_once
        self.appended: list[int] = []

    async def append(self, head: Head, bodies: Sequence[bytes], last_hash: str) -> Head:
        """Append as ever, between what the test wants done before and after."""
        await self.before()
        moved = await super().append(head, bodies, last_hash)
        self.appended.append(len(bodies))
        await self.after()
        return moved


class Shard:
    """One pipeline and its ledger."""

    def __init__(
        self, gate: RedisGate, database_url: str, on_durable: OnDurable = lambda *_: None
    ) -> None:
        self.gate, self.ledger = gate, WatchedLedger(database_url, gate.shard)
        self.pipeline = Pipeline(gate, self.ledger, limits=PATIENT, on_durable=on_durable)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, gate: RedisGate, database_url: str, on_durable: OnDurable = lambda *_: None
    ) -> AsyncIterator["Shard"]:
        """Start a pipeline, and stop it whatever the test has done to it."""
        shard = cls(gate, database_url, on_durable)
        await shard.ledger.create()
        await shard.pipeline.start()
        try:
            yield shard
        finally:
            shard.ledger.before = shard.ledger.after = _at_once
            await shard.pipeline.stop()
            await shard.ledger.close()

    async def do(self, *commands: Command) -> list[Decision]:
        """Send commands together and wait for all answers."""
        return await asyncio.gather(*map(self.pipeline.submit, commands))


async def until(happened: Callable[[], object]) -> None:
    """Let other tasks run until something has happened; the test's own time-out is the limit."""
    while not happened():  # noqa: ASYNC110 - what is awaited belongs to a server or another task.
        await asyncio.sleep(0.002)


def hold(reservation_id: str, quantity: int = 1, ttl_ms: int = 900_000) -> Reserve:
    """Ask for mugs."""
    return Reserve(reservation_id, "", "web", ttl_ms, *WHOLE, (Wanted("MUG", quantity),))


async def audited_sequence(database_url: str) -> int:
    """Check that the ledger has no gap and that its chain of hashes holds; give its length."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT sequence, hash, body FROM ledger ORDER BY sequence")
        head = await connection.fetchrow("SELECT last_sequence, last_hash FROM shard_head")
    finally:
        await connection.close()
    latest = GENESIS_HASH
    for expected, (sequence, stored, body) in enumerate(rows, 1):
        latest = chain(latest, body)
        assert (sequence, stored) == (expected, latest)
    assert head is not None
    assert (head[0], head[1]) == (len(rows), latest)
    return len(rows)
