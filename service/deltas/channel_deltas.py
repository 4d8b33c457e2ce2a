"""The deltas of one channel while somebody in this process reads them."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from allocation.errors import EngineError
from allocation.journal import decode_stock_change
from allocation.ledger.postgres_ledger import FAULTS
from allocation.model import Stock
from allocation.shards.routing import shard_of
from service.deltas.rescan import ChangedMeanwhile, Rescan, figure_of
from service.deltas.sources import Sources, feed_positions
from service.deltas.store import ChannelHead, Delta, DeltaStore, Figure

# Changes of one SKU within this time are one delta; it bounds commits, and is the most that one waits.
TICK_SECONDS = 0.01
# Further behind than this, reading all stock is quicker than reading the ledger.
BEHIND_ENTRIES_MAX = 20_000
LEDGER_READ_ENTRIES = 1_000
PAGE_DELTAS = 1_000
RECENT_DELTAS_MAX = 5_000
RETRY_SECONDS = 0.05
RETRY_SECONDS_MAX = 2.0


class ChannelDeltas:
    """Turns ledger entries into deltas, and keeps the recent ones in memory for the streams.

    Other processes may do the same for the channel: whoever loses the compare-and-set reads what the winner
    wrote. `reached` is, by shard, the ledger position up to which all deltas have been published.
    """

    def __init__(
        self,
        code: str,
        sources: Sources,
        store: DeltaStore,
        rescan: Rescan,
        on_published: Callable[[], None],
    ) -> None:
        self.code = code
        self.head: ChannelHead | None = None
        self.reached = [-1] * len(sources)
        self.readers = 0
        self.ended = False
        self._sources = sources
        self._store, self._rescan = store, rescan
        self._on_published = on_published
        self._pending: dict[str, Stock] = {}
        # By shard: all entries after this one are in `_pending`, or published.
        self._complete_from = feed_positions(sources)
        self._recent: deque[Delta] = deque(maxlen=RECENT_DELTAS_MAX)
        self._to_do, self._changed = asyncio.Event(), asyncio.Event()
        self._to_do.set()

    @property
    def last_id(self) -> int:
        """The id of the newest delta that this process knows."""
        return self.head.last_id if self.head is not None else 0

    def note(self, stock: list[tuple[str, Stock]]) -> None:
        """Take over what one durable entry changed."""
        for sku, record in stock:
            self._pending[sku] = record
        self._to_do.set()

    async def until(self, condition: Callable[["ChannelDeltas"], bool], seconds: float) -> bool:
        """Wait until a condition on this channel holds, and say whether it does."""
        try:
            async with asyncio.timeout(seconds):
                while not condition(self):
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def end(self) -> None:
        """Let everybody who reads go."""
        self.ended = True
        self._tell()

    async def after(self, delta_id: int) -> list[Delta]:
        """Give some deltas after an id, in order: from memory, or where they are older from the database."""
        if delta_id >= self.last_id:
            return []
        if self._recent and self._recent[0].id <= delta_id + 1:
            first = max(0, delta_id + 1 - self._recent[0].id)
            return [
                self._recent[at] for at in range(first, min(len(self._recent), first + PAGE_DELTAS))
            ]
        return await self._store.read(self.code, delta_id, PAGE_DELTAS)

    async def read_head(self) -> ChannelHead:
        """Read where the deltas end now; another process may have published some."""
        known = self.head
        head = await self._store.head(self.code)
        deltas: list[Delta] = []
        if known is not None and 0 < head.last_id - known.last_id <= RECENT_DELTAS_MAX:
            wanted = head.last_id - known.last_id
            deltas = await self._store.read(self.code, known.last_id, wanted)
        if self.head is known:
            self._take(head, deltas)
        return head

    async def run(self) -> None:
        """Publish, for as long as somebody reads."""
        pause = RETRY_SECONDS
        while True:
            await self._to_do.wait()
            self._to_do.clear()
            try:
                await self._publish_all()
            except (*FAULTS, EngineError, ChangedMeanwhile):
                # What became of a commit is not known: the head tells.
                self.head = None
                self._to_do.set()
                await asyncio.sleep(pause)
                pause = min(RETRY_SECONDS_MAX, 2 * pause)
            else:
                pause = RETRY_SECONDS
                await asyncio.sleep(TICK_SECONDS)

    async def _publish_all(self) -> None:
        head = self.head or await self.read_head()
        while not await self._publish_once(head):
            head = await self.read_head()

    async def _publish_once(self, head: ChannelHead) -> bool:
        """Publish what is pending; False where the head is another one by now."""
        published = _later(head.positions, self.reached)
        if self._is_configured_after(head) or self._is_too_far_behind(head, published):
            await self._rescan.run(self.code, feed_positions(self._sources))
            return False
        for shard, position in enumerate(published):
            if position < self._complete_from[shard]:
                await self._read_ledger(shard, position)
        # Until the next await nothing else runs: the figures are those of these very positions.
        positions = feed_positions(self._sources)
        if self._is_configured_after(head):
            return False
        pending, self._pending = self._pending, {}
        changed = self._figures_of(pending, head)
        deltas = None
        try:
            if changed:
                deltas = await self._store.publish(self.code, head, positions, changed)
        finally:
            if changed and deltas is None:
                self._pending = pending | self._pending
        if deltas is not None:
            self._take_published(head, positions, deltas)
        elif changed:
            return False
        self._complete_from = _later(self._complete_from, positions)
        self.reached = _later(self.reached, positions, head.positions)
        self._tell()
        return True

    def _is_configured_after(self, head: ChannelHead) -> bool:
        return any(
            source.figures.channels[self.code].version > position
            for source, position in zip(self._sources, head.positions, strict=True)
        )

    def _is_too_far_behind(self, head: ChannelHead, published: Sequence[int]) -> bool:
        behind = zip(self._complete_from, published, strict=True)
        return min(head.positions) < 0 or any(
            complete - position > BEHIND_ENTRIES_MAX for complete, position in behind
        )

    def _figures_of(self, pending: dict[str, Stock], head: ChannelHead) -> list[Figure]:
        figures: list[Figure] = []
        for sku, stock in pending.items():
            shard = shard_of(sku, len(self._sources))
            if stock.version > head.positions[shard]:
                channel = self._sources[shard].figures.channels[self.code]
                figures.append(figure_of(channel, sku, stock))
        return figures

    async def _read_ledger(self, shard: int, position: int) -> None:
        """Add the entries that came before this process began to follow the channel."""
        missed: dict[str, Stock] = {}
        until = self._complete_from[shard]
        read = position
        while read < until:
            wanted = min(LEDGER_READ_ENTRIES, until - read)
            entries = await self._sources[shard].ledger.read(read, wanted)
            assert entries, "Bug: the ledger ends before what it told"
            for sequence, body in entries:
                missed.update(decode_stock_change(body).stock)
                read = sequence
        self._pending = missed | self._pending
        self._complete_from[shard] = min(self._complete_from[shard], position)

    def _take_published(self, head: ChannelHead, positions: list[int], deltas: list[Delta]) -> None:
        last_id = deltas[-1].id if deltas else head.last_id
        known = self.head
        # A reader may have read the head meanwhile, with these deltas and perhaps more.
        if (
            known is None
            or known.last_id < last_id
            or known.positions != _later(known.positions, positions)
        ):
            self._take(ChannelHead(last_id, head.pruned_id, positions), deltas)

    def _take(self, head: ChannelHead, deltas: list[Delta]) -> None:
        """Go on to another head; the recent deltas always end there."""
        first_id = deltas[0].id if deltas else head.last_id + 1
        if self._recent and self._recent[-1].id + 1 != first_id:
            self._recent.clear()
        self._recent.extend(deltas)
        moved = self.head is None or self.head.last_id != head.last_id
        self.head = head
        self._tell()
        if moved:
            self._on_published()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _later(*positions: Sequence[int]) -> list[int]:
    return [max(of_shard) for of_shard in zip(*positions, strict=True)]
