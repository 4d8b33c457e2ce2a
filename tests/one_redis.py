"""The server behind a client that a test has, for a gate or reads that would look for theirs."""

from redis.asyncio import Redis


class OneRedis:
    """Finds every shard on the one server; as `RedisServers`, but that the client is the test's to close."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def find(self, _shard: int) -> Redis:
        """Give the client."""
        return self._redis
