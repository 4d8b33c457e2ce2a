"""Reads the gate's records as they are, each time together with where the gate stood at that moment."""

import asyncio
from collections.abc import Sequence
from typing import Any

from allocation.errors import GateUnverified
from allocation.gate.keys import shard_keys
from allocation.gate.servers import FAULTS, RedisServers
from allocation.ports import KeyUnreadableError, Moment

TIMEOUT_SECONDS = 5.0
# By the number of the key, which counts from 1 as the functions do: 2 to 5 are hashes.
SORTED_SETS = (6, 7)


class RedisReads:
    """Reads of one shard on a connection of its own, to the server that holds it when the reads begin.

    Raises GateUnverified for every fault of the server, and KeyUnreadableError for a key of another kind.

    A sorted set gives scores for records.
    """

    def __init__(self, servers: RedisServers, shard: int) -> None:
        self._servers, self._shard = servers, shard
        # The client annotates answers as bytes, text or nothing; what a call gives is said where it is made.
        self._redis: Any = None
        self._keys = shard_keys(shard)
        self._connection: Any = None

    async def moment(self) -> Moment:
        """Say where the gate stands, and read there from now on.

        Raises GateUnverified also where it has no state, as all of these do.
        """
        redis = await self._servers.find(self._shard)
        if redis is not self._redis:
            await self.close()
            self._redis = redis
        return (await self._read("PING"))[0]

    async def records(
        self, key: int, fields: Sequence[bytes]
    ) -> tuple[Moment, list[bytes | float | None]]:
        """Read the records of some fields, None where there is none."""
        if key not in SORTED_SETS:
            return await self._read("HMGET", self._keys[key - 1], *fields)
        moment, scores = await self._read("ZMSCORE", self._keys[key - 1], *fields)
        return moment, [None if score is None else float(score) for score in scores]

    async def count(self, key: int) -> tuple[Moment, int]:
        """Say how many fields a key has."""
        return await self._read("ZCARD" if key in SORTED_SETS else "HLEN", self._keys[key - 1])

    async def scan(self, key: int, cursor: int, count: int) -> tuple[Moment, int, list[bytes]]:
        """Read some fields, whichever there are: each with its record after it, or its score as a text.

        Gives the cursor that continues too; it is 0 when all were read.
        """
        command = "ZSCAN" if key in SORTED_SETS else "HSCAN"
        moment, (following, flat) = await self._read(
            command, self._keys[key - 1], cursor, "COUNT", count
        )
        return moment, int(following), flat

    async def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.disconnect(nowait=True)
            await self._redis.connection_pool.release(connection)

    async def _read(self, *command: str | bytes | int) -> Any:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                position, clock, found = await self._transaction(command)
        except FAULTS as fault:
            await self.close()
            raise GateUnverified from fault
        except BaseException:
            # The answers may still come; they must not be taken for those of the next read.
            await self.close()
            raise
        if isinstance(position, Exception) or position[0] is None:
            raise GateUnverified
        if isinstance(found, Exception):
            raise KeyUnreadableError from found
        epoch, sequence, last_hash = position
        now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
        moment = Moment(int(epoch), int(sequence), last_hash.decode(), now_ms)
        return moment, found

    async def _transaction(self, command: Sequence[str | bytes | int]) -> Any:
        # No decision comes between the position and the records. The client's own way to send a transaction
        # takes longer than all that is done with its answer.
        connection = self._connection
        if connection is None:
            self._redis = self._redis or await self._servers.find(self._shard)
            connection = self._connection = await self._redis.connection_pool.get_connection()
        commands = (
            ("MULTI",),
            ("HMGET", self._keys[0], "epoch", "sequence", "hash"),
            ("TIME",),
            command,
            ("EXEC",),
        )
        packed = [part for each in commands for part in connection.pack_command(*each)]
        await connection.send_packed_command(b"".join(packed), check_health=False)
        for _ in commands[:-1]:
            await connection.read_response()
        return await connection.read_response()
