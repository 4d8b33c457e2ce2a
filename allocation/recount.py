"""Counts every bucket anew from what each journal entry changed, and believes no figure it carries.

Units on hand come from the movements, promised units from the reservations. Safety stock alone is
taken from the records: a configuration states it, and nothing else in the ledger does.
"""

import bisect
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from allocation.commands import MovedLine, Movement
from allocation.journal import Entry, decode_entry
from allocation.model import Reservation, Stock
from allocation.outcomes import Kind, State

# Counts reach no further back, so older changes are never summed again.
CHANGES_KEPT_MS = 30 * 24 * 3600 * 1000

Place = tuple[str, str]


class Figures(Struct, frozen=True):
    """The buckets of one SKU at one location; `channels` has only those that promised something."""

    on_hand: int = 0
    damaged: int = 0
    quality_control: int = 0
    safety_stock: int = 0
    reserved: int = 0
    committed: int = 0
    channels: tuple[tuple[str, int, int], ...] = ()

    @property
    def available(self) -> int:
        """Units that may still be promised."""
        sellable = self.on_hand - self.damaged - self.quality_control - self.safety_stock
        return sellable - self.reserved - self.committed


class Oversold(Struct, frozen=True):
    """Units that one entry promised though they were not there, and that no order explains."""

    sequence: int
    subject: str
    sku: str
    units: int


class _Moved(Struct, array_like=True, frozen=True):
    kind: Movement
    occurred_at_ms: int
    reservation_id: str
    lines: list[MovedLine]


class _Promise(Struct, frozen=True, gc=False):
    """What one reservation has of a pool: units reserved, units committed."""

    place: Place
    channel: str
    reserved: int
    committed: int


class _Pool(Struct):
    on_hand: int = 0
    damaged: int = 0
    quality_control: int = 0
    safety_stock: int = 0
    left_unnamed: int = 0
    counted_at_ms: int = 0
    changes: list[tuple[int, int]] = msgspec.field(default_factory=list[tuple[int, int]])
    reserved: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    committed: dict[str, int] = msgspec.field(default_factory=dict[str, int])

    def units_committed(self) -> int:
        return sum(self.committed.values()) - self.left_unnamed

    def available(self) -> int:
        sellable = self.on_hand - self.damaged - self.quality_control - self.safety_stock
        return sellable - sum(self.reserved.values()) - self.units_committed()

    def figures(self) -> Figures:
        channels = sorted(self.reserved.keys() | self.committed.keys())
        uses = (
            (code, self.reserved.get(code, 0), self.committed.get(code, 0)) for code in channels
        )
        return Figures(
            self.on_hand,
            self.damaged,
            self.quality_control,
            self.safety_stock,
            sum(self.reserved.values()),
            self.units_committed(),
            tuple(use for use in uses if use[1] or use[2]),
        )


_decode_moved = msgspec.msgpack.Decoder(_Moved).decode


