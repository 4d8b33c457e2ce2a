"""Claims in Postgres: those that are made while an insert is under way go together in the next one.

A claim is no part of the ledger. Where a promoted standby lacks one, the shards still tell what they have.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime

import asyncpg
from msgspec import Struct, structs

from allocation.errors import LedgerUnavailable
from allocation.ledger.postgres_ledger import FAULTS
from allocation.ledger.queries import named_queries
from allocation.shards.claims import Claim

TIMEOUT_SECONDS = 5.0
# Claims this late are refused before anything is decided, as where the ledger is behind.
LAG_SECONDS_MAX = 0.25
# Longer than every answer may take: until then, whoever made the claim is still at work on it.
SETTLE_SECONDS = 10.0
CLAIMS_PER_INSERT_MAX = 512
# How long what needs no more looking after may wait to be written.
SETTLED_WRITE_SECONDS = 0.2


class _Waiting(Struct, frozen=True):
    wanted: Claim
    standing: "asyncio.Future[tuple[Claim, bool]]"
    since: float


class PostgresClaims:
    """The claims of all processes."""

    def __init__(self, pool: asyncpg.Pool, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._pool, self._settle_seconds = pool, settle_seconds
        self._queries = named_queries("allocation.shards")
        self._waiting: list[_Waiting] = []
        self._inserting: asyncio.Task[None] | None = None
        # Since when the oldest of what is being inserted waits.
        self._since = 0.0
        self._settled: dict[str, datetime] = {}
        self._writing: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """End what is under way. What was not told to be settled is looked at once more than it needs to be."""
        for task in (self._inserting, self._writing):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    @property
    def lag_seconds(self) -> float:
        """For how long the oldest claim has waited to be made."""
        return time.monotonic() - self._since if self._since else 0.0

    async def claim(self, wanted: Claim) -> tuple[Claim, bool]:
        """Make a claim; give the one that stands, and whether it is this one. Raises LedgerUnavailable."""
        if self.lag_seconds > LAG_SECONDS_MAX:
            raise LedgerUnavailable
        standing: asyncio.Future[tuple[Claim, bool]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(wanted, standing, time.monotonic()))
        if self._inserting is None:
            self._inserting = asyncio.create_task(self._insert_all())
        return await standing

    async def find(self, key: str) -> Claim | None:
        """Give the claim for a key. Raises LedgerUnavailable."""
        return (await self._find([key])).get(key)

    async def drop(self, claim: Claim) -> None:
        """Forget a claim that came to nothing. Raises LedgerUnavailable."""
        await self._ask("drop", claim.key, claim.fingerprint)

    async def put(self, claim: Claim) -> None:
        """Say which shards a key is on, where its claim said otherwise or was lost. Raises LedgerUnavailable."""
        await self._ask("put", claim.key, claim.fingerprint, claim.shards, claim.request)

    async def expect(self, claim: Claim) -> Claim:
        """Have somebody look in a while whether all shards of a claim agree; give the claim with that time.

        Raises LedgerUnavailable.
        """
        rows = await self._ask("expect", claim.key, self._settle_seconds)
        return structs.replace(claim, settle_at=rows[0][0] if rows else None)

    def settled(self, claim: Claim) -> None:
        """Say, at leisure, that they do. A look that others have asked for since is not called off."""
        if claim.settle_at is None:
            return
        self._settled[claim.key] = claim.settle_at
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_settled())

    async def take_unsettled(self, limit: int) -> Sequence[Claim]:
        """Give claims that nobody has settled in time; nobody else is given them for a while."""
        return await self._claims("take_unsettled", limit, self._settle_seconds)

    async def take_unseen(self, limit: int, seconds: float) -> Sequence[Claim]:
        """Give claims that nobody has looked at for so long; they may be needed no more."""
        return await self._claims("take_unseen", limit, seconds)

    async def _insert_all(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[:CLAIMS_PER_INSERT_MAX]
                del self._waiting[:CLAIMS_PER_INSERT_MAX]
                self._since = batch[0].since
                await self._insert(batch)
        finally:
            self._inserting, self._since = None, 0.0
            _fail(self._waiting)
            self._waiting.clear()

    async def _insert(self, batch: list[_Waiting]) -> None:
        # In one order everywhere, so that two inserts never wait for each other in a circle.
        wanted = {waiting.wanted.key: waiting.wanted for waiting in reversed(batch)}
        claims = [wanted[key] for key in sorted(wanted)]
        try:
            rows = await self._ask(
                "claim",
                [claim.key for claim in claims],
                [claim.fingerprint for claim in claims],
                [".".join(map(str, claim.shards)) for claim in claims],
                [claim.request for claim in claims],
                self._settle_seconds,
            )
            made = {key: structs.replace(wanted[key], settle_at=at) for key, at in rows}
            standing = made | await self._find([key for key in wanted if key not in made])
        except LedgerUnavailable:
            _fail(batch)
            return
        for waiting in batch:
            claim = standing.get(waiting.wanted.key)
            if claim is None:
                # It was dropped between the two statements.
                _fail([waiting])
            elif not waiting.standing.done():
                is_own = waiting.wanted is wanted[claim.key] and claim.key in made
                waiting.standing.set_result((claim, is_own))

    async def _write_settled(self) -> None:
        try:
            while self._settled:
                await asyncio.sleep(SETTLED_WRITE_SECONDS)
                done, self._settled = sorted(self._settled.items()), {}
                # What is not written is looked at once more than it needs to be.
                keys, times = [key for key, _ in done], [settle_at for _, settle_at in done]
                await self._ask("settled", keys, times)
        except LedgerUnavailable:
            return
        finally:
            self._writing = None

    async def _find(self, keys: Sequence[str]) -> dict[str, Claim]:
        found = await self._claims("find", keys) if keys else []
        return {claim.key: claim for claim in found}

    async def _claims(self, query: str, *arguments: object) -> list[Claim]:
        rows = await self._ask(query, *arguments)
        return [Claim(row[0], row[1], tuple(row[2]), row[3], int(row[4]), row[5]) for row in rows]

    async def _ask(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        try:
            connection = await self._pool.acquire(timeout=TIMEOUT_SECONDS)
            try:
                rows = await connection.fetch(
                    self._queries[query], *arguments, timeout=TIMEOUT_SECONDS
                )
            except BaseException:
                # To give it back would wait until a server that says nothing has called the query off.
                connection.terminate()
                raise
            finally:
                await self._pool.release(connection)
        except FAULTS as fault:
            raise LedgerUnavailable from fault
        return rows


def _fail(waiting: list[_Waiting]) -> None:
    for each in waiting:
        if not each.standing.done():
            each.standing.set_exception(LedgerUnavailable())
