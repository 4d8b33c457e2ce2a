"""A simulated Postgres that holds one shard's ledger, and the engine's port to it."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from types import TracebackType
from typing import TypeVar

from msgspec.structs import replace
from simulation.loop import SimulationLoop
from simulation.network import ConnectionLostError, Note, Server

from allocation.errors import CheckpointDamaged, Diverged, Fenced, LedgerUnavailable
from allocation.journal import chain, decode_head
from allocation.ports import Checkpoint, Head, Page, Part

Result = TypeVar("Result")
LOCK_SECONDS, LOCK_LOOK_SECONDS = 3.0, 0.2
# Small, so that folding takes several.
PAGE_ENTRIES = 16
CHECKPOINTS_KEPT = 2


class UniqueViolationError(Exception):
    """There is an entry with this sequence already."""


@dataclass
class Kept:
    """A checkpoint as it is kept: the hash that it was made at, its parts and their digests."""

    last_hash: str
    parts: list[Part]
    digests: list[str]


def digest(part: Part) -> str:
    """Give what a part must not differ from."""
    return hashlib.sha256(bytes([part.key]) + part.body).hexdigest()


class SimulatedPostgres(Server):
    """The head row and the ledger's rows. Every statement is done whole or not at all."""

    def __init__(self, loop: SimulationLoop, random: Random, note: Note) -> None:
        super().__init__("postgres", loop, random, note)
        # A standby that is promoted begins another timeline.
        self.timeline = 1
        # The head after each commit, and the furthest that the ledger ever went.
        self.heads = [Head(0, 0, "")]
        self.durable_ever = 0
        # What a standby that was promoted did not have: sequence and hash.
        self.lost: dict[int, str] = {}
        self.rows: dict[int, tuple[str, bytes]] = {}
        self.kept: dict[int, Kept] = {}
        self.lock_owner: object | None = None
        self._gone: set[object] = set()

    @property
    def head(self) -> Head:
        """Where the ledger ends."""
        return self.heads[-1]

    @head.setter
    def head(self, head: Head) -> None:
        self.heads.append(head)
        self.durable_ever = max(self.durable_ever, head.last_sequence)

    def append(
        self, head: Head, hashes: Sequence[str], bodies: Sequence[bytes], last_hash: str
    ) -> int:
        """Move the head from the one expected and insert the entries; give how many were inserted."""
        if not self.is_head(head):
            return 0
        self.insert(head.last_sequence + 1, hashes, bodies)
        last_sequence = head.last_sequence + len(bodies)
        self.head = replace(self.head, last_sequence=last_sequence, last_hash=last_hash)
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

    @property
    def present_server(self) -> str:
        """Which Postgres this is, and on which timeline."""
        return f"postgres/{self.timeline}"

    def take_over(self, run_id: str, replication_id: str, above_epoch: int) -> Head:
        """Raise the epoch, above one that the gate knows too."""
        self.head = replace(
            self.head,
            epoch=max(self.head.epoch, above_epoch) + 1,
            run_id=run_id,
            replication_id=replication_id,
            taken_on=self.present_server,
        )
        return self.head

    @property
    def is_whole(self) -> bool:
        """Whether everything is there again that was lost."""
        return all(self.hash_at(number) == lost for number, lost in self.lost.items())

    def page(self, after: int, through: int) -> Page:
        """Give some entries in a row. Raises Diverged where one is missing."""
        numbers = range(after + 1, through + 1)
        if any(number not in self.rows for number in numbers):
            raise Diverged
        return Page(len(numbers), through, b"".join(self.rows[number][1] for number in numbers))

    def checkpoints(self, through_sequence: int) -> list[Checkpoint]:
        """Name the whole checkpoints that the ledger agrees with, the newest first."""
        return [
            Checkpoint(number, kept.last_hash, self._at_ms(number), tuple(kept.digests), 0)
            for number, kept in sorted(self.kept.items(), reverse=True)
            if number <= through_sequence
            and len(kept.parts) == len(kept.digests)
            and self.hash_at(number) == kept.last_hash
        ]

    def keep(self, sequence: int, last_hash: str, parts: list[Part]) -> None:
        """Keep a checkpoint, and drop those of another history and the old. Raises Diverged."""
        if self.hash_at(sequence) != last_hash:
            raise Diverged
        self.kept = {
            number: kept
            for number, kept in self.kept.items()
            if self.hash_at(number) == kept.last_hash
        }
        self.kept[sequence] = Kept(last_hash, parts, [digest(part) for part in parts])
        for number in sorted(self.kept)[:-CHECKPOINTS_KEPT]:
            del self.kept[number]

    def hash_at(self, sequence: int) -> str | None:
        """Give the hash of one entry."""
        return self.rows.get(sequence, (None, b""))[0]

    def lose(self, commits: int) -> None:
        """Become the standby that did not have the last commits."""
        self.timeline += 1
        del self.heads[max(1, len(self.heads) - commits) :]
        last = self.head.last_sequence
        self.lost = {number: row[0] for number, row in self.rows.items() if number > last}
        self.rows = {number: row for number, row in self.rows.items() if number <= last}
        self.kept = {number: kept for number, kept in self.kept.items() if number <= last}

    def _at_ms(self, sequence: int) -> int:
        return decode_head(self.rows[sequence][1]).at_ms

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
        self.parts_read = 0

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
            lambda: self._append(head, hashes, bodies, last_hash),
        )
        if inserted != len(bodies):
            raise Fenced
        last_sequence = head.last_sequence + len(bodies)
        return replace(head, last_sequence=last_sequence, last_hash=last_hash)

    async def read(self, after_sequence: int, limit: int) -> list[tuple[int, bytes]]:
        return await self._ask("read", lambda: self._rows(after_sequence, limit))

    async def hash_at(self, sequence: int) -> str | None:
        return await self._ask("hash", lambda: self.server.hash_at(sequence))

    async def pages(self, after_sequence: int, through_sequence: int) -> AsyncGenerator[Page]:
        connection = self.server.incarnation
        for first in range(after_sequence, through_sequence, PAGE_ENTRIES):
            last = min(first + PAGE_ENTRIES, through_sequence)
            yield await self._ask(
                f"page {first + 1} to {last}", partial(self.server.page, first, last), connection
            )

    async def present_server(self) -> str:
        return await self._ask("server", lambda: self.server.present_server)

    async def take_over(self, run_id: str, replication_id: str, above_epoch: int) -> Head:
        return await self._ask(
            "take over", lambda: self.server.take_over(run_id, replication_id, above_epoch)
        )

    async def checkpoints(self, through_sequence: int) -> list[Checkpoint]:
        return await self._ask("checkpoints", lambda: self.server.checkpoints(through_sequence))

    async def checkpoint_parts(self, checkpoint: Checkpoint) -> AsyncGenerator[Part]:
        connection = self.server.incarnation
        for number, expected in enumerate(checkpoint.digests):
            part = await self._ask(
                f"part {number}", partial(self._part, checkpoint.sequence, number), connection
            )
            if part is None or not self.is_undamaged(part, expected):
                raise CheckpointDamaged
            self.parts_read += 1
            yield part

    async def keep_checkpoint(
        self, sequence: int, last_hash: str, parts: AsyncIterable[Part]
    ) -> None:
        kept = [part async for part in parts]
        await self._ask(
            f"keep checkpoint {sequence}", lambda: self.server.keep(sequence, last_hash, kept)
        )

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

    def is_undamaged(self, part: Part, expected: str) -> bool:
        """Compare a part with what was written."""
        return digest(part) == expected

    def _append(
        self, head: Head, hashes: Sequence[str], bodies: Sequence[bytes], last_hash: str
    ) -> int:
        # What the real one asks of each new connection, which no other server can take over.
        if self.server.present_server != head.taken_on:
            raise Diverged
        return self.server.append(head, hashes, bodies, last_hash)

    def _part(self, sequence: int, number: int) -> Part | None:
        kept = self.server.kept.get(sequence)
        return kept.parts[number] if kept is not None and number < len(kept.parts) else None

    async def _ask(
        self, what: str, act: Callable[[], Result], connection: int | None = None
    ) -> Result:
        def answered() -> Result:
            if connection not in {None, self.server.incarnation}:
                raise ConnectionLostError
            return act()

        try:
            return await self.server.call(self.caller, what, answered)
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
