"""A simulated Postgres that holds one shard's ledger, and the engine's port to it."""

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from types import TracebackType
from typing import TypeVar

from simulation.loop import SimulationLoop
from simulation.network import ConnectionLostError, Note, Server

from allocation.errors import Diverged, Fenced, LedgerUnavailable
from allocation.journal import chain
from allocation.ports import Head

Result = TypeVar("Result")
LOCK_SECONDS, LOCK_LOOK_SECONDS = 3.0, 0.2


class UniqueViolationError(Exception):
    """There is an entry with this sequence already."""


class SimulatedPostgres(Server):
    """The head row and the ledger's rows. Every statement is done whole or not at all."""

    def __init__(self, loop: SimulationLoop, random: Random, note: Note) -> None:
        super().__init__("postgres", loop, random, note)
        self.head = Head(0, 0, "")
        self.rows: dict[int, tuple[str, bytes]] = {}
        self.lock_owner: object | None = None
        self._gone: set[object] = set()

    def append(
        self, head: Head, hashes: Sequence[str], bodies: Sequence[bytes], last_hash: str
    ) -> int:
        """Move the head from the one expected and insert the entries; give how many were inserted."""
        if not self.is_head(head):
            return 0
        self.insert(head.last_sequence + 1, hashes, bodies)
        self.head = Head(
            self.head.epoch,
            head.last_sequence + len(bodies),
            last_hash,
            self.head.run_id,
            self.head.replication_id,
        )
        return len(bodies)

    def is_head(self, head: Head) -> bool:
        """Compare what a compare-and-set of the head row compares."""
        mine, other = self.head, head
        return (mine.epoch, mine.last_sequence, mine.last_hash) == (
            other.epoch,
            other.last_sequence,
            other.last_hash,
        )

    def insert(self, first: int, hashes: Sequence[str], bodies: Sequence[bytes]) -> None:
        """Insert all rows or none. Raises UniqueViolationError."""
        if any(sequence in self.rows for sequence in range(first, first + len(bodies))):
            raise UniqueViolationError
        self.rows.update(enumerate(zip(hashes, bodies, strict=True), first))

    def take_over(self, run_id: str, replication_id: str) -> Head:
        """Raise the epoch."""
        head = self.head
        self.head = Head(head.epoch + 1, head.last_sequence, head.last_hash, run_id, replication_id)
        return self.head

    def try_lock(self, owner: object) -> bool:
        """Take the advisory lock, if nobody else has it."""
        if self.lock_owner is None and owner not in self._gone:
            self.lock_owner = owner
        return self.lock_owner == owner

    def unlock(self, owner: object) -> None:
        """End the connection that may have the lock; what it still asks for is not done."""
        self._gone.add(owner)
        if self.lock_owner == owner:
            self.lock_owner = None

    def kill(self) -> None:
        """End at once; nothing committed is lost, but the locks are."""
        super().kill()
        self.lock_owner = None


class SimulatedLedger:
    """The engine's port to a simulated Postgres, for one process."""

    def __init__(self, caller: str, server: SimulatedPostgres) -> None:
        self.caller, self.server = caller, server
        self.taker: object | None = None

    async def head(self) -> Head:
        return await self._ask("head", lambda: self.server.head)

    async def append(self, head: Head, bodies: Sequence[bytes], last_hash: str) -> Head:
        hashes: list[str] = []
        latest = head.last_hash
        for body in bodies:
            latest = chain(latest, body)
            hashes.append(latest)
        if latest != last_hash:
            raise Diverged
        inserted = await self._ask(
            f"append {head.last_sequence + 1} to {head.last_sequence + len(bodies)}",
            lambda: self.server.append(head, hashes, bodies, last_hash),
        )
        if inserted != len(bodies):
            raise Fenced
        last_sequence = head.last_sequence + len(bodies)
        return Head(head.epoch, last_sequence, last_hash, head.run_id, head.replication_id)

    async def read(self, after_sequence: int, limit: int) -> list[tuple[int, bytes]]:
        return await self._ask("read", lambda: self._rows(after_sequence, limit))

    async def hash_at(self, sequence: int) -> str | None:
        return await self._ask("hash", lambda: self.server.rows.get(sequence, (None, b""))[0])

    async def take_over(self, run_id: str, replication_id: str) -> Head:
        return await self._ask("take over", lambda: self.server.take_over(run_id, replication_id))

    def only_taker(self) -> "_OnlyTaker":
        return _OnlyTaker(self)

    def close(self) -> None:
        """End every connection, as a process that ends does."""
        if self.taker is not None:
            self.release(self.taker)

    def release(self, taker: object) -> None:
        """End the connection that holds the lock; the server hears of it a little later."""
        self.taker = None
        self.server.loop.call_later(0.001, self.server.unlock, taker, context=self.server.context)

    async def try_lock(self, taker: object) -> bool:
        return await self._ask("lock", lambda: self.server.try_lock(taker))

    def _rows(self, after_sequence: int, limit: int) -> list[tuple[int, bytes]]:
        sequences = sorted(number for number in self.server.rows if number > after_sequence)
        return [(number, self.server.rows[number][1]) for number in sequences[:limit]]

    async def _ask(self, what: str, act: Callable[[], Result]) -> Result:
        try:
            return await self.server.call(self.caller, what, act)
        except (ConnectionLostError, UniqueViolationError) as fault:
            raise LedgerUnavailable from fault


class _OnlyTaker:
    """The advisory lock, as long as it is to be had in time; the epoch alone is what keeps others out."""

    def __init__(self, ledger: SimulatedLedger) -> None:
        self._ledger, self._loop = ledger, ledger.server.loop
        self._taker = f"{ledger.caller} {self._loop.steps}"

    async def __aenter__(self) -> None:
        self._ledger.taker = self._taker
        deadline = self._loop.time() + LOCK_SECONDS
        try:
            while not await self._ledger.try_lock(self._taker) and self._loop.time() < deadline:  # noqa: ASYNC110 - as a server waits
                await asyncio.sleep(LOCK_LOOK_SECONDS)
        except LedgerUnavailable:
            self._ledger.release(self._taker)
            raise

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _fault: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._ledger.release(self._taker)
