"""Whether the servers that the settings name can keep the promise; asked once, before anything is done."""

from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from allocation.gate.servers import RedisServers
from allocation.ledger.queries import named_queries
from service.embedded.errors import StartError

REDIS_VERSION_MIN = (7, 0)
POSTGRES_VERSION_MIN = 15
CONNECT_SECONDS_MAX = 5.0
# In the order in which the query of the ledger gives them.
DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")
REDIS_PORT, POSTGRES_PORT = 6379, 5432


async def require_suitable(redis_url: str, database_url: str) -> bool:
    """Stop the start, with a sentence, where a server is away, too old, or would lose what was promised.

    Says whether the Redis is a cluster.
    """
    is_cluster = await require_suitable_redis(redis_url)
    await require_suitable_postgres(database_url)
    return is_cluster


async def require_suitable_redis(redis_url: str) -> bool:
    """Look at the Redis alone, at every server that may come to hold a shard; says whether it is a cluster."""
    try:
        servers = RedisServers(redis_url)
    except ValueError as error:
        raise StartError(f"RINGFENCE_REDIS_URL cannot be understood: {error}.") from None
    try:
        found = await _told_by_all(await servers.all())
    finally:
        await servers.close()
    for place, told in found.items():
        _require_suitable_server(place, told)
    if not any(told["cluster_enabled"] or told["role"] == "master" for told in found.values()):
        first, *others = found
        raise StartError(
            f"None of {', '.join(found)} is a master; name it too."
            if others
            else f"{first} is a replica; name its master."
        )
    return any(told["cluster_enabled"] for told in found.values())


async def _told_by_all(servers: dict[str, Redis]) -> dict[str, dict[str, Any]]:
    """Give what each server tells of itself; one that is away is no fault as long as another is there."""
    found: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    for url, redis in servers.items():
        place = f"Redis at {_place(url, REDIS_PORT)}"
        # The client's own types do not say what its commands give.
        server = cast("Any", redis)
        try:
            told: dict[str, Any] = await server.info()
            if told["cluster_enabled"]:
                told |= await server.execute_command("CLUSTER INFO")
        except (RedisError, OSError) as error:
            faults.append(f"{place} cannot be used: {_ended(error)}")
        else:
            found[place] = told
    if not found:
        raise StartError(" ".join(faults))
    return found


def _require_suitable_server(place: str, told: dict[str, Any]) -> None:
    version = tuple(int(part) for part in str(told["redis_version"]).split(".")[:2])
    if version < REDIS_VERSION_MIN:
        raise StartError(f"{place} is version {told['redis_version']}; it must be 7.0 or newer.")
    policy = told["maxmemory_policy"]
    if policy != "noeviction":
        raise StartError(
            f"{place} has maxmemory-policy {policy} and would drop stock when it is full; "
            f"it must be noeviction."
        )
    if told.get("cluster_state", "ok") != "ok":
        raise StartError(
            f"{place} is of a cluster that serves nothing now: "
            f"its cluster_state is {told['cluster_state']}."
        )


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
