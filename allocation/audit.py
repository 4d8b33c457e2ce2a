"""The full audit: the ledger is whole, nothing was oversold, and all stores tell one figure.

A recount from the changes is compared with the records that the ledger's entries carry, with those
that the gate has now, and with whatever else the caller brings (the figures over HTTP, say).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
from msgspec import Struct

from allocation.comparison import COMPARED_KEYS, ComparedState
from allocation.errors import ChainBroken
from allocation.folding import STOCK_KEY
from allocation.history import History, ReadLedger
from allocation.journal import GENESIS_HASH, chain
from allocation.model import Stock
from allocation.ports import Head
from allocation.recount import Figures, Oversold, Recount, figures_of
from allocation.verification import Comparing, GateReads, OtherHistoryError

PAGE_ENTRIES = 5_000
SCAN_COUNT = 1_000
# The gate decides while it is audited; a few attempts find it where the ledger is.
ATTEMPTS_MAX = 50
ATTEMPT_PAUSE_SECONDS = 0.1

BySku = Mapping[str, Mapping[str, Figures]]
_decode_stock = msgspec.msgpack.Decoder(Stock).decode


class AuditedGate(Protocol):
    """What an audit reads of the gate."""

    async def present_state(self) -> tuple[int, int, str] | None:
        """Give epoch, last sequence and hash; None where there is no state."""
        ...

    async def scan_stock(self, cursor: int, count: int) -> tuple[int, dict[bytes, bytes]]:
        """Read some stock records, undecoded, and the cursor that continues."""
        ...


class Break(Struct, frozen=True):
    """Where the ledger is not one unbroken history, or the gate does not continue it."""

    sequence: int
    reason: str


class Difference(Struct, frozen=True):
    """One figure that a store tells otherwise than the changes add up to."""

    sku: str
    store: str
    figure: str
    counted: str
    found: str


class Audit(Struct):
    """What an audit found; `figures` and `versions` are the recount, for further comparisons."""

    entries: int
    last_sequence: int
    figures: BySku
    versions: Mapping[str, int]
    breaks: list[Break]
    oversold: list[Oversold]
    differences: list[Difference]

    @property
    def holds(self) -> bool:
        """Say whether nothing at all was found."""
        return not (self.breaks or self.oversold or self.differences)

    def join(self, other: "Audit") -> None:
        """Add what was found on another shard."""
        self.entries += other.entries
        self.figures = {**self.figures, **other.figures}
        self.versions = {**self.versions, **other.versions}
        self.breaks += other.breaks
        self.oversold += other.oversold
        self.differences += other.differences

    def compare(self, store: str, sku: str, version: int, found: Mapping[str, Figures]) -> None:
        """Add what one store tells otherwise of one SKU."""
        counted = self.figures.get(sku, {})
        if version != self.versions.get(sku, 0):
            self.add(sku, store, "version", self.versions.get(sku, 0), version)
        if counted == found:
            return
        for location in sorted(counted.keys() | found.keys()):
            left, right = counted.get(location, Figures()), found.get(location, Figures())
            for figure in Figures.__struct_fields__:
                if getattr(left, figure) != getattr(right, figure):
                    told = (getattr(left, figure), getattr(right, figure))
                    self.add(sku, store, f"{location}: {figure}", *told)

    def add(self, sku: str, store: str, figure: str, counted: object, found: object) -> None:
        """Add one figure that a store tells otherwise."""
        self.differences.append(Difference(sku, store, figure, str(counted), str(found)))


class _History:
    """The ledger as far as it was read: checked link by link, folded, and recounted."""

    def __init__(self) -> None:
        self.sequence, self.last_hash, self.entries = 0, GENESIS_HASH, 0
        self.breaks: list[Break] = []
        self.folded, self.recount = ComparedState(), Recount()

    async def read_through(
        self, ledger: ReadLedger, head: Head, on_read: Callable[[int, int], None]
    ) -> None:
        while self.sequence < head.last_sequence:
            limit = min(PAGE_ENTRIES, head.last_sequence - self.sequence)
            rows = await ledger.read_with_hash(self.sequence, limit)
            if not rows:
                self._break(self.sequence + 1, f"missing, though the head is {head.last_sequence}")
                self.sequence, self.last_hash = head.last_sequence, head.last_hash
                return
            for row in rows:
                self._take(*row)
            on_read(self.sequence, head.last_sequence)
            # An audit beside other work on one loop must let that work go on.
            await asyncio.sleep(0)
        if self.last_hash != head.last_hash:
            self._break(self.sequence, "its hash is not the head's")

    def _take(self, sequence: int, stored_hash: str, body: bytes) -> None:
        if sequence > self.sequence + 1:
            self._break(self.sequence + 1, f"missing, up to {sequence - 1}")
        elif chain(self.last_hash, body) != stored_hash:
            self._break(sequence, "its body does not have its hash")
        self.sequence, self.last_hash = sequence, stored_hash
        self.entries += 1
        try:
            self.recount.apply(sequence, body)
            self.folded.apply(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._break(sequence, "its body is not a journal entry")

    def _break(self, sequence: int, reason: str) -> None:
        if Break(sequence, reason) not in self.breaks:
            self.breaks.append(Break(sequence, reason))


def _ignore(_read: int, _through: int) -> None:
    return


async def audit(
    gate: AuditedGate,
    ledger: ReadLedger,
    on_read: Callable[[int, int], None] = _ignore,
    reads: GateReads | None = None,
) -> Audit:
    """Recount the whole ledger and compare; `on_read` hears how far it has come, and through what.

    With `reads`, all else that the gate keeps is compared too: reservations, events, configuration, deadlines
    and moves.

    Raises GateUnverified or LedgerUnavailable where a server cannot be read.
    """
    history = _History()
    records, moving = await _same_moment(gate, ledger, history, on_read)
    found = Audit(
        history.entries,
        history.sequence,
        history.recount.figures(),
        history.recount.versions,
        history.breaks + moving,
        history.recount.oversold,
        [],
    )
    _compare_records(found, history.folded.records[STOCK_KEY], records)
    if reads is not None and not found.breaks:
        await _compare_all_else(found, reads, ledger, history)
    return found


async def _compare_all_else(
    found: Audit, reads: GateReads, ledger: ReadLedger, audited: _History
) -> None:
    history = History(ledger, audited.folded, audited.sequence, audited.last_hash)
    comparing = Comparing(reads, history, cpu_share_max=1.0)
    try:
        for key in COMPARED_KEYS:
            if key != STOCK_KEY:
                await comparing.compare(key)
    except OtherHistoryError:
        found.breaks.append(
            Break(history.sequence, "the gate does not stand where the ledger does")
        )
    except ChainBroken as broken:
        found.breaks.append(Break(broken.sequence, "it was altered while it was read"))
    for drift in comparing.drifts:
        told, has = drift.ledger or "none", drift.gate or "none"
        found.differences.append(Difference(drift.field, "gate", drift.key, told, has))


async def _same_moment(
    gate: AuditedGate,
    ledger: ReadLedger,
    history: _History,
    on_read: Callable[[int, int], None],
) -> tuple[dict[str, bytes] | None, list[Break]]:
    """Read both at one sequence: the gate's records, or why there are none to compare."""
    reason = "the gate never stood where the ledger ends"
    for _ in range(ATTEMPTS_MAX):
        before = await gate.present_state()
        head = await ledger.head()
        await history.read_through(ledger, head, on_read)
        if before is None:
            return None, [Break(head.last_sequence, "the gate has no state")]
        if before[1] == head.last_sequence:
            if before[2] != head.last_hash:
                return None, [Break(head.last_sequence, "the gate has another hash")]
            records = await _scan(gate)
            if await gate.present_state() == before:
                return records, []
        elif before[1] < head.last_sequence and await gate.present_state() == before:
            reason = "the gate is behind the ledger"
        await asyncio.sleep(ATTEMPT_PAUSE_SECONDS)
    return None, [Break(history.sequence, reason)]


