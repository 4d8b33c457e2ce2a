"""Puts the state that the ledger tells into a gate: the newest record of everything, nothing decided again."""

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from msgspec import Raw, Struct

from allocation.errors import Diverged, Fenced
from allocation.journal import EventRecord
from allocation.model import Reservation
from allocation.outcomes import State
from allocation.ports import Gate, Head, Ledger

PAGE_ENTRIES = 5_000
PUT_FIELDS = 2_000
STOCK_KEY, RESERVATIONS_KEY, EVENTS_KEY, CONFIGURATION_KEY, DEADLINES_KEY, MOVES_KEY = range(2, 8)


class _RawEntry(Struct, array_like=True, frozen=True):
    kind: int
    at_ms: int
    subject: str
    reservations: list[tuple[str, Raw]]
    stock: list[tuple[str, Raw]]
    events: list[tuple[str, Raw]]
    configuration: list[tuple[str, Raw]]
    moves: list[tuple[str, str]]


_decode = msgspec.msgpack.Decoder(_RawEntry).decode
_decode_reservation = msgspec.msgpack.Decoder(Reservation).decode
_decode_event = msgspec.msgpack.Decoder(EventRecord).decode
_NIL = b"\xc0"
Argument = str | bytes | int


class FoldedState:
    """The gate's state as the ledger tells it: for each key and field, the record last written."""

    def __init__(self) -> None:
        self.records: dict[int, dict[str, bytes]] = {
            key: {} for key in (STOCK_KEY, RESERVATIONS_KEY, EVENTS_KEY, CONFIGURATION_KEY)
        }
        self.moves: dict[str, list[str]] = {}
        self.last_ms = 0

    def apply(self, body: bytes) -> None:
        """Take one journal entry over. Entries must come in the order of the ledger."""
        entry = _decode(body)
        self.last_ms = max(self.last_ms, entry.at_ms)
        self._put(RESERVATIONS_KEY, entry.reservations)
        self._put(STOCK_KEY, entry.stock)
        self._put(EVENTS_KEY, entry.events)
        self._put(CONFIGURATION_KEY, entry.configuration)
        for forget, member in entry.moves:
            self._move(forget, member)

    def deadlines(self) -> Iterator[tuple[str, int]]:
        """Give every deadline that waits: member of the sorted set, ms; negative for what is to be forgotten."""
        for field, packed in self.records[RESERVATIONS_KEY].items():
            record = _decode_reservation(packed)
            if record.state is State.HELD:
                yield f"r{field}", record.deadline_ms
            elif record.deadline_ms > 0:
                yield f"r{field}", -record.deadline_ms
        for field, packed in self.records[EVENTS_KEY].items():
            yield f"e{field}", -_decode_event(packed).deadline_ms

    def _put(self, key: int, changes: list[tuple[str, Raw]]) -> None:
        records = self.records[key]
        for field, raw in changes:
            packed = bytes(raw)
            if packed == _NIL:
                records.pop(field, None)
            else:
                records[field] = packed

    def _move(self, forget: str, member: str) -> None:
        prefix = forget or member[: member.index("\0", member.index("\0") + 1) + 1]
        members = self.moves.setdefault(prefix, [])
        if forget:
            del members[: bisect.bisect_left(members, member)]
        else:
            bisect.insort(members, member)


def _ignore(_read: int, _through: int) -> None:
    return


async def fold(
    ledger: Ledger, through_sequence: int, on_read: Callable[[int, int], None] = _ignore
) -> FoldedState:
    """Read the ledger from its start and give the state at `through_sequence`; `on_read` hears how far it is.

    Raises Diverged where the ledger does not have every entry up to there.
    """
    state, read = FoldedState(), 0
    while read < through_sequence:
        page = await ledger.read(read, min(PAGE_ENTRIES, through_sequence - read))
        if not page:
            raise Diverged
        for sequence, body in page:
            if sequence != read + 1:
                raise Diverged
            state.apply(body)
            read = sequence
        on_read(read, through_sequence)
    return state


async def load(gate: Gate, state: FoldedState, head: Head) -> None:
    """Put a folded state into the gate and open it. Raises Fenced where a newer take-over is under way."""
    await _step(gate, "begin", head.epoch)
    for key, records in state.records.items():
        for chunk in _chunks([part for item in records.items() for part in item]):
            await _step(gate, "put", head.epoch, key, *chunk)
    deadlines = [part for member, at_ms in state.deadlines() for part in (at_ms, member)]
    members = [part for moves in state.moves.values() for move in moves for part in (0, move)]
    for key, parts in ((DEADLINES_KEY, deadlines), (MOVES_KEY, members)):
        for chunk in _chunks(parts):
            await _step(gate, "put", head.epoch, key, *chunk)
    await _step(gate, "open", head.epoch, head.last_sequence, head.last_hash, state.last_ms)


def _chunks(parts: Sequence[Argument]) -> Iterable[Sequence[Argument]]:
    return (parts[first : first + PUT_FIELDS] for first in range(0, len(parts), PUT_FIELDS))


async def _step(gate: Gate, step: str, epoch: int, *arguments: Argument) -> None:
    if not await gate.load_step(step, epoch, *arguments):
        raise Fenced
