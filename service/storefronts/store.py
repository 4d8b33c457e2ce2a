"""Storefronts in Postgres, and what each of them has heard."""

from datetime import datetime

import asyncpg
from msgspec import Struct

from allocation.ledger.queries import named_queries

CLAIM_SECONDS = 20.0
RETRY_SECONDS = 1.0
RETRY_SECONDS_MAX = 3_600.0
DELTAS_PER_STEP = 5_000


class Registered(Struct, frozen=True):
    """An active storefront; `delta_id` None: every figure is still to be taken over."""

    name: str
    channel: str
    url: str
    secret: str
    revision: int
    delta_id: int | None
    paused: bool
    last_id: int | None
    pruned_id: int | None

    def __repr__(self) -> str:
        return f"Registered({self.name!r})"  # A secret must not get into a log by way of a message.


class Claim(Struct, frozen=True):
    """A figure that nobody else pushes until `claimed_until`."""

    sku: str
    available: int
    version: int
    changed_at_ms: int
    claimed_until: datetime


class StorefrontStore:
    """The storefronts of all channels."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._queries = named_queries("service.storefronts")

    async def put(
        self, name: str, channel: str, url: str, made_secret: str, given_secret: str | None
    ) -> bool:
        """Create or replace a storefront; True where it is new, and then has the secret made for it."""
        async with self._pool.acquire() as connection, connection.transaction():
            revision: int = await connection.fetchval(
                self._queries["put"], name, channel, url, made_secret, given_secret
            )
            await connection.execute(self._queries["forget_deliveries"], name)
        return revision == 1

    async def delete(self, name: str) -> bool:
        """Forget a storefront; False where there is none."""
        return await self._pool.execute(self._queries["delete"], name) == "DELETE 1"

    async def all(self, name: str | None = None) -> list[asyncpg.Record]:
        """List storefronts with what they have heard, without their secrets."""
        return await self._pool.fetch(self._queries["list"], name)

    async def active(self) -> list[Registered]:
        """List those that want to hear."""
        return [Registered(*row) for row in await self._pool.fetch(self._queries["active"])]

    async def take_over(self, storefront: Registered) -> int:
        """Let a storefront hear what its channel has published; says of how many SKUs."""
        since, last_id = storefront.delta_id, storefront.last_id
        if last_id is None or since == last_id:
            return 0
        if since is None or since < (storefront.pruned_id or 0):
            tag = await self._pool.execute(
                self._queries["take_all"], storefront.name, storefront.channel, since
            )
        else:
            tag = await self._pool.execute(
                self._queries["take_deltas"],
                storefront.name,
                storefront.channel,
                since,
                min(last_id, since + DELTAS_PER_STEP),
            )
        return int(tag.rpartition(" ")[2])

    async def claim(self, name: str, limit: int) -> list[Claim]:
        """Take figures that are due, so that no other process pushes them meanwhile."""
        rows = await self._pool.fetch(self._queries["claim"], name, limit, CLAIM_SECONDS)
        return [Claim(*row) for row in rows]

    async def delivered(self, name: str, claim: Claim) -> None:
        """Record that a figure was delivered."""
        await self._pool.execute(
            self._queries["delivered"], name, claim.sku, claim.version, claim.claimed_until
        )

    async def failed(
        self, name: str, claim: Claim, reason: str, after_seconds: float | None
    ) -> None:
        """Record that a figure was not delivered, and leave the storefront alone for as long as it asked."""
        await self._pool.execute(
            self._queries["failed"],
            name,
            claim.sku,
            claim.claimed_until,
            reason,
            after_seconds,
            RETRY_SECONDS,
            RETRY_SECONDS_MAX,
        )
        if after_seconds is not None:
            await self._pool.execute(self._queries["pause"], name, after_seconds)

    async def end(self, storefront: Registered, reason: str) -> None:
        """Push nothing more to a storefront until it is set again."""
        await self._pool.execute(self._queries["end"], storefront.name, storefront.revision, reason)