async def _scan(gate: AuditedGate) -> dict[str, bytes]:
    records: dict[str, bytes] = {}
    cursor = -1
    while cursor != 0:
        cursor, found = await gate.scan_stock(max(0, cursor), SCAN_COUNT)
        records.update((field.decode(), packed) for field, packed in found.items() if field)
    return records


def _compare_records(
    found: Audit, carried: Mapping[str, bytes], present: Mapping[str, bytes] | None
) -> None:
    for sku in sorted(found.figures):
        _compare_record(found, "ledger", sku, carried.get(sku))
        if present is not None:
            _compare_record(found, "gate", sku, present.get(sku))
            if carried.get(sku) != present.get(sku) and not _told(found, sku):
                found.differences.append(
                    Difference(sku, "gate", "record", "the ledger's", "another")
                )
    for sku in sorted((present or {}).keys() - found.figures.keys()):
        found.differences.append(Difference(sku, "gate", "record", "none", "a record"))


def _told(found: Audit, sku: str) -> bool:
    return bool(found.differences) and found.differences[-1].sku == sku


def _compare_record(found: Audit, store: str, sku: str, packed: bytes | None) -> None:
    if packed is None:
        found.differences.append(Difference(sku, store, "record", "a record", "none"))
        return
    try:
        stock = _decode_stock(packed)
    except msgspec.DecodeError:
        found.differences.append(Difference(sku, store, "record", "a record", "unreadable"))
        return
    found.compare(store, sku, stock.version, figures_of(stock))
