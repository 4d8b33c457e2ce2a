"""Two Redis servers, of which one is in use; a failover makes it the other one, in time or with old data."""

import asyncio
import time
from typing import Any, ClassVar

from chaos.clocks import ClockedRedis
from chaos.plan import SERVICES, Fault
from chaos.proxy import Link
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.embedded.credentials import Access
from service.embedded.redis_server import RedisServer
from service.embedded.servers import EmbeddedServers

# Nothing else happens meanwhile, and a machine may be slow.
FIRST_SYNC_SECONDS_MAX = 60.0
SYNC_SECONDS_MAX = 5.0
LOOK_SECONDS = 0.05
# So many of the failovers are to a server that has followed the other one until a moment before.
FOLLOWED_SHARE = 0.6


class _OtherRedis(ClockedRedis):
    name: ClassVar[str] = "The other Redis"
    folder_name: ClassVar[str] = "redis-other"


class RedisPair:
    """The Redis in use, and the other one. Both are masters to whoever has a connection to them."""

    def __init__(self, servers: EmbeddedServers) -> None:
        assert isinstance(servers.redis, ClockedRedis)
        assert servers.placement is not None
        self.in_use: ClockedRedis = servers.redis
        access = Access(0, servers.redis.access.password)
        taken = {servers.redis.access.port}
        self._ours = _OtherRedis(servers.placement, access, taken)
        self.other: ClockedRedis = self._ours

    async def open(self) -> None:
        """Start the other one, and let it follow."""
        self.other.start()
        while not self.other.is_ready():  # noqa: ASYNC110 - a process tells nobody
            await asyncio.sleep(LOOK_SECONDS)
        assert await self._follow(FIRST_SYNC_SECONDS_MAX)

    def close(self) -> None:
        """End the one that was started here."""
        self._ours.stop()

    async def fail_over(self, links: dict[str, Link], fault: Fault) -> str:
        """Use the other one from now on, whatever it knows; connections move at once or when they are cut.

        For half of the time the other one is behind and nobody has noticed; for the rest both are in use.
        """
        followed = fault.amount < FOLLOWED_SHARE and await self._follow()
        await self._command(self.other, "REPLICAOF", "NO", "ONE")
        await asyncio.sleep(fault.seconds / 2)
        self.in_use, self.other = self.other, self.in_use
        at_once = int(fault.amount * 1_000) % (2**SERVICES)
        ways = [link for name, link in links.items() if name.endswith("redis")]
        for number, link in enumerate(ways):
            link.target_port = self.in_use.access.port
            if at_once >> number & 1:
                link.reset()
        await asyncio.sleep(fault.seconds / 2)
        for link in ways:
            link.reset()
        return f"{'followed' if followed else 'old data'}, {at_once:03b} at once"

    async def _follow(self, seconds_max: float = SYNC_SECONDS_MAX) -> bool:
        """Let the other one follow; False where it has not caught up in time."""
        password = self.in_use.access.password
        port = str(self.in_use.access.port)
        # Else a copy begins only seconds after it was asked for, in the hope of more who ask.
        await self._command(self.in_use, "CONFIG", "SET", "repl-diskless-sync-delay", "0")
        await self._command(self.other, "CONFIG", "SET", "masterauth", password)
        await self._command(self.other, "REPLICAOF", "127.0.0.1", port)
        deadline = time.monotonic() + seconds_max
        while time.monotonic() < deadline:
            known = await self._command(self.other, "INFO", "replication")
            if known and known["role"] == "slave" and known["master_link_status"] == "up":
                return True
            await asyncio.sleep(LOOK_SECONDS)
        return False

    async def _command(self, server: RedisServer, *words: str) -> Any:
        """Send a command, to a server that may be unable to answer it."""
        redis: Any = Redis.from_url(server.url)
        try:
            return await redis.execute_command(*words)
        except (RedisError, OSError):
            return None
        finally:
            await redis.aclose()