class Recount:
    """The buckets of a shard as the changes add up; entries come in the ledger's order."""

    def __init__(self) -> None:
        self.oversold: list[Oversold] = []
        self.versions: dict[str, int] = {}
        self._pools: dict[Place, _Pool] = {}
        self._promises: dict[str, tuple[_Promise, ...]] = {}

    def apply(self, sequence: int, body: bytes) -> None:
        """Add the changes of one entry."""
        entry = decode_entry(body)
        self.versions.update((sku, sequence) for sku, _ in entry.stock)
        promised = self._take_promises(entry)
        if entry.kind is Kind.MOVED:
            self._move(_decode_moved(entry.detail), entry.at_ms)
        elif entry.kind is Kind.CONFIGURED:
            self._take_safety_stock(entry.stock)
        self._note_oversold(sequence, entry, promised)

    def figures(self) -> dict[str, dict[str, Figures]]:
        """Give every SKU's buckets by location, without the locations where all are zero."""
        counted: dict[str, dict[str, Figures]] = {sku: {} for sku in self.versions}
        for (sku, location), pool in self._pools.items():
            if (figures := pool.figures()) != Figures():
                counted.setdefault(sku, {})[location] = figures
        return counted

    def _pool(self, place: Place) -> _Pool:
        return self._pools.setdefault(place, _Pool())

    def _take_promises(self, entry: Entry) -> dict[Place, int]:
        """Replace what each reservation has; give the units promised in each pool, net."""
        net: dict[Place, int] = {}
        for reservation_id, reservation in entry.reservations:
            before = self._promises.pop(reservation_id, ())
            after = tuple(_promises(reservation)) if reservation is not None else ()
            for sign, promises in ((-1, before), (1, after)):
                for promise in promises:
                    self._promise(promise, sign)
                    units = sign * (promise.reserved + promise.committed)
                    net[promise.place] = net.get(promise.place, 0) + units
            if after:
                self._promises[reservation_id] = after
        for place in net:
            pool = self._pools[place]
            # Units cannot have left unnamed that nobody has committed any more.
            pool.left_unnamed = min(pool.left_unnamed, sum(pool.committed.values()))
        return net

    def _promise(self, promise: _Promise, sign: int) -> None:
        pool, channel = self._pool(promise.place), promise.channel
        pool.reserved[channel] = pool.reserved.get(channel, 0) + sign * promise.reserved
        pool.committed[channel] = pool.committed.get(channel, 0) + sign * promise.committed

    def _move(self, moved: _Moved, at_ms: int) -> None:
        when = moved.occurred_at_ms
        for line in moved.lines:
            place, units = (line.sku, line.location), line.quantity
            match moved.kind:
                case Movement.RECEIPT | Movement.RETURN:
                    self._change(place, units, when, at_ms)
                    self._change_status(place, units, "", line.to)
                case Movement.ADJUSTMENT:
                    self._change(place, units, when, at_ms)
                case Movement.COUNT:
                    self._count(place, units, when, at_ms)
                case Movement.SHIPMENT:
                    self._change(place, -units, when, at_ms)
                    if not moved.reservation_id:
                        pool = self._pool(place)
                        pool.left_unnamed += min(units, max(0, pool.units_committed()))
                case Movement.TRANSFER:
                    self._change(place, -units, when, at_ms)
                    self._change((line.sku, line.to), units, when, at_ms)
                case Movement.STATUS:
                    self._change_status(place, units, line.source, line.to)

    def _change(self, place: Place, units: int, occurred_at_ms: int, at_ms: int) -> None:
        pool = self._pool(place)
        if 0 < occurred_at_ms <= pool.counted_at_ms:
            return
        pool.on_hand += units
        bisect.insort(pool.changes, (occurred_at_ms or max(at_ms, pool.counted_at_ms + 1), units))
        del pool.changes[: bisect.bisect_left(pool.changes, (at_ms - CHANGES_KEPT_MS,))]

    def _count(self, place: Place, units: int, as_of_ms: int, at_ms: int) -> None:
        pool = self._pool(place)
        if as_of_ms == 0:
            pool.counted_at_ms = max(at_ms, pool.counted_at_ms + 1)
            pool.changes.clear()
        elif as_of_ms > pool.counted_at_ms:
            pool.counted_at_ms = as_of_ms
            del pool.changes[: bisect.bisect_left(pool.changes, (as_of_ms + 1,))]
        else:
            return
        pool.on_hand = units + sum(change for _, change in pool.changes)

    def _change_status(self, place: Place, units: int, source: str, to: str) -> None:
        pool = self._pool(place)
        for status, change in ((source, -units), (to, units)):
            if status == "damaged":
                pool.damaged += change
            elif status == "quality_control":
                pool.quality_control += change

    def _take_safety_stock(self, stock: Iterable[tuple[str, Stock]]) -> None:
        for sku, record in stock:
            for pool in record.pools:
                self._pool((sku, pool.location)).safety_stock = pool.safety_stock

    def _note_oversold(self, sequence: int, entry: Entry, promised: dict[Place, int]) -> None:
        over: dict[str, int] = {}
        for place, units in promised.items():
            excess = min(units, -self._pools[place].available())
            if excess > 0:
                over[place[0]] = over.get(place[0], 0) + excess
        if not over:
            return
        recorded = _recorded_excess(entry) if entry.kind is Kind.ORDERED else {}
        for sku, units in over.items():
            if units > recorded.get(sku, 0):
                unexplained = units - recorded.get(sku, 0)
                self.oversold.append(Oversold(sequence, entry.subject, sku, unexplained))


def figures_of(stock: Stock) -> dict[str, Figures]:
    """Give the buckets that a record states, without the locations where all are zero."""
    stated = {
        pool.location: Figures(
            pool.on_hand,
            pool.damaged,
            pool.quality_control,
            pool.safety_stock,
            pool.reserved,
            pool.committed,
            tuple(
                sorted(
                    (use.channel, use.reserved, use.committed)
                    for use in pool.uses
                    if use.reserved or use.committed
                )
            ),
        )
        for pool in stock.pools
    }
    return {location: figures for location, figures in stated.items() if figures != Figures()}


def _promises(reservation: Reservation) -> Iterator[_Promise]:
    held = reservation.state is State.HELD
    if not held and reservation.state is not State.COMMITTED:
        return
    for line in reservation.lines:
        open_units = line.quantity - line.shipped
        if open_units:
            reserved, committed = (open_units, 0) if held else (0, open_units)
            yield _Promise((line.sku, line.location), reservation.channel, reserved, committed)


def _recorded_excess(entry: Entry) -> dict[str, int]:
    excess: dict[str, int] = {}
    for _, reservation in entry.reservations:
        for shortage in reservation.shortages if reservation is not None else ():
            missing = shortage.requested - shortage.available
            excess[shortage.sku] = excess.get(shortage.sku, 0) + missing
    return excess
