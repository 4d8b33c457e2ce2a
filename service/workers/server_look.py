"""Looks whether the ledger's Postgres still is the one that the shard was taken over on.

A process that appends notices another one with its next entry. One that only reads would go on telling what a
ledger said that may have lost its end.
"""

from collections.abc import Sequence

from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.pipeline import Pipeline

SERVER_LOOK_SECONDS = 3.0


class ServerLook:
    """The duty of a worker."""

    def __init__(self, pipelines: Sequence[Pipeline], ledger: PostgresLedger) -> None:
        self._pipelines, self._ledger = pipelines, ledger

    async def run_once(self) -> int:
        """Ask Postgres who it is; shards are verified again where that has changed. Raises LedgerUnavailable."""
        if any(pipeline.verified is not None for pipeline in self._pipelines):
            server = await self._ledger.present_server()
            for pipeline in self._pipelines:
                pipeline.note_server(server)
        return 0
