"""Who may send movements signed: the sources in Postgres, and in memory as the requests look them up."""

import base64
import secrets
from collections.abc import Mapping
from enum import Enum

import asyncpg
from msgspec import Struct

from allocation.ledger.queries import named_queries
from service.warehouses.adapters import ADAPTERS
from service.warehouses.port import Warehouse

SECRET_PREFIX = "whsec_"  # noqa: S105 - what every secret begins with
SECRET_BYTES = 32
DEFAULT_ADAPTER = "canonical"


class Source(Struct, frozen=True):
    """One source: who reads its deliveries, and the one or two secrets that it may sign with."""

    name: str
    warehouse: Warehouse
    secrets: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Source({self.name!r}, {len(self.secrets)} secrets)"


class Rotation(Enum):
    """What became of a wish to rotate."""

    ROTATED = 1
    UNKNOWN_SOURCE = 2
    TWO_SECRETS_ALREADY = 3


def make_secret() -> str:
    """Make up a secret as Standard Webhooks writes them."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


class SourceStore:
    """The sources in Postgres."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._queries = named_queries("service.warehouses")

    async def add(self, name: str) -> str | None:
        """Store a source and give its secret; None where there is one of that name."""
        secret = make_secret()
        tag = await self._pool.execute(self._queries["add_source"], name, DEFAULT_ADAPTER, secret)
        return secret if tag == "INSERT 0 1" else None

    async def rotate(self, name: str) -> tuple[Rotation, str]:
        """Give a source a second secret; the one until now stays valid until `retire`."""
        secret = make_secret()
        tag = await self._pool.execute(self._queries["rotate_source"], name, secret)
        if tag == "UPDATE 1":
            return Rotation.ROTATED, secret
        known = {row["name"] for row in await self.all()}
        return (Rotation.TWO_SECRETS_ALREADY if name in known else Rotation.UNKNOWN_SOURCE), ""

    async def retire(self, name: str) -> bool:
        """End the older secret of a source; False where it has none."""
        return await self._pool.execute(self._queries["retire_source"], name) == "UPDATE 1"

    async def all(self) -> list[asyncpg.Record]:
        """List every source, without its secrets."""
        return await self._pool.fetch(self._queries["list_sources"])

    async def live(self) -> dict[str, Source]:
        """Read the sources, by name."""
        rows = await self._pool.fetch(self._queries["live_sources"])
        return {row["name"]: _source(row) for row in rows}


class SourceRing:
    """The sources in memory."""

    def __init__(self) -> None:
        # An unknown source costs as much as a known one whose signature is wrong, and learns as much.
        self._nobody = Source("", ADAPTERS[DEFAULT_ADAPTER], (make_secret(),))
        self._sources: Mapping[str, Source] = {}

    def replace(self, sources: Mapping[str, Source]) -> None:
        """Take over what the store has now."""
        self._sources = sources

    def find(self, name: str) -> Source:
        """Find a source; for an unknown name, one whose secret nobody has."""
        return self._sources.get(name, self._nobody)


def _source(row: asyncpg.Record) -> Source:
    known = [secret for secret in (row["secret"], row["older_secret"]) if secret is not None]
    return Source(row["name"], ADAPTERS[row["adapter"]], tuple(known))
