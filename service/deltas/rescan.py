"""Compares all figures of a channel with what was published: at first, after long, and when it changes."""

from collections.abc import Sequence

import msgspec

from allocation.commands import ReadConfiguration
from allocation.errors import GateUnverified
from allocation.journal import decode_channel
from allocation.model import Channel, Stock, available_to_sell
from service.deltas.sources import Source, Sources
from service.deltas.store import DeltaStore, Figure, Rewrite

RECORDS_PER_SCAN = 1_000

_decode_stock = msgspec.msgpack.Decoder(Stock).decode
_decode_configuration = msgspec.msgpack.Decoder(list[tuple[str, msgspec.Raw]]).decode


class ChangedMeanwhile(Exception):
    """The channel was configured anew, or a shard taken over, while its figures were read."""


def figure_of(channel: Channel, sku: str, stock: Stock) -> Figure:
    """Give what a channel may promise of one SKU."""
    version = max(stock.version, channel.version)
    return Figure(sku, available_to_sell(channel, stock), version)


class Rescan:
    """Reads the stock of every gate for one channel."""

    def __init__(self, sources: Sources, store: DeltaStore) -> None:
        self._sources, self._store = sources, store

    async def run(self, code: str, needed_positions: Sequence[int]) -> None:
        """Publish whatever differs, unless another process has just done it up to `needed_positions`."""
        async with self._store.only_publisher(code) as rewrite:
            reached = zip(rewrite.head.positions, needed_positions, strict=True)
            if all(position >= needed for position, needed in reached):
                return
            positions = [await _read_shard(source, code, rewrite) for source in self._sources]
            await rewrite.move(positions)


async def _read_shard(source: Source, code: str, rewrite: Rewrite) -> int:
    """Publish what differs on one shard, and give the ledger position of the figures.

    The channel is read before and after the stock. Where both are the same, under one epoch, then each record was
    paired with the channel as it was when the record was read; and since the second reading is answered when it is
    durable, so is everything that was read before it.
    """
    epoch = _epoch(source)
    position, channel = await _read_channel(source, code)
    cursor = -1
    while cursor != 0:
        cursor, records = await source.gate.scan_stock(max(0, cursor), RECORDS_PER_SCAN)
        await rewrite.put(
            [
                figure_of(channel, sku.decode(), _decode_stock(record))
                for sku, record in records.items()
                if sku
            ]
        )
    _, again = await _read_channel(source, code)
    if again != channel or _epoch(source) != epoch:
        raise ChangedMeanwhile
    return position


def _epoch(source: Source) -> int:
    if source.pipeline.verified is None:
        raise GateUnverified
    return source.pipeline.verified.head.epoch


async def _read_channel(source: Source, code: str) -> tuple[int, Channel]:
    """Give the ledger position of the reading, and the channel."""
    decision = await source.pipeline.submit(ReadConfiguration())
    for key, record in _decode_configuration(decision.extra):
        if key == f"channel:{code}":
            return decision.version, decode_channel(record)
    raise ChangedMeanwhile
