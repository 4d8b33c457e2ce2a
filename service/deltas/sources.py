"""What the deltas of a channel are made of."""

from collections.abc import Sequence

from msgspec import Struct

from allocation.gate.redis_gate import RedisGate
from allocation.pipeline import Pipeline
from allocation.ports import Ledger
from service.feed import Feed
from service.figures import ShardFigures


class Source(Struct, frozen=True):
    """One shard, as those see it who follow it."""

    pipeline: Pipeline
    gate: RedisGate
    ledger: Ledger
    feed: Feed
    figures: ShardFigures


Sources = Sequence[Source]


def feed_positions(sources: Sources) -> list[int]:
    """Give how far the feed of each shard has handed on what is durable."""
    return [source.feed.sequence for source in sources]
