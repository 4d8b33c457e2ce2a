"""Compares what the gate has, field by field, with the state that the ledger tells."""

import bisect
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Self

import msgspec
from msgspec import Struct

from allocation.folding import (
    DEADLINES_KEY,
    EVENTS_KEY,
    MOVES_KEY,
    RECORD_KEYS,
    RESERVATIONS_KEY,
    Changes,
    FoldedState,
    RawEntry,
    event_deadline_ms,
    reservation_deadline_ms,
)
from allocation.gate.keys import KEY_NAMES

COMPARED_KEYS = (*RECORD_KEYS, DEADLINES_KEY, MOVES_KEY)
# A hold that cannot be ended is put off by a minute at a time, which no entry tells.
PUT_OFF_MS_MAX = 60_000
# Every key has a field without a name, so that it exists also where nothing else is in it.
_PLACEHOLDERS: dict[int, bytes | float] = {DEADLINES_KEY: math.inf, MOVES_KEY: 0.0}
_PLACEHOLDER_RECORD = b"\xc0"

Found = bytes | float | None


class Drift(Struct, frozen=True):
    """One field that the gate tells otherwise than the ledger; None where one of them has none."""

    key: str
    field: str
    gate: str | None
    ledger: str | None


class ComparedState(FoldedState):
    """The state that the ledger tells, with deadlines and moves at hand: a round must not decode every record."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines_ms: dict[str, int] = {}
        self.known_moves: set[str] = set()

    @classmethod
    def of(cls, state: FoldedState) -> Self:
        """Take a folded state over, which must not be used any more."""
        made = cls()
        made.records, made.moves, made.last_ms = state.records, state.moves, state.last_ms
        made.deadlines_ms = dict(state.deadlines())
        made.known_moves = set(chain.from_iterable(state.moves.values()))
        return made

    def lay_out(self, key: int, found: dict[str, Found]) -> None:
        """Keep the records of a key in the order in which they were found, in memory too.

        They will be looked for in that order again, and what lies side by side is found in half the time.
        """
        if key not in self.records:
            return
        records, laid = self.records[key], dict[str, bytes]()
        for field, value in found.items():
            if isinstance(value, bytes) and records.get(field) == value:
                laid[field] = value
        laid.update([item for item in records.items() if item[0] not in laid])
        self.records[key] = laid

    def _apply(self, entries: Sequence[RawEntry]) -> None:
        super()._apply(entries)
        for entry in entries:
            self._note_deadlines(RESERVATIONS_KEY, entry.reservations)
            self._note_deadlines(EVENTS_KEY, entry.events)

    def _note_deadlines(self, key: int, changes: Changes) -> None:
        prefix, deadline_of = (
            ("e", event_deadline_ms) if key == EVENTS_KEY else ("r", reservation_deadline_ms)
        )
        for field, _ in changes:
            packed = self.records[key].get(field)
            deadline_ms = deadline_of(packed) if packed is not None else 0
            if deadline_ms:
                self.deadlines_ms[prefix + field] = deadline_ms
            else:
                self.deadlines_ms.pop(prefix + field, None)

    def _move(self, forget: str, member: str) -> None:
        if forget:
            members = self.moves.get(forget, [])
            self.known_moves.difference_update(members[: bisect.bisect_left(members, member)])
        else:
            self.known_moves.add(member)
        super()._move(forget, member)


def told(state: ComparedState, key: int, fields: Sequence[str]) -> list[Found]:
    """Give what the ledger tells of some fields: packed records, or scores in a sorted set; None for no field."""
    found = _told(state, key, fields)
    if "" in fields:
        placeholder = _PLACEHOLDERS.get(key, _PLACEHOLDER_RECORD)
        return [value if field else placeholder for field, value in zip(fields, found, strict=True)]
    return found


def count_of(state: ComparedState, key: int) -> int:
    """Say how many fields the gate should have, the one without a name among them."""
    if key == DEADLINES_KEY:
        return 1 + len(state.deadlines_ms)
    if key == MOVES_KEY:
        return 1 + len(state.known_moves)
    return 1 + len(state.records[key])


def fields_of(state: ComparedState, key: int) -> Iterator[str]:
    """Give every field that the gate should have."""
    yield ""
    if key == DEADLINES_KEY:
        yield from state.deadlines_ms
    elif key == MOVES_KEY:
        yield from state.known_moves
    else:
        yield from state.records[key]


def differing(
    state: ComparedState, key: int, fields: Sequence[str], values: Sequence[Found], now_ms: int
) -> list[tuple[str, Found]]:
    """Give what differs from the ledger's state, of the fields and values found in one key at `now_ms`."""
    tells = told(state, key, fields)
    if tells == values:
        return []
    return [
        (field, value)
        for field, value, tell in zip(fields, values, tells, strict=True)
        if value != tell and not (key == DEADLINES_KEY and _is_put_off(value, tell, now_ms))
    ]


def drift_of(key: int, field: str, found: Found, told: Found) -> Drift:
    """Put a difference into words."""
    return Drift(KEY_NAMES[key - 1], _shown_text(field), _shown(found), _shown(told))


def _told(state: ComparedState, key: int, fields: Sequence[str]) -> list[Found]:
    if key == MOVES_KEY:
        return [0.0 if field in state.known_moves else None for field in fields]
    # One call for a whole page: there are hundreds of thousands of fields a round.
    get = state.deadlines_ms.get if key == DEADLINES_KEY else state.records[key].get
    return list(map(get, fields))


def _is_put_off(found: Found, told: Found, now_ms: int) -> bool:
    if isinstance(found, bytes) or isinstance(told, bytes) or found is None or told is None:
        return False
    return 0 < told < found and told <= now_ms and found <= now_ms + PUT_OFF_MS_MAX


def _shown(value: Found) -> str | None:
    if value is None:
        return None
    if not isinstance(value, bytes):
        return f"{value:.0f}"
    try:
        return _shown_text(msgspec.json.encode(msgspec.msgpack.decode(value)).decode())
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        return f"0x{value.hex()}"


def _shown_text(text: str) -> str:
    """Give a text that every database takes: a zero, and what is no character, is written out."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
