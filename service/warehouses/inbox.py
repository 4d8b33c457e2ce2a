"""Every delivery that was accepted: stored before it is answered, and kept until it is applied or given up."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

import asyncpg
from msgspec import Struct

from allocation.errors import LedgerUnavailable, OutcomeUnknown
from allocation.ledger.postgres_ledger import FAULTS
from allocation.ledger.queries import named_queries

ACQUIRE_SECONDS_MAX = 2.0
STORE_SECONDS_MAX = 5.0
BODY_START_BYTES = 2_000
_OTHER_BODY = "idempotency-mismatch: The id of the delivery came before, with another body."


class Delivery(Struct, frozen=True):
    """A delivery that waits to be applied."""

    id: int
    source: str
    delivery_id: str
    body: bytes
    attempts: int
    received_at_ms: int


class Applied(Struct, frozen=True):
    """It was applied, now or before."""


class Dead(Struct, frozen=True):
    """It cannot be applied as things are; a person must look."""

    reason: str


class Waiting(Struct, frozen=True):
    """It is tried again later."""

    reason: str
    pause_seconds: float


Fate = Applied | Dead | Waiting


class Inbox:
    """The deliveries in Postgres."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._queries = named_queries("service.warehouses")

    async def store(self, source: str, delivery_id: str, body: bytes) -> bool:
        """Make a delivery durable; False where one of its id was before.

        Under a known id another body is another story. It is kept as a dead letter, once, for a person to
        look at: which of the two is true cannot be known here, and applying both could double a movement.

        Raises LedgerUnavailable where nothing was done, OutcomeUnknown where that is not known.
        """
        try:
            connection = await self._pool.acquire(timeout=ACQUIRE_SECONDS_MAX)
        except FAULTS as fault:
            raise LedgerUnavailable from fault
        try:
            return await self._store(connection, source, delivery_id, body)
        except FAULTS as fault:
            raise OutcomeUnknown from fault
        finally:
            # A connection that cannot be reset is dropped by the pool; the answer is known all the same.
            with suppress(*FAULTS):
                await self._pool.release(connection)

    async def _store(
        self,
        connection: asyncpg.pool.PoolConnectionProxy,
        source: str,
        delivery_id: str,
        body: bytes,
    ) -> bool:
        tag = await connection.execute(
            self._queries["store_event"], source, delivery_id, body, timeout=STORE_SECONDS_MAX
        )
        if tag == "INSERT 0 1":
            return True
        await connection.execute(
            self._queries["store_other_body"],
            source,
            delivery_id,
            body,
            _OTHER_BODY,
            timeout=STORE_SECONDS_MAX,
        )
        return False

    @asynccontextmanager
    async def claimed(self, limit: int) -> AsyncGenerator["Claim"]:
        """Claim deliveries for the length of the block; what was settled in it is durable after it."""
        async with self._pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(self._queries["claim_events"], limit)
            yield Claim(connection, [Delivery(*row) for row in rows])

    async def dead(self, after_id: int, limit: int) -> list[asyncpg.Record]:
        """List dead letters, the oldest first."""
        return await self._pool.fetch(self._queries["list_dead"], after_id, limit, BODY_START_BYTES)

    async def retry(self, event_id: int, who: str) -> str | None:
        """Let a dead letter be tried again, and give its state; None where there is none of that id."""
        await self._pool.execute(self._queries["retry_dead"], event_id, who)
        return await self._pool.fetchval(self._queries["state_of_event"], event_id)

    async def retry_all(self, who: str) -> int:
        """Let every dead letter be tried again, and say how many there were."""
        tag = await self._pool.execute(self._queries["retry_all_dead"], who)
        return int(tag.removeprefix("UPDATE "))

    async def prune(self, retention_ms: int, limit: int) -> int:
        """Forget deliveries that were applied longer ago, some of them, and say how many."""
        tag = await self._pool.execute(self._queries["prune_applied"], retention_ms / 1000, limit)
        return int(tag.removeprefix("DELETE "))

    async def counts(self) -> tuple[int, int]:
        """Say how many deliveries wait, and how many are dead letters."""
        row = await self._pool.fetchrow(self._queries["count_events"])
        assert row is not None, "Bug: a count without a row"
        return row["waiting"], row["dead"]


class Claim:
    """Deliveries that no other worker has."""

    def __init__(
        self, connection: asyncpg.pool.PoolConnectionProxy, deliveries: Sequence[Delivery]
    ) -> None:
        self.deliveries = deliveries
        self._connection = connection
        self._queries = named_queries("service.warehouses")

    async def settle(self, delivery: Delivery, fate: Fate) -> None:
        """Write down what became of one of them."""
        match fate:
            case Applied():
                await self._connection.execute(self._queries["mark_applied"], delivery.id)
            case Dead(reason):
                await self._connection.execute(self._queries["mark_dead"], delivery.id, reason)
            case Waiting(reason, seconds):
                statement = self._queries["mark_waiting"]
                await self._connection.execute(statement, delivery.id, reason, seconds)
