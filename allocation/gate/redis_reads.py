"""Reads the gate's records as they are, each time together with where the gate stood at that moment."""

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from allocation.errors import GateUnverified
from allocation.gate.keys import shard_keys
from allocation.gate.servers import FAULTS, RedisServers
from allocation.ports import KeyUnreadableError, Moment, Scanned

TIMEOUT_SECONDS = 5.0
# By the number of the key, which counts from 1 as the functions do: 2 to 5 are hashes.
DEADLINES_KEY, MOVES_KEY = SORTED_SETS = (6, 7)

Command = tuple[str | bytes | int, ...]


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
        return (await self._read(("PING",)))[0]

    async def records(
        self, key: int, fields: Sequence[bytes]
    ) -> tuple[Moment, list[bytes | float | None]]:
        """Read the records of some fields, None where there is none."""
        if key not in SORTED_SETS:
            return await self._read(("HMGET", self._keys[key - 1], *fields))
        moment, scores = await self._read(("ZMSCORE", self._keys[key - 1], *fields))
        return moment, [None if score is None else float(score) for score in scores]

    async def count(self, key: int) -> tuple[Moment, int]:
        """Say how many fields a key has."""
        return await self._read(("ZCARD" if key in SORTED_SETS else "HLEN", self._keys[key - 1]))

    async def scan(self, key: int, cursor: bytes, count: int) -> Scanned:
        """Read some fields, whichever there are, and where to go on; begin with no cursor.

        Every field that is there from the first call to the last is read. A sorted set is read in its order, which
        takes Redis a tenth of the time of its own scan.
        """
        if key == DEADLINES_KEY:
            return await self._scan_by_score(key, cursor or b"-inf", count)
        if key == MOVES_KEY:
            return await self._scan_by_member(key, cursor or b"-", count)
        page = ("HSCAN", self._keys[key - 1], cursor or b"0", "COUNT", count)
        moment, (following, flat) = await self._read(page)
        return Scanned(moment, b"" if following == b"0" else following, flat[::2], flat[1::2])

    async def _scan_by_score(self, key: int, least: bytes, count: int) -> Scanned:
        name, limit = self._keys[key - 1], count
        while True:
            bounds = (least, "+inf", "BYSCORE", "LIMIT", 0, limit, "WITHSCORES")
            moment, answer = await self._read(("ZRANGE", name, *bounds))
            members, scores = _members_and_scores(answer)
            if len(members) < limit:
                return Scanned(moment, b"", members, scores)
            if scores[0] != scores[-1]:
                # Those of the last score come once more, with what follows them.
                return Scanned(moment, b"%.17g" % scores[-1], members, scores)
            # All have one score, and perhaps not all of those are here.
            limit *= 2

    async def _scan_by_member(self, key: int, least: bytes, count: int) -> Scanned:
        name = self._keys[key - 1]
        page = ("ZRANGE", name, least, "+", "BYLEX", "LIMIT", 0, count)
        moment, members, present, alike = await self._read(
            page, ("ZCARD", name), ("ZCOUNT", name, 0, 0)
        )
        if present != alike:
            # Members are in order only where all scores are one, and somebody has changed some. All are read.
            everything = await self._scan_by_score(key, b"-inf", present)
            return structs.replace(everything, following=b"")
        following = b"(" + members[-1] if len(members) == count else b""
        return Scanned(moment, following, members, [0.0] * len(members))

    async def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.disconnect(nowait=True)
            await self._redis.connection_pool.release(connection)

    async def _read(self, *commands: Command) -> Any:
        """Give where the gate stands, and what each command found then."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                position, clock, *found = await self._transaction(commands)
        except FAULTS as fault:
            await self.close()
            raise GateUnverified from fault
        except BaseException:
            # The answers may still come; they must not be taken for those of the next read.
            await self.close()
            raise
        if isinstance(position, Exception) or position[0] is None:
            raise GateUnverified
        for each in found:
            if isinstance(each, Exception):
                raise KeyUnreadableError from each
        epoch, sequence, last_hash = position
        now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
        return Moment(int(epoch), int(sequence), last_hash.decode(), now_ms), *found

    async def _transaction(self, commands: Sequence[Command]) -> Any:
        # No decision comes between the position and the records. The client's own way to send a transaction
        # takes longer than all that is done with its answer.
        connection = self._connection
        if connection is None:
            self._redis = self._redis or await self._servers.find(self._shard)
            connection = self._connection = await self._redis.connection_pool.get_connection()
        sent: tuple[Command, ...] = (
            ("MULTI",),
            ("HMGET", self._keys[0], "epoch", "sequence", "hash"),
            ("TIME",),
            *commands,
            ("EXEC",),
        )
        packed = [part for each in sent for part in connection.pack_command(*each)]
        await connection.send_packed_command(b"".join(packed), check_health=False)
        for _ in sent[:-1]:
            await connection.read_response()
        return await connection.read_response()


def _members_and_scores(answer: list[Any]) -> tuple[list[bytes], list[float]]:
    """Take an answer apart: pairs in the newer protocol of Redis, each score behind its member in the older."""
    if answer and isinstance(answer[0], bytes):
        return answer[::2], list(map(float, answer[1::2]))
    return [member for member, _ in answer], [score for _, score in answer]
