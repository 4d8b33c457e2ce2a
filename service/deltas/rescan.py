"""Compares all figures of a channel with what was published: at first, after long, and when it changes."""

import msgspec

from allocation.commands import ReadConfiguration
from allocation.errors import GateUnverified
from allocation.gate.redis_gate import RedisGate
from allocation.journal import decode_channel
from allocation.model import Channel, Stock, available_to_sell
from allocation.pipeline import Pipeline
from service.deltas.store import DeltaStore, Figure

RECORDS_PER_SCAN = 1_000

_decode_stock = msgspec.msgpack.Decoder(Stock).decode
_decode_configuration = msgspec.msgpack.Decoder(list[tuple[str, msgspec.Raw]]).decode


class ChangedMeanwhile(Exception):
    """The channel was configured anew, or the shard taken over, while its figures were read."""


def figure_of(channel: Channel, sku: str, stock: Stock) -> Figure:
    """Give what a channel may promise of one SKU."""
    version = max(stock.version, channel.version)
    return Figure(sku, available_to_sell(channel, stock), version)


class Rescan:
    """Reads the stock of the whole gate for one channel."""

    def __init__(self, pipeline: Pipeline, gate: RedisGate, store: DeltaStore) -> None:
        self._pipeline, self._gate, self._store = pipeline, gate, store

    async def run(self, code: str, needed_position: int) -> None:
        """Publish whatever differs, unless another process has just done it up to `needed_position`.

        The channel is read before and after the stock. Where both are the same, under one epoch, then each
        record was paired with the channel as it was when the record was read; and since the second reading is
        answered when it is durable, so is everything that was read before it.
        """
        epoch = self._epoch()
        async with self._store.only_publisher(code) as rewrite:
            if rewrite.head.position >= needed_position:
                return
            position, channel = await self._read_channel(code)
            cursor = -1
            while cursor != 0:
                cursor, records = await self._gate.scan_stock(max(0, cursor), RECORDS_PER_SCAN)
                await rewrite.put(
                    [
                        figure_of(channel, sku.decode(), _decode_stock(record))
                        for sku, record in records.items()
                        if sku
                    ]
                )
            _, again = await self._read_channel(code)
            if again != channel or self._epoch() != epoch:
                raise ChangedMeanwhile
            await rewrite.move(position)

    def _epoch(self) -> int:
        if self._pipeline.verified is None:
            raise GateUnverified
        return self._pipeline.verified.head.epoch

    async def _read_channel(self, code: str) -> tuple[int, Channel]:
        """Give the ledger position of the reading, and the channel."""
        decision = await self._pipeline.submit(ReadConfiguration())
        for key, record in _decode_configuration(decision.extra):
            if key == f"channel:{code}":
                return decision.version, decode_channel(record)
        raise ChangedMeanwhile
