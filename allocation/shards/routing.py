"""Which shard decides what."""

from collections.abc import Iterable
from typing import Protocol, TypeVar
from zlib import crc32


class _OfSku(Protocol):
    @property
    def sku(self) -> str: ...


Line = TypeVar("Line", bound=_OfSku)


def shard_of(sku: str, shards: int) -> int:
    """Give the shard, of so many, that has a SKU's stock; for good, since their number never changes."""
    return crc32(sku.encode()) % shards if shards > 1 else 0


def lines_by_shard(lines: Iterable[Line], shards: int) -> dict[int, tuple[Line, ...]]:
    """Give each shard, in ascending order, the lines that it decides, in the order in which they came."""
    found: dict[int, list[Line]] = {}
    for line in lines:
        found.setdefault(shard_of(line.sku, shards), []).append(line)
    return {shard: tuple(found[shard]) for shard in sorted(found)}
