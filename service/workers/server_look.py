"""Looks whether the ledger's Postgres still is the one that the shard was taken over on.

A process that appends notices another one with its next entry. One that only reads would go on telling what a
ledger said that may have lost its end.
"""

from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.pipeline import Pipeline

SERVER_LOOK_SECONDS = 3.0


class ServerLook:
    """The duty of a worker."""

    def __init__(self, pipeline: Pipeline, ledger: PostgresLedger) -> None:
        self._pipeline, self._ledger = pipeline, ledger

    async def run_once(self) -> int:
        """Ask Postgres who it is; the shard is verified again where that has changed. Raises LedgerUnavailable."""
        if self._pipeline.verified is not None:
            self._pipeline.note_server(await self._ledger.present_server())
        return 0
