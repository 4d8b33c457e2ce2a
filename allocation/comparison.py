"""Compares what the gate has, field by field, with the state that the ledger tells."""

import bisect
import math
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from allocation.folding import (
    CONFIGURATION_KEY,
    DEADLINES_KEY,
    EVENTS_KEY,
    MOVES_KEY,
    RECORD_KEYS,
    RESERVATIONS_KEY,
    STOCK_KEY,
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
_PLACEHOLDER = b"\xc0"
# Whose deadline it is, by the first letter of the member.
_MEMBER_OF = {"r": RESERVATIONS_KEY, "e": EVENTS_KEY}

Found = bytes | float | None


class Drift(Struct, frozen=True):
    """One field that the gate tells otherwise than the ledger; None where one of them has none."""

    key: str
    field: str
    gate: str | None
    ledger: str | None


class ComparedState(FoldedState):
    """The state that the ledger tells, with the deadlines at hand: a round must not decode every record.

    `changed` has, by key, the fields that entries have changed; whoever compares them empties it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changed: dict[int, set[str]] = {key: set() for key in COMPARED_KEYS}
        self.deadlines_ms: dict[int, dict[str, int]] = {RESERVATIONS_KEY: {}, EVENTS_KEY: {}}

    def _apply(self, entries: Sequence[RawEntry]) -> None:
        super()._apply(entries)
        for entry in entries:
            for key, changes in (
                (STOCK_KEY, entry.stock),
                (RESERVATIONS_KEY, entry.reservations),
                (EVENTS_KEY, entry.events),
                (CONFIGURATION_KEY, entry.configuration),
            ):
                if changes:
                    self._note(key, changes)

    def _note(self, key: int, changes: Changes) -> None:
        self.changed[key].update([field for field, _ in changes])
        deadlines_ms = self.deadlines_ms.get(key)
        if deadlines_ms is None:
            return
        prefix = "e" if key == EVENTS_KEY else "r"
        self.changed[DEADLINES_KEY].update([prefix + field for field, _ in changes])
        deadline_of = event_deadline_ms if key == EVENTS_KEY else reservation_deadline_ms
        records = self.records[key]
        for field, _ in changes:
            packed = records.get(field)
            deadline_ms = deadline_of(packed) if packed is not None else 0
            if deadline_ms:
                deadlines_ms[field] = deadline_ms
            else:
                deadlines_ms.pop(field, None)

    def _move(self, forget: str, member: str) -> None:
        if forget:
            members = self.moves.get(forget, [])
            self.changed[MOVES_KEY].update(members[: bisect.bisect_left(members, member)])
        else:
            self.changed[MOVES_KEY].add(member)
        super()._move(forget, member)


def expected(state: ComparedState, key: int, field: str) -> Found:
    """Give what the ledger tells of one field: a packed record, or a score in a sorted set."""
    if key == DEADLINES_KEY:
        return _deadline(state, field)
    if key == MOVES_KEY:
        return _move(state, field)
    return state.records[key].get(field) if field else _PLACEHOLDER


def count_of(state: ComparedState, key: int) -> int:
    """Say how many fields the gate should have, the one without a name among them."""
    if key == DEADLINES_KEY:
        return 1 + sum(map(len, state.deadlines_ms.values()))
    if key == MOVES_KEY:
        return 1 + sum(map(len, state.moves.values()))
    return 1 + len(state.records[key])


def fields_of(state: ComparedState, key: int) -> Iterator[str]:
    """Give every field that the gate should have."""
    yield ""
    if key == DEADLINES_KEY:
        for prefix, of_key in _MEMBER_OF.items():
            yield from (prefix + field for field in state.deadlines_ms[of_key])
    elif key == MOVES_KEY:
        for members in state.moves.values():
            yield from members
    else:
        yield from state.records[key]


def differing(
    state: ComparedState, key: int, found: Iterable[tuple[str, Found]], now_ms: int
) -> list[tuple[str, Found]]:
    """Give what differs from the ledger's state, of what was found in one key at `now_ms`."""
    if key in {DEADLINES_KEY, MOVES_KEY}:
        tell = _deadline if key == DEADLINES_KEY else _move
        return [
            (field, value)
            for field, value in found
            if (told := tell(state, field)) != value
            and not (key == DEADLINES_KEY and _is_put_off(value, told, now_ms))
        ]
    get = state.records[key].get
    return [
        (field, value) for field, value in found if (get(field) if field else _PLACEHOLDER) != value
    ]


def drift_of(key: int, field: str, found: Found, told: Found) -> Drift:
    """Put a difference into words."""
    return Drift(KEY_NAMES[key - 1], _shown_text(field), _shown(found), _shown(told))


def _deadline(state: ComparedState, member: str) -> float | None:
    of_key = _MEMBER_OF.get(member[:1])
    if of_key is None:
        return math.inf if member == "" else None
    return state.deadlines_ms[of_key].get(member[1:])


def _move(state: ComparedState, member: str) -> float | None:
    second = member.find("\0", member.find("\0") + 1)
    members = state.moves.get(member[: second + 1], ())
    at = bisect.bisect_left(members, member)
    return 0.0 if (at < len(members) and members[at] == member) or member == "" else None


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
