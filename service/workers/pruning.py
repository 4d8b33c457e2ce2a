"""Forgets what nobody may ask for any more: old deltas, and deliveries that were applied long ago."""

from service.deltas.store import DeltaStore
from service.warehouses.inbox import Inbox

RETENTION_SECONDS = 72 * 3600.0
DELTAS_PER_RUN = 10_000
DELIVERIES_PER_RUN = 1_000
IDLE_SECONDS = 60.0


class Pruning:
    """The duty of the worker for deltas."""

    def __init__(self, store: DeltaStore, retention_seconds: float = RETENTION_SECONDS) -> None:
        self._store, self._retention_seconds = store, retention_seconds

    async def run_once(self) -> int:
        """Forget some, and say how many."""
        return await self._store.prune(self._retention_seconds, DELTAS_PER_RUN)


class InboxPruning:
    """The duty of the worker for deliveries.

    A delivery is known again, and called a duplicate, for as long as the event in it: behind that neither is.
    """

    def __init__(self, inbox: Inbox, retention_ms: int) -> None:
        self._inbox, self._retention_ms = inbox, retention_ms

    async def run_once(self) -> int:
        """Forget some, and say how many."""
        return await self._inbox.prune(self._retention_ms, DELIVERIES_PER_RUN)
