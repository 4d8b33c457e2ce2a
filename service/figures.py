"""What each channel may promise, as the newest durable entry left it, ready to be answered from memory."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import msgspec

from allocation.commands import ReadConfiguration, ReadStock
from allocation.journal import decode_channel, decode_location, decode_stock_change
from allocation.model import Channel, Location, Stock, available_to_sell
from allocation.ports import Decider
from allocation.shards.routing import shard_of

# Enough for the part of a catalogue that is looked at; the rest is read from the gate when it is wanted.
REMEMBERED_MAX = 100_000

_decode_stocks = msgspec.msgpack.Decoder(list[Stock | None]).decode
_decode_configuration = msgspec.msgpack.Decoder(list[tuple[str, msgspec.Raw]]).decode


class ShardFigures:
    """The configuration, and the stock records of one shard that were asked for lately. Follows its feed."""

    def __init__(self, pipeline: Decider) -> None:
        self.channels: dict[str, Channel] = {}
        self.locations: dict[str, Location] = {}
        self._pipeline = pipeline
        self._stock: OrderedDict[str, Stock] = OrderedDict()
        self._answers: dict[str, dict[str, bytes]] = {}
        self._sequence = 0

    async def load(self) -> None:
        """Read locations and channels from the gate."""
        decision = await self._pipeline.submit(ReadConfiguration())
        for key, record in _decode_configuration(decision.extra):
            self._configure(key, bytes(record))

    def note_entry(self, sequence: int, body: bytes) -> None:
        """Take over what one durable entry changed."""
        self._sequence = sequence
        change = decode_stock_change(body)
        for key, record in change.configuration:
            self._configure(key, bytes(record))
        for sku, stock in change.stock:
            known = self._stock.get(sku)
            # What was read from the gate may be ahead of the feed.
            if known is not None and known.version < stock.version:
                self._remember(sku, stock)

    def known(self, channel: str, sku: str) -> bytes | None:
        """Give the answer for one SKU as JSON, where it is in memory."""
        return self._answers[channel].get(sku)

    async def read(self, skus: list[str]) -> dict[str, Stock | None]:
        """Read stock records: from the gate, for every figure that is not in memory."""
        missing = [sku for sku in skus if sku not in self._stock]
        found: dict[str, Stock | None] = {sku: self._stock.get(sku) for sku in skus}
        if missing:
            decision = await self._pipeline.submit(ReadStock(tuple(missing)))
            for sku, stock in zip(missing, _decode_stocks(decision.extra), strict=True):
                found[sku] = stock
                # An entry that came by meanwhile may be newer than what was read.
                if stock is not None and self._sequence <= decision.version:
                    self._remember(sku, stock)
        return found

    def answer(self, channel_code: str, sku: str, stock: Stock) -> bytes:
        """Give the answer for one SKU as JSON, and keep it while the record does not change."""
        channel = self.channels[channel_code]
        answer = msgspec.json.encode(
            {
                "sku": sku,
                "available": available_to_sell(channel, stock),
                "version": max(stock.version, channel.version),
            }
        )
        if self._stock.get(sku) is stock:
            self._answers[channel_code][sku] = answer
        return answer

    def _configure(self, key: str, record: bytes) -> None:
        kind, _, code = key.partition(":")
        if kind == "channel":
            self.channels[code] = decode_channel(record)
            self._answers[code] = {}
        elif kind == "location":
            self.locations[code] = decode_location(record)

    def _remember(self, sku: str, stock: Stock) -> None:
        self._stock[sku] = stock
        self._stock.move_to_end(sku)
        self._forget_answers(sku)
        if len(self._stock) > REMEMBERED_MAX:
            forgotten, _ = self._stock.popitem(last=False)
            self._forget_answers(forgotten)

    def _forget_answers(self, sku: str) -> None:
        for answers in self._answers.values():
            answers.pop(sku, None)


class Figures:
    """What all shards have. A channel is there once each of them knows it."""

    def __init__(self, shards: Sequence[ShardFigures]) -> None:
        self.shards = shards

    @property
    def channels(self) -> Mapping[str, Channel]:
        """Give the channels by code."""
        first, *others = [shard.channels for shard in self.shards]
        if not others:
            return first
        return {
            code: channel
            for code, channel in first.items()
            if all(code in known for known in others)
        }

    @property
    def locations(self) -> Mapping[str, Location]:
        """Give the locations by code."""
        return self.shards[0].locations

    def known(self, channel: str, sku: str) -> bytes | None:
        """Give the answer for one SKU as JSON, where it is in memory."""
        return self._of(sku).known(channel, sku)

    def quoted(self, channel: str) -> bytes:
        """Give the code of a channel as JSON."""
        return msgspec.json.encode(channel)

    async def read(self, skus: list[str]) -> dict[str, Stock | None]:
        """Read stock records: from the gate, for every figure that is not in memory."""
        if len(self.shards) == 1:
            return await self.shards[0].read(skus)
        by_shard: dict[int, list[str]] = {}
        for sku in skus:
            by_shard.setdefault(shard_of(sku, len(self.shards)), []).append(sku)
        reads = [self.shards[shard].read(own) for shard, own in by_shard.items()]
        found: dict[str, Stock | None] = {}
        for part in await asyncio.gather(*reads):
            found |= part
        return found

    def answer(self, channel_code: str, sku: str, stock: Stock) -> bytes:
        """Give the answer for one SKU as JSON, and keep it while the record does not change."""
        return self._of(sku).answer(channel_code, sku, stock)

    def _of(self, sku: str) -> ShardFigures:
        return self.shards[shard_of(sku, len(self.shards))]
