"""The ledger in Postgres: one connection that appends, in one statement, behind a compare-and-set."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement
from msgspec import structs

from allocation.errors import Closed, Diverged, Fenced, LedgerUnavailable, Unsuitable
from allocation.journal import chain, decode_head
from allocation.ledger.bulk import Bulk
from allocation.ledger.queries import named_queries
from allocation.ports import Checkpoint, Head, Page, Part

CONNECT_TIMEOUT_SECONDS = 5.0
APPEND_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 5.0
# The commit of a checkpoint flushes all of it at once.
CHECKPOINT_TIMEOUT_SECONDS = 60.0
# A process that takes over and stops halfway holds the others up this long, then only its epoch is in their way.
# One that is at work shows it several times meanwhile.
TAKE_OVER_LOCK_MS, LIFE_SECONDS = "3000", 0.75
TAKE_OVER_WAITS_MAX = 40  # However much life it shows.
# What an outage is to the driver. The internal error is one too: a statement on a connection that has heard the
# server's last words and not yet its end.
FAULTS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


class _NotReplicatedError(OSError):
    """The commit is here, and perhaps on no standby."""


def _columns(bodies: Sequence[bytes], head: Head) -> tuple[list[object], ...]:
    """Give the columns of the rows but the sequence, which the statement counts: arrays are dear to encode."""
    heads = [decode_head(body) for body in bodies]
    hashes: list[object] = []
    latest = head.last_hash
    for body in bodies:
        latest = chain(latest, body)
        hashes.append(latest)
    return (
        [entry.at_ms for entry in heads],
        [entry.kind for entry in heads],
        [entry.subject for entry in heads],
        hashes,
        list(bodies),
    )


class PostgresLedger:
    """The ledger of one shard. One append at a time; reads have a connection of their own."""

    def __init__(self, database_url: str, shard: int) -> None:
        self.shard = shard
        self._url = database_url
        self._queries = named_queries("allocation.ledger")
        self._appending: asyncpg.Connection | None = None
        self._append: PreparedStatement | None = None
        self._reading: asyncpg.Connection | None = None
        self._reading_lock = asyncio.Lock()
        # Connections whose last commit a standby may not have.
        self._doubtful: set[object] = set()

    async def close(self) -> None:
        self._drop_appending()
        self._drop_reading()

    async def create(self) -> None:
        """Give the shard a head, where it has none."""
        connection = await self._reader()
        await connection.execute(self._queries["create_head"], self.shard)

    async def check_durability(self) -> None:
        """Refuse a Postgres that would call a commit done before it is on disk."""
        await self._keep_durable(await self._reader())

    async def head(self) -> Head:
        """Read where the shard's ledger ends, on every server that must have it. Raises LedgerUnavailable.

        Whoever reads it may answer what it covers: an entry that can be seen here may still be missing on
        the standby that its commit waited for in vain.
        """
        async with self._faults_of_reading():
            connection = await self._reader()
            row = await connection.fetchrow(self._queries["head"], self.shard)
            if row is not None and row["replicated"]:
                row = await connection.fetchrow(self._queries["confirm_head"], self.shard)
                self._require_replicated(connection)
        return _head_of(row)

    async def present_server(self) -> str:
        """Say which Postgres this is: system identifier and timeline. Raises LedgerUnavailable."""
        async with self._faults_of_reading():
            return await self._server(await self._reader())

    async def take_over(self, run_id: str, replication_id: str, above_epoch: int) -> Head:
        """Raise the epoch and record both servers. Raises LedgerUnavailable, and Closed."""
        async with self._faults_of_reading():
            connection = await self._reader()
            server = await self._server(connection)
            row = await connection.fetchrow(
                self._queries["take_over"],
                self.shard,
                run_id,
                replication_id,
                above_epoch,
                server,
            )
            if row is None:
                raise Closed(await connection.fetchval(self._queries["closed_reason"], self.shard))
            self._require_replicated(connection)
        return _head_of(row)

    @asynccontextmanager
    async def only_taker(self) -> AsyncGenerator[None]:
        """Spare other processes the work of taking the shard over meanwhile.

        Only the epoch keeps them from it: where whoever has the lock shows no life, this goes on without it. Two
        that went on side by side would each undo what the other has loaded, for as long as a rebuild takes.
        """
        try:
            connection = await self._connect()
        except FAULTS as fault:
            raise LedgerUnavailable from fault
        living = None
        try:
            if await self._wait_for_turn(connection):
                living = asyncio.create_task(self._show_life(connection))
            yield
        finally:
            if living is not None:
                living.cancel()
            connection.terminate()

    async def _wait_for_turn(self, connection: asyncpg.Connection) -> bool:
        """Say whether the turn was had."""
        limits = (self.shard, int(TAKE_OVER_LOCK_MS))
        try:
            await connection.execute(self._queries["bound_lock_wait"], TAKE_OVER_LOCK_MS)
            for _ in range(TAKE_OVER_WAITS_MAX):
                if await self._has_lock(connection):
                    return True
                if not await connection.fetchval(self._queries["taker_lives"], *limits):
                    return False
        except FAULTS as fault:
            raise LedgerUnavailable from fault
        return False

    async def _has_lock(self, connection: asyncpg.Connection) -> bool:
        try:
            await connection.execute(self._queries["lock_take_over"], self.shard)
        except asyncpg.LockNotAvailableError:
            return False
        return True

    async def _show_life(self, connection: asyncpg.Connection) -> None:
        """Tell others that this process is at work; one that is paused tells nothing."""
        with suppress(*FAULTS):
            while True:
                await connection.execute(self._queries["show_life"], self.shard)
                await asyncio.sleep(LIFE_SECONDS)

    async def append(self, head: Head, bodies: Sequence[bytes], last_hash: str) -> Head:
        """Append entries behind `head` and give the new head.

        Raises Diverged where the entries do not lead from `head` to `last_hash` or Postgres is another one than
        it was, and Fenced where the ledger does not end at `head`: nothing was appended. Raises
        LedgerUnavailable where the outcome is not known: read the head again before anything else.
        """
        columns = _columns(bodies, head)
        if columns[3][-1] != last_hash:
            raise Diverged
        last_sequence = head.last_sequence + len(bodies)
        try:
            append = self._append or await self._open_for_appending(head)
            await append.fetch(
                self.shard,
                head.epoch,
                head.last_sequence,
                head.last_hash,
                last_sequence,
                last_hash,
                *columns,
                timeout=APPEND_TIMEOUT_SECONDS,
            )
            self._require_replicated(self._appending)
        except FAULTS as fault:
            self._drop_appending()
            raise LedgerUnavailable from fault
        if append.get_statusmsg() != f"INSERT 0 {len(bodies)}":
            raise Fenced
        return structs.replace(head, last_sequence=last_sequence, last_hash=last_hash)

    async def hash_at(self, sequence: int) -> str | None:
        """Give the hash of one entry; None where there is no such entry. Raises LedgerUnavailable."""
        async with self._faults_of_reading():
            connection = await self._reader()
            return await connection.fetchval(self._queries["hash_at"], self.shard, sequence)

    async def read(self, after_sequence: int, limit: int) -> list[tuple[int, bytes]]:
        """Read entries in order: sequence and body. Raises LedgerUnavailable."""
        async with self._faults_of_reading():
            connection = await self._reader()
            rows = await connection.fetch(self._queries["read"], self.shard, after_sequence, limit)
        return [(row[0], row[1]) for row in rows]

    async def read_with_hash(self, after_sequence: int, limit: int) -> list[tuple[int, str, bytes]]:
        """Read entries in order, with their hashes. Raises LedgerUnavailable."""
        async with self._faults_of_reading():
            connection = await self._reader()
            rows = await connection.fetch(
                self._queries["read_with_hash"], self.shard, after_sequence, limit
            )
        return [(row[0], row[1], row[2]) for row in rows]

    async def pages(self, after_sequence: int, through_sequence: int) -> AsyncGenerator[Page]:
        """Read many entries in order, the next page while one is being looked at.

        Raises Diverged where an entry is missing, and LedgerUnavailable.
        """
        if after_sequence >= through_sequence:
            return
        async with (
            self._bulk() as bulk,
            aclosing(bulk.pages(after_sequence, through_sequence)) as pages,
        ):
            async for page in pages:
                yield page

    async def checkpoints(self, through_sequence: int) -> list[Checkpoint]:
        """Name the complete checkpoints that the ledger agrees with, the newest first.

        Raises LedgerUnavailable.
        """
        async with self._faults_of_reading():
            connection = await self._reader()
            rows = await connection.fetch(
                self._queries["checkpoints"], self.shard, through_sequence
            )
        return [Checkpoint(row[0], row[1], row[2], tuple(row[3]), int(row[4])) for row in rows]

    async def checkpoint_parts(self, checkpoint: Checkpoint) -> AsyncGenerator[Part]:
        """Read the parts in order. Raises CheckpointDamaged where one was changed, and LedgerUnavailable."""
        async with self._bulk() as bulk, aclosing(bulk.checkpoint_parts(checkpoint)) as parts:
            async for part in parts:
                yield part

    async def keep_checkpoint(
        self, sequence: int, last_hash: str, parts: AsyncIterable[Part]
    ) -> None:
        """Write a checkpoint, whole or not at all, and keep the newest two.

        Raises Diverged where `last_hash` is not the ledger's at `sequence`, and LedgerUnavailable.
        """
        async with self._bulk(CHECKPOINT_TIMEOUT_SECONDS) as bulk:
            await bulk.keep_checkpoint(sequence, last_hash, parts)

    @asynccontextmanager
    async def _bulk(self, timeout_seconds: float = READ_TIMEOUT_SECONDS) -> AsyncGenerator[Bulk]:
        connection = None
        try:
            connection = await self._connect(timeout_seconds)
            yield Bulk(connection, self._queries, self.shard)
        except FAULTS as fault:
            raise LedgerUnavailable from fault
        finally:
            if connection is not None:
                connection.terminate()

    async def _connect(self, timeout_seconds: float = READ_TIMEOUT_SECONDS) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            self._url, timeout=CONNECT_TIMEOUT_SECONDS, command_timeout=timeout_seconds
        )
        connection.add_log_listener(self._note_warning)
        return connection

    async def _open_for_appending(self, head: Head) -> PreparedStatement:
        self._appending = await self._connect()
        if await self._server(self._appending) != head.taken_on:
            self._drop_appending()
            raise Diverged
        # A setting may have changed since the last connection was made.
        await self._keep_durable(self._appending)
        self._append = await self._appending.prepare(self._queries["append"])
        return self._append

    async def _reader(self) -> asyncpg.Connection:
        if self._reading is None or self._reading.is_closed():
            self._reading = await self._connect()
            # It raises epochs, and waits for standbys: it writes too.
            await self._keep_durable(self._reading)
        return self._reading

    async def _server(self, connection: asyncpg.Connection) -> str:
        server: str = await connection.fetchval(self._queries["server"])
        return server

    async def _keep_durable(self, connection: asyncpg.Connection) -> None:
        """Refuse a connection whose commits may be lost, and let no other setting reach this one."""
        values = await connection.fetchrow(self._queries["durability"])
        names = ("fsync", "full_page_writes", "synchronous_commit")
        settings = dict(zip(names, values or (), strict=True))
        weak = [name for name, value in settings.items() if value in {"off", "local"}]
        if weak:
            raise Unsuitable(f"Postgres must have {', '.join(weak)} on; it loses commits without.")

    @asynccontextmanager
    async def _faults_of_reading(self) -> AsyncGenerator[None]:
        async with self._reading_lock:
            try:
                yield
            except FAULTS as fault:
                self._drop_reading()
                raise LedgerUnavailable from fault

    def _drop_appending(self) -> None:
        # Waiting for a broken connection to close could take as long as the fault itself.
        if self._appending is not None:
            self._appending.terminate()
            self._doubtful.discard(self._appending)
        self._appending = self._append = None

    def _drop_reading(self) -> None:
        if self._reading is not None:
            self._reading.terminate()
            self._doubtful.discard(self._reading)
        self._reading = None

    def _note_warning(self, connection: object, message: asyncpg.PostgresLogMessage) -> None:
        # The driver says "success" for a commit whose wait for a standby was cancelled; a warning, in whatever
        # language, is all that tells. None is expected otherwise.
        if getattr(message, "severity_en", None) == "WARNING":
            self._doubtful.add(connection)

    def _require_replicated(self, connection: object) -> None:
        if connection in self._doubtful:
            raise _NotReplicatedError


def _head_of(row: asyncpg.Record | None) -> Head:
    assert row is not None, "Bug: the shard has no head"
    return Head(*row[:6])
