"""Which Redis holds a shard now: the one that is named, the master of several, or the owner of a cluster's slot.

Nothing rests on the choice but how soon the shard sells again. Two servers may say that they hold it, and two
processes may believe different ones: the fence in each call and the head of the ledger let one history win.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError

from allocation.errors import GateUnverified
from allocation.gate.cluster import ClusterView, Node
from allocation.gate.keys import shard_keys

SOCKET_TIMEOUT_SECONDS = 5.0
# A server that takes longer to say what it is counts as away; another one may be the master by now.
LOOK_SECONDS = 1.0
# uvloop has no better word than RuntimeError for a connection that was closed under the client.
FAULTS = (RedisError, OSError, TimeoutError, RuntimeError)

Seen = TypeVar("Seen")


def connect(redis_url: str) -> Redis:
    """Make a client that never sends a call twice by itself: a call that timed out may have been decided."""
    client: Redis = cast(Any, Redis).from_url(
        redis_url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
        single_connection_client=False,
        decode_responses=False,
    )
    return client


def server_urls(redis_url: str) -> list[str]:
    """Give one URL for each server that a URL names, with commas between them; the rest holds for all."""
    parts = urlsplit(redis_url)
    user, at, named = parts.netloc.rpartition("@")
    if "," not in named:
        return [redis_url]
    return [
        urlunsplit(parts._replace(netloc=f"{user}{at}{address}")) for address in named.split(",")
    ]


async def read_newest_epoch(redis: Redis, shard: int) -> int:
    """Give the highest epoch that has opened a shard there or begun to load it; 0 for none."""
    epochs = await cast(Any, redis).hmget(shard_keys(shard)[0], ["epoch", "loading"])
    return max(int(epoch or 0) for epoch in epochs)


class RedisServers:
    """The servers behind one URL, with a client for each. Raises ValueError for a URL that names none."""

    def __init__(self, redis_url: str) -> None:
        self._named = server_urls(redis_url)
        self._clients = {url: connect(url) for url in self._named}
        # The nodes of a cluster that one of them has told of last: those that are named may all go one day.
        self._announced: list[str] = []
        self._used: dict[int, str] = {}

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose()

    async def find(self, shard: int) -> Redis:
        """Give a client of the server that holds a shard now. Raises GateUnverified where none says so."""
        if self._announced:
            holders = await self._owner(shard)
        else:
            looks = await asyncio.gather(*map(self._look, self._named))
            seen = dict(zip(self._named, looks, strict=True))
            if any(look is not None and look["cluster_enabled"] for look in looks):
                holders = await self._owner(shard)
            else:
                holders = [url for url, look in seen.items() if look and look["role"] == "master"]
        if not holders:
            raise GateUnverified
        url = holders[0] if len(holders) == 1 else await self._latest(shard, holders)
        self._used[shard] = url
        return self._client(url)

    async def all(self) -> dict[str, Redis]:
        """Give every server that may come to hold a shard, by URL: those named, and their cluster's nodes."""
        for url in self._named:
            view = await self._view(url)
            if view is not None:
                self._announced = self._urls(view)
                break
        return {url: self._client(url) for url in self._announced or self._named}

    async def _latest(self, shard: int, masters: list[str]) -> str:
        """Choose among several masters: where the shard was taken over last, so that all processes meet there.

        Where that is the same, as after a promotion that nobody has noticed, the one in use stays in use.
        """
        epochs = await asyncio.gather(
            *(_seen(read_newest_epoch(self._client(url), shard)) for url in masters)
        )
        newest = max(epoch or 0 for epoch in epochs)
        latest = [url for url, epoch in zip(masters, epochs, strict=True) if (epoch or 0) == newest]
        used = self._used.get(shard)
        return used if used in latest else latest[0]

    async def _owner(self, shard: int) -> list[str]:
        """Find the node of a cluster that says itself that it has the shard's slot, and can serve it.

        What others say of it may be old, so it is asked; what it says of others may be older still.
        """
        slot = key_slot(shard_keys(shard)[0].encode())
        views: dict[str, ClusterView | None] = {}
        for url in dict.fromkeys(
            filter(None, (self._used.get(shard), *self._announced, *self._named))
        ):
            told = views[url] = views[url] if url in views else await self._view(url)
            owner = told and told.owner(slot)
            if told is None or owner is None:
                continue
            self._announced = self._urls(told)
            owner_url = self._url_of(owner)
            if owner_url not in views:
                views[owner_url] = await self._view(owner_url)
            itself = views[owner_url]
            if itself is not None and itself.serves(slot):
                return [owner_url]
        return []

    async def _look(self, url: str) -> dict[str, Any] | None:
        """Ask a server what it is; None where it does not say."""
        redis = cast(Any, self._client(url))
        return await _seen(redis.info("replication", "cluster"))

    async def _view(self, url: str) -> ClusterView | None:
        """Ask a node for its view of the cluster; None where there is no node, or no cluster."""
        return await _seen(ClusterView.ask(self._client(url), urlsplit(url).hostname or ""))

    def _client(self, url: str) -> Redis:
        if url not in self._clients:
            self._clients[url] = connect(url)
        return self._clients[url]

    def _urls(self, view: ClusterView) -> list[str]:
        return [self._url_of(node) for node in view.nodes]

    def _url_of(self, node: Node) -> str:
        parts = urlsplit(self._named[0])
        user, at, _ = parts.netloc.rpartition("@")
        host = f"[{node.host}]" if ":" in node.host else node.host
        return urlunsplit(parts._replace(netloc=f"{user}{at}{host}:{node.port}"))


async def _seen(asking: Awaitable[Seen]) -> Seen | None:
    """Wait a moment for an answer; None where none comes."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await asking
    except FAULTS:
        return None
