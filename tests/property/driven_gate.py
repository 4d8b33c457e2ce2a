"""The real gate under a clock that the test sets, and everything that it holds, read back."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from one_redis import OneRedis

from allocation.commands import Command
from allocation.folding import (
    CONFIGURATION_KEY,
    EVENTS_KEY,
    RESERVATIONS_KEY,
    STOCK_KEY,
    FoldedState,
)
from allocation.gate.clock import GateClock
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.gate.servers import connect
from allocation.journal import GENESIS_HASH, chain
from allocation.model import Reservation, Stock
from allocation.ports import Batch

DAY_MS = 86_400_000
RESERVATION_RETENTION_MS, EVENT_RETENTION_MS = 7 * DAY_MS, 14 * DAY_MS
EPOCH = 1
# A value that the gate keeps so that none of its keys ever vanishes.
PLACEHOLDER = b""
_RECORD_KEYS = (STOCK_KEY, RESERVATIONS_KEY, EVENTS_KEY, CONFIGURATION_KEY)
_decode_stock = msgspec.msgpack.Decoder(Stock).decode
_decode_reservation = msgspec.msgpack.Decoder(Reservation).decode


class DrivenGate:
    """Decides batches at times of the test's choice, and folds the journal as the ledger would."""

    def __init__(self, runner: asyncio.Runner, redis_url: str) -> None:
        self._runner = runner
        self._redis = connect(redis_url)
        self._gate = RedisGate(
            OneRedis(self._redis), 0, RESERVATION_RETENTION_MS, EVENT_RETENTION_MS
        )
        self._keys = shard_keys(0)
        self._identity = runner.run(self._gate.prepare())
        self.folded = FoldedState()
        self.last_hash = GENESIS_HASH
        self.sequence = 0
        self.held: dict[int, dict[str, bytes]] = {}

    def reset(self) -> int:
        """Empty the gate, and give a time in its future: the gate's clock never runs backwards."""
        self.folded, self.last_hash, self.sequence = FoldedState(), GENESIS_HASH, 0
        return self._runner.run(self._reset())

    async def _reset(self) -> int:
        await self._gate.load_step("begin", EPOCH)
        await self._gate.load_step("open", EPOCH, 0, GENESIS_HASH, 0)
        seconds, _ = await self._redis.time()
        # No time passes but what the test says.
        self._gate.clock = GateClock(elapsed_seconds=lambda: 0.0)
        self._gate.clock.begin(int(seconds) * 1000)
        return (int(seconds) + 3600) * 1000

    def decide(self, now_ms: int, commands: Sequence[Command]) -> Batch:
        """Decide a batch at `now_ms`, and take its entries over into the folded state."""
        batch = self._runner.run(self._decide(now_ms, commands))
        assert batch.head.now_ms == now_ms
        assert batch.head.first_sequence == self.sequence + 1
        assert batch.head.hash_before == self.last_hash
        for body in batch.entries:
            self.folded.apply(body)
            self.last_hash = chain(self.last_hash, body)
        self.sequence += len(batch.entries)
        return batch

    async def _decide(self, now_ms: int, commands: Sequence[Command]) -> Batch:
        # The gate's clock is the later of Redis' and the last one it saw.
        await self._redis.hset(self._keys[0], "last_ms", now_ms)
        batch = await self._gate.decide(EPOCH, self._identity, commands, self.sequence)
        self.held = await self._records()
        return batch

    async def _records(self) -> dict[int, dict[str, bytes]]:
        pipe = self._redis.pipeline(transaction=False)
        for key in _RECORD_KEYS:
            pipe.hgetall(self._keys[key - 1])
        found: list[dict[bytes, bytes]] = await pipe.execute()
        return {
            key: {name.decode(): packed for name, packed in records.items() if name != PLACEHOLDER}
            for key, records in zip(_RECORD_KEYS, found, strict=True)
        }

    def stock(self) -> dict[str, Stock]:
        """Read every stock record as it was after the last batch."""
        return {sku: _decode_stock(packed) for sku, packed in self.held[STOCK_KEY].items()}

    def reservations(self) -> dict[str, Reservation]:
        """Read every reservation as it was after the last batch."""
        records = self.held[RESERVATIONS_KEY]
        return {key: _decode_reservation(packed) for key, packed in records.items()}

    def event_keys(self) -> set[str]:
        """Name every movement that is remembered."""
        return set(self.held[EVENTS_KEY])

    def check_journal(self) -> None:
        """Compare what the journal's entries fold to with everything that Redis holds, byte for byte."""
        assert self.folded.records == self.held
        deadlines, moves, meta = self._runner.run(self._waiting())
        assert deadlines == dict(self.folded.deadlines())
        assert moves == sorted(move for kept in self.folded.moves.values() for move in kept)
        assert meta == (str(self.sequence), self.last_hash)

    async def _waiting(self) -> tuple[dict[str, int], list[str], tuple[str, str]]:
        deadlines: list[tuple[bytes, float]] = await self._redis.zrange(
            self._keys[5], 0, -1, withscores=True
        )
        moves: list[bytes] = await self._redis.zrange(self._keys[6], 0, -1)
        meta: list[Any] = await self._redis.hmget(self._keys[0], ["sequence", "hash"])
        return (
            {name.decode(): int(at_ms) for name, at_ms in deadlines if name != PLACEHOLDER},
            sorted(move.decode() for move in moves if move != PLACEHOLDER),
            (meta[0].decode(), meta[1].decode()),
        )

    def close(self) -> None:
        self._runner.run(self._redis.aclose())
