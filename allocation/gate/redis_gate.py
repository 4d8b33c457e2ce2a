"""The gate on Redis: sends a batch of commands as one function call, and loads verified state."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from allocation.commands import Command
from allocation.errors import Fenced, GateUnverified, Unsuitable
from allocation.gate.clock import GateClock
from allocation.gate.keys import shard_keys
from allocation.gate.scripts import library, version
from allocation.gate.servers import (
    FAULTS,
    SOCKET_TIMEOUT_SECONDS,
    RedisServers,
    read_newest_epoch,
)
from allocation.outcomes import Status
from allocation.ports import Batch, BatchHead, Decision, Identity

OVERDUE_PER_CALL_MAX = 128
# Redis says these before it runs a function: the shard is elsewhere, or on its way, or not to be written here.
NOTHING_RUN = (
    MovedError,
    AskError,
    TryAgainError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    BusyLoadingError,
)

_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(BatchHead).decode
_decode_decisions = msgspec.msgpack.Decoder(list[Decision]).decode


class RedisGate:
    """The gate of one shard. Raises GateUnverified for every fault of the server or the way to it.

    The server is looked for whenever the gate is prepared, and at no other time: all calls between two
    verifications go to one server.
    """

    def __init__(
        self,
        servers: RedisServers,
        shard: int,
        reservation_retention_ms: int,
        event_retention_ms: int,
        clock: GateClock | None = None,
    ) -> None:
        self.shard = shard
        self.clock = clock or GateClock()
        self._servers = servers
        # The client annotates answers as bytes, text or nothing; what a call gives is said where it is made.
        self._redis: Any = None
        self._keys = shard_keys(shard)
        self._retention = (reservation_retention_ms, event_retention_ms)
        self._call = ("FCALL", f"batch_{version()}", len(self._keys), *self._keys)
        # The client's way through its pool, its retries and a timer for each step takes longer than the call.
        self._deciding: Any = None
        self._turn = asyncio.Lock()

    async def prepare(self) -> Identity:
        """Find the server, load the functions, check its settings, and say who it is."""
        try:
            redis = await self._move_to(await self._servers.find(self.shard))
            await redis.function_load(library(), replace=True)
            # A slot on its way to another node refuses calls that name all keys, though not those of one key.
            await redis.exists(*self._keys)
            found = await redis.info("memory", "server", "replication")
            seconds, microseconds = await redis.time()
        except FAULTS as fault:
            raise GateUnverified from fault
        _require_noeviction(found)
        if found["role"] != "master":
            raise GateUnverified
        self.clock.begin(seconds * 1_000 + microseconds // 1_000)
        return Identity(found["run_id"], found["master_replid"])

    async def _move_to(self, redis: Any) -> Any:
        if redis is not self._redis:
            await self._drop_deciding()
            self._redis = redis
        return redis

    async def _server(self) -> Any:
        """Give the server that was found last; a gate that is only read may never have been prepared."""
        if self._redis is None:
            self._redis = await self._servers.find(self.shard)
        return self._redis

    async def memory_share(self) -> float:
        """Say how full the memory is that Redis may use; 0 where it has no limit.

        Raises Unsuitable where Redis has been told meanwhile to drop what it holds.
        """
        try:
            memory: dict[str, Any] = await (await self._server()).info("memory")
        except FAULTS as fault:
            raise GateUnverified from fault
        _require_noeviction(memory)
        return memory["used_memory"] / memory["maxmemory"] if memory["maxmemory"] else 0.0

    async def decide(
        self,
        epoch: int,
        identity: Identity,
        commands: Sequence[Command | msgspec.Raw],
        durable_sequence: int,
    ) -> Batch:
        """Decide commands in order.

        Raises Fenced where nothing was decided, and GateUnverified where the outcome is not known.
        """
        try:
            header, answers, entries = await self._decide_on_own_connection(
                *self._call,
                epoch,
                identity.run_id,
                identity.replication_id,
                _encode(commands),
                durable_sequence,
                OVERDUE_PER_CALL_MAX,
                *self._retention,
                *self.clock.bounds(),
            )
        except NOTHING_RUN as error:
            raise Fenced from error
        except ResponseError as error:
            # Redis itself refused the journal entry: a newer epoch has written. Nothing was changed.
            if "XADD" in str(error):
                raise Fenced from error
            raise GateUnverified from error
        except FAULTS as fault:
            raise GateUnverified from fault
        head = _decode_head(header)
        if head.status is not Status.DECIDED:
            raise Fenced
        self.clock.note(head.clock_ms, head.now_ms)
        return Batch(head, _decode_decisions(answers), entries)

    async def _decide_on_own_connection(self, *parts: str | bytes | int) -> Any:
        async with self._turn, asyncio.timeout(SOCKET_TIMEOUT_SECONDS):
            self._deciding = self._deciding or await self._connection()
            self._deciding.socket_timeout = None
            try:
                packed = self._deciding.pack_command(*parts)
                await self._deciding.send_packed_command(packed, check_health=False)
                return await self._deciding.read_response()
            except ResponseError:
                raise
            except BaseException:
                # The answer may still come; it must not be taken for that of the next call.
                await self._deciding.disconnect(nowait=True)
                raise

    async def _connection(self) -> Any:
        # It stays the pool's, which closes it with all others.
        return await (await self._server()).connection_pool.get_connection()

    async def _drop_deciding(self) -> None:
        async with self._turn:
            if self._deciding is not None:
                connection, self._deciding = self._deciding, None
                await connection.disconnect(nowait=True)
                await self._redis.connection_pool.release(connection)

    async def read_journal(self, after_sequence: int) -> list[tuple[int, bytes]]:
        """Read what the journal still has after a sequence, oldest first."""
        try:
            redis = await self._server()
            rows: list[tuple[bytes, dict[bytes, bytes]]] = await redis.xrange(self._keys[7])
        except FAULTS as fault:
            raise GateUnverified from fault
        # Each item of the stream is one call: its entries, by sequence.
        entries = [(int(sequence), body) for _, item in rows for sequence, body in item.items()]
        return [entry for entry in entries if entry[0] > after_sequence]

    async def present_state(self) -> tuple[int, int, str] | None:
        """Give epoch, last sequence and hash as Redis has them; None where there is no state."""
        try:
            epoch, sequence, last_hash = await (await self._server()).hmget(
                self._keys[0], ["epoch", "sequence", "hash"]
            )
        except FAULTS as fault:
            raise GateUnverified from fault
        if epoch is None:
            return None
        return int(epoch), int(sequence), last_hash.decode()

    async def newest_epoch(self) -> int:
        """Give the highest epoch that has opened this gate or begun to load it; 0 for none."""
        try:
            return await read_newest_epoch(await self._server(), self.shard)
        except FAULTS as fault:
            raise GateUnverified from fault

    async def scan_stock(self, cursor: int, count: int) -> tuple[int, dict[bytes, bytes]]:
        """Read some stock records, undecoded, and the cursor that continues; 0 when all were read."""
        try:
            redis = await self._server()
            scanned: tuple[int, dict[bytes, bytes]] = await redis.hscan(
                self._keys[1], cursor, count=count
            )
        except FAULTS as fault:
            raise GateUnverified from fault
        return scanned

    async def load_step(self, step: str, epoch: int, *arguments: str | bytes | int) -> bool:
        """Do one step of a take-over; False where a newer one, or another state, is there."""
        call = (f"load_{version()}", len(self._keys), *self._keys, step, epoch, *arguments)
        try:
            answer: bytes = await (await self._server()).execute_command("FCALL", *call)
        except FAULTS as fault:
            raise GateUnverified from fault
        return answer == str(epoch).encode()


def _require_noeviction(memory: dict[str, Any]) -> None:
    if memory["maxmemory_policy"] != "noeviction":
        raise Unsuitable("Redis must have maxmemory-policy noeviction; it would drop stock.")
