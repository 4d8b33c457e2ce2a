"""What a verification needs of Postgres: the turn to verify, the table of findings, and the shard's closing."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from allocation.comparison import Drift
from allocation.errors import LedgerUnavailable
from allocation.ledger.postgres_ledger import FAULTS
from allocation.ledger.queries import named_queries

TIMEOUT_SECONDS = 5.0


class PostgresFindings:
    """The findings of one shard, on one connection that also is the turn: it ends with the process."""

    def __init__(self, database_url: str, shard: int) -> None:
        self._url, self._shard = database_url, shard
        self._queries = named_queries("allocation.ledger")
        self._connection: asyncpg.Connection | None = None
        self._has_turn = False

    async def close(self) -> None:
        """Give the turn up."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection, self._has_turn = None, False

    async def take_turn(self) -> bool:
        """Say whether this process is the one that verifies the shard. Raises LedgerUnavailable."""
        # All else is asked on the same connection: where it is lost, and the turn with it, that fails.
        async with self._faults() as connection:
            if not self._has_turn:
                self._has_turn = bool(
                    await connection.fetchval(self._queries["take_turn"], self._shard)
                )
        return self._has_turn

    async def closed_reason(self) -> str | None:
        """Say why the shard was closed; None where it is open. Raises LedgerUnavailable."""
        async with self._faults() as connection:
            return await connection.fetchval(self._queries["closed_reason"], self._shard)

    async def record(self, sequence: int, drifts: Sequence[Drift]) -> None:
        """Keep what was found at one entry. Raises LedgerUnavailable."""
        columns = [[getattr(drift, name) for drift in drifts] for name in Drift.__struct_fields__]
        async with self._faults() as connection:
            await connection.execute(self._queries["record_drift"], self._shard, sequence, *columns)

    async def close_shard(self, reason: str) -> int | None:
        """Fence every process that serves the shard, until it is reopened. Raises LedgerUnavailable.

        Gives an epoch for the gate, which is nobody's; None where the shard was closed already.
        """
        async with self._faults() as connection:
            return await connection.fetchval(self._queries["close_shard"], self._shard, reason)

    async def reopen_shard(self) -> bool:
        """Let the shard be taken over again; False where it was open. Raises LedgerUnavailable."""
        async with self._faults() as connection:
            found = await connection.fetchval(self._queries["reopen_shard"], self._shard)
        return found is not None

    @asynccontextmanager
    async def _faults(self) -> AsyncGenerator[asyncpg.Connection]:
        try:
            if self._connection is None or self._connection.is_closed():
                self._has_turn = False
                self._connection = await asyncpg.connect(
                    self._url, timeout=TIMEOUT_SECONDS, command_timeout=TIMEOUT_SECONDS
                )
            yield self._connection
        except FAULTS as fault:
            await self.close()
            raise LedgerUnavailable from fault
