"""API keys: who may do what. Only hashes are stored; the key itself is shown once."""

import hashlib
import secrets
import zlib
from collections.abc import Iterable

import asyncpg
from msgspec import Struct

from allocation.ledger.queries import named_queries

SCOPES = ("reserve", "movements", "read", "admin")
PREFIX = "rf"


class Principal(Struct, frozen=True):
    """Who calls. `channels` empty means every channel."""

    key_id: str
    scopes: frozenset[str]
    channels: frozenset[str]

    def may(self, *scopes: str) -> bool:
        """Say whether this key has one of some rights; `admin` has them all."""
        return "admin" in self.scopes or not self.scopes.isdisjoint(scopes)

    def may_sell_on(self, channel: str) -> bool:
        """Say whether this key may act for a channel."""
        return not self.channels or channel in self.channels


class NewKey(Struct, frozen=True):
    """A key as it is shown, once, to whoever asked for it."""

    key_id: str
    text: str


def make_key() -> NewKey:
    """Make up a key: prefix, id, secret of 32 random bytes, checksum against mistyping."""
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    text = f"{PREFIX}_{key_id}_{secret}"
    return NewKey(key_id, f"{text}{zlib.crc32(text.encode()):08x}")


def digest_of(text: bytes) -> bytes:
    """Hash a key. It has 256 random bits, so one fast hash is enough."""
    return hashlib.sha256(text).digest()


class KeyStore:
    """The keys in Postgres."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._queries = named_queries("service")

    async def add(self, name: str, scopes: Iterable[str], channels: Iterable[str]) -> NewKey:
        """Make and store a key."""
        key = make_key()
        await self._pool.execute(
            self._queries["add_key"],
            key.key_id,
            digest_of(key.text.encode()),
            name,
            sorted(set(scopes)),
            sorted(set(channels)),
        )
        return key

    async def revoke(self, key_id: str) -> bool:
        """End a key; False where there is no live key of that id."""
        return await self._pool.execute(self._queries["revoke_key"], key_id) == "UPDATE 1"

    async def all(self) -> list[asyncpg.Record]:
        """List every key, without its hash."""
        return await self._pool.fetch(self._queries["list_keys"])

    async def live(self) -> dict[bytes, Principal]:
        """Read the live keys, by hash."""
        rows = await self._pool.fetch(self._queries["live_keys"])
        return {
            row["secret_hash"]: Principal(
                row["key_id"], frozenset(row["scopes"]), frozenset(row["channels"])
            )
            for row in rows
        }


class KeyRing:
    """The live keys in memory, as the requests look them up."""

    def __init__(self, development_key: str | None = None) -> None:
        self._keys: dict[bytes, Principal] = {}
        self._development: dict[bytes, Principal] = {}
        if development_key is not None:
            principal = Principal("development", frozenset({"admin"}), frozenset())
            self._development[digest_of(development_key.encode())] = principal

    def replace(self, keys: dict[bytes, Principal]) -> None:
        """Take over what the store has now."""
        self._keys = keys | self._development

    def find(self, text: bytes) -> Principal | None:
        """Find who a key belongs to.

        The look-up is by the hash of what was sent: how long it takes says nothing about any stored key.
        """
        return self._keys.get(digest_of(text))
