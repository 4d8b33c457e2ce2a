"""Whether the servers that the settings name can keep the promise; asked once, before anything is done."""

from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
from redis.exceptions import RedisError

from allocation.gate.redis_gate import connect
from allocation.ledger.queries import named_queries
from service.embedded.errors import StartError

REDIS_VERSION_MIN = (7, 0)
POSTGRES_VERSION_MIN = 15
CONNECT_SECONDS_MAX = 5.0
# In the order in which the query of the ledger gives them.
DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")
REDIS_PORT, POSTGRES_PORT = 6379, 5432


async def require_suitable(redis_url: str, database_url: str) -> None:
    """Stop the start, with a sentence, where a server is away, too old, or would lose what was promised."""
    await require_suitable_redis(redis_url)
    await require_suitable_postgres(database_url)


async def require_suitable_redis(redis_url: str) -> None:
    """Look at the Redis alone."""
    place = f"Redis at {_place(redis_url, REDIS_PORT)}"
    try:
        # The client's own types do not say what its commands give.
        redis = cast("Any", connect(redis_url))
    except ValueError as error:
        raise StartError(f"RINGFENCE_REDIS_URL cannot be understood: {error}.") from None
    try:
        found: dict[str, Any] = await redis.info()
    except (RedisError, OSError) as error:
        raise StartError(f"{place} cannot be used: {_ended(error)}") from None
    finally:
        await redis.aclose()
    version = tuple(int(part) for part in str(found["redis_version"]).split(".")[:2])
    if version < REDIS_VERSION_MIN:
        raise StartError(f"{place} is version {found['redis_version']}; it must be 7.0 or newer.")
    policy = found["maxmemory_policy"]
    if policy != "noeviction":
        raise StartError(
            f"{place} has maxmemory-policy {policy} and would drop stock when it is full; "
            f"it must be noeviction."
        )
    if found["role"] != "master":
        raise StartError(f"{place} is a replica; name its master.")


async def is_cluster(redis_url: str) -> bool:
    """Say whether a suitable Redis is a node of a Redis Cluster."""
    redis = cast("Any", connect(redis_url))
    try:
        return bool((await redis.info("cluster"))["cluster_enabled"])
    finally:
        await redis.aclose()


async def require_suitable_postgres(database_url: str) -> None:
    """Look at the PostgreSQL alone."""
    place = f"PostgreSQL at {_place(database_url, POSTGRES_PORT)}"
    try:
        connection = await asyncpg.connect(database_url, timeout=CONNECT_SECONDS_MAX)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StartError(f"{place} cannot be used: {_ended(error)}") from None
    try:
        version = connection.get_server_version()
        if version.major < POSTGRES_VERSION_MIN:
            raise StartError(f"{place} is version {version.major}; it must be 15 or newer.")
        if await connection.fetchval("SELECT pg_is_in_recovery()"):
            raise StartError(f"{place} is a standby; name its primary.")
        row = await connection.fetchrow(named_queries("allocation.ledger")["durability"])
        found = zip(DURABILITY, row or (), strict=True)
        weak = [name for name, value in found if value in {"off", "local"}]
        if weak:
            raise StartError(
                f"{place} has {' and '.join(weak)} off and would lose what it has confirmed; "
                f"it must be on."
            )
    finally:
        await connection.close()


def _place(url: str, port: int) -> str:
    """Say where a server is, without the password that its URL may hold."""
    parts = urlsplit(url)
    try:
        return f"{parts.hostname or 'localhost'}:{parts.port or port}"
    except ValueError:
        return parts.hostname or "localhost"


def _ended(error: Exception) -> str:
    text = str(error) or ("it does not answer" if isinstance(error, TimeoutError) else "no answer")
    return text.splitlines()[0].rstrip(".") + "."
