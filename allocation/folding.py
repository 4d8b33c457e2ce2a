"""What journal entries add up to: the newest record of everything, nothing decided again."""

import bisect
import gc
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
from msgspec import Raw, Struct

from allocation.outcomes import State
from allocation.ports import Page

STOCK_KEY, RESERVATIONS_KEY, EVENTS_KEY, CONFIGURATION_KEY, DEADLINES_KEY, MOVES_KEY = range(2, 8)
RECORD_KEYS = (STOCK_KEY, RESERVATIONS_KEY, EVENTS_KEY, CONFIGURATION_KEY)
# What an entry has in place of a record that was forgotten.
_GONE = b"\xc0"

Changes = list[tuple[str, Raw]]


class RawEntry(Struct, array_like=True, frozen=True, gc=False):
    """One journal entry, its records still packed."""

    kind: int
    at_ms: int
    subject: Raw
    reservations: Changes
    stock: Changes
    events: Changes
    configuration: Changes
    moves: list[tuple[str, str]]


class _ReservationDeadline(Struct, array_like=True, frozen=True, gc=False):
    state: int
    version: int
    fingerprint: Raw
    channel: Raw
    deadline_ms: int


class _EventDeadline(Struct, array_like=True, frozen=True, gc=False):
    fingerprint: Raw
    version: int
    deadline_ms: int


_decode = msgspec.msgpack.Decoder(RawEntry).decode
_decode_page = msgspec.msgpack.Decoder(list[RawEntry]).decode
_decode_reservation = msgspec.msgpack.Decoder(_ReservationDeadline).decode
_decode_event = msgspec.msgpack.Decoder(_EventDeadline).decode


def reservation_deadline_ms(packed: bytes) -> int:
    """Give when a hold ends or, negative, when a closed reservation may be forgotten."""
    record = _decode_reservation(packed)
    return record.deadline_ms if record.state == State.HELD else -record.deadline_ms


def event_deadline_ms(packed: bytes) -> int:
    """Give, negative, when a movement may be forgotten."""
    return -_decode_event(packed).deadline_ms


class FoldedState:
    """The gate's state as the ledger tells it: for each key and field, the record last written."""

    def __init__(self) -> None:
        self.records: dict[int, dict[str, bytes]] = {key: {} for key in RECORD_KEYS}
        self.moves: dict[str, list[str]] = {}
        self.last_ms = 0

    def apply(self, body: bytes) -> None:
        """Take one journal entry over. Entries must come in the order of the ledger."""
        self._apply((_decode(body),))

    def apply_page(self, page: Page) -> None:
        """Take a page of entries over, which is faster than each by itself."""
        with collector_paused():
            # Bodies in a row are an array once the head of one stands before them.
            self._apply(_decode_page(_array_head(page.entries) + page.bodies))

    def deadlines(self) -> Iterator[tuple[str, int]]:
        """Give every deadline that waits: member of the sorted set, ms; negative for what is to be forgotten."""
        return (deadline for deadline in self._each_deadline() if deadline[1] != 0)

    def _each_deadline(self) -> Iterator[tuple[str, int]]:
        """Give what each record waits for, 0 for nothing."""
        for field, packed in self.records[RESERVATIONS_KEY].items():
            yield f"r{field}", reservation_deadline_ms(packed)
        for field, packed in self.records[EVENTS_KEY].items():
            yield f"e{field}", event_deadline_ms(packed)

    def _apply(self, entries: Sequence[RawEntry]) -> None:
        # Every call and look-up less counts here: sales change reservations and stock, and there are millions.
        stock, reservations = self.records[STOCK_KEY], self.records[RESERVATIONS_KEY]
        last_ms = self.last_ms
        for entry in entries:
            last_ms = max(last_ms, entry.at_ms)
            # Copies: what is kept must not keep the page that it came in.
            for sku, raw in entry.stock:
                stock[sku] = bytes(raw)
            for field, raw in entry.reservations:
                if (packed := bytes(raw)) != _GONE:
                    reservations[field] = packed
                else:
                    self._forget(RESERVATIONS_KEY, field)
            if entry.events or entry.configuration or entry.moves:
                self._apply_rest(entry)
        self.last_ms = last_ms

    def _apply_rest(self, entry: RawEntry) -> None:
        for key, changes in (
            (EVENTS_KEY, entry.events),
            (CONFIGURATION_KEY, entry.configuration),
        ):
            for field, raw in changes:
                if (packed := bytes(raw)) != _GONE:
                    self.records[key][field] = packed
                else:
                    self._forget(key, field)
        for forget, member in entry.moves:
            self._move(forget, member)

    def _forget(self, key: int, field: str) -> None:
        self.records[key].pop(field, None)

    def _move(self, forget: str, member: str) -> None:
        members = self.moves.setdefault(forget or prefix_of(member), [])
        if forget:
            del members[: bisect.bisect_left(members, member)]
        else:
            bisect.insort(members, member)


class FoldedTail(FoldedState):
    """What the last entries of the ledger put into the state before them, and what they take away."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten_moves: dict[str, str] = {}
        self._forgotten: dict[int, set[str]] = {key: set() for key in RECORD_KEYS}

    def gone(self, key: int) -> Iterable[str]:
        """Name the fields whose record was forgotten, and not made again since."""
        return self._forgotten[key] - self.records[key].keys()

    def gone_deadlines(self) -> Iterator[str]:
        """Name the members of the sorted set that wait for nothing any more."""
        yield from (member for member, at_ms in self._each_deadline() if at_ms == 0)
        yield from (f"r{field}" for field in self.gone(RESERVATIONS_KEY))
        yield from (f"e{field}" for field in self.gone(EVENTS_KEY))

    def _forget(self, key: int, field: str) -> None:
        super()._forget(key, field)
        self._forgotten[key].add(field)

    def _move(self, forget: str, member: str) -> None:
        super()._move(forget, member)
        if forget:
            # Everything below the highest bound goes; what came in below it since has gone from `moves` too.
            self.forgotten_moves[forget] = max(member, self.forgotten_moves.get(forget, ""))


def prefix_of(move: str) -> str:
    """Give the part of a move that names its pool."""
    return move[: move.index("\0", move.index("\0") + 1) + 1]


def _array_head(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big")


@contextmanager
def collector_paused() -> Generator[None]:
    """Look for no cycles: a page has none, and among its many small parts that takes as long as to decode it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
