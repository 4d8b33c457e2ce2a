"""Real time: what was answered before a request began had happened, and what was asked after its answer had not.

The ledger gives the order of all decisions. An attempt's floor is the newest row that somebody had been told of
when it began; its ceiling is the row before the first one that was asked for only after it was answered. Whatever
an answer shows must have been so at some row between the two.
"""

import bisect
from array import array
from datetime import datetime
from typing import Any

from chaos.history import Attempt
from chaos.record import Record, wanted_by_sku

from allocation.model import Reservation
from allocation.outcomes import State

_RESERVATION_KINDS = {"reserve", "confirm", "release", "extend", "read"}
# What each refusal says about the reservation, by the operation that was refused; None: there is none.
_SAYS: dict[tuple[str, str], set[State | None]] = {
    ("reserve", "insufficient-stock"): {State.REFUSED},
    ("confirm", "hold-lost"): {State.RELEASED, State.EXPIRED},
    ("extend", "hold-lost"): {State.RELEASED, State.EXPIRED},
    ("extend", "already-committed"): {State.COMMITTED, State.SHIPPED, State.RETURNED},
    ("release", "already-shipped"): {State.SHIPPED, State.RETURNED},
    **{
        (kind, "unknown-reservation"): {None, State.REFUSED}
        for kind in ("confirm", "release", "extend", "read")
    },
}


class Order:
    """The windows of all attempts of a run."""

    def __init__(self, record: Record) -> None:
        self._record = record
        asked_at = sorted(self._first_asked(record))
        self._asked_at = [line for line, _ in asked_at]
        self._lowest_from = [0] * len(asked_at)
        lowest = len(record.rows) + 1
        for place in range(len(asked_at) - 1, -1, -1):
            lowest = min(lowest, asked_at[place][1])
            self._lowest_from[place] = lowest
        self._floors = array("q")
        self._find_floors()

    @staticmethod
    def _first_asked(record: Record) -> list[tuple[int, int]]:
        """Give for each row that was asked for: the line at which that was first done, and its sequence."""
        return [
            (min(attempt.invoked_at for attempt in record.by_key[place]), row.sequence)
            for place, rows in record.rows_by_key.items()
            if place in record.by_key
            for row in rows
        ]

    def _find_floors(self) -> None:
        attempts = self._record.attempts
        lines = 1 + max((max(it.invoked_at, it.completed_at or 0) for it in attempts), default=0)
        events: list[Attempt | None] = [None] * lines
        for attempt in attempts:
            events[attempt.invoked_at] = attempt
            if attempt.completed_at is not None and attempt.verdict == "ok":
                events[attempt.completed_at] = attempt
        floor = 0
        for line, attempt in enumerate(events):
            if attempt is not None and attempt.completed_at == line:
                floor = max(floor, self._told(attempt))
            self._floors.append(floor)

    def floor(self, attempt: Attempt) -> int:
        """Give the newest row that somebody had been told of when an attempt began."""
        return self._floors[attempt.invoked_at]

    def _told(self, attempt: Attempt) -> int:
        """Give the newest row that a success proves to be there."""
        kind, answer = attempt.operation.kind, attempt.answer
        if kind == "availability":
            return max(item["version"] for item in answer["items"])
        if kind in {"stock", "configure"}:
            return answer["version"]
        if kind == "move":
            rows = self._record.rows_by_key.get(("move", attempt.operation.key))
            return rows[0].sequence if rows else 0
        lives = self._record.life(attempt.operation.key)
        return next((sequence for sequence, known in lives if shows(answer, known)), 0)

    def ceiling(self, attempt: Attempt) -> int:
        """Give the newest row that an attempt can have known of."""
        if attempt.completed_at is None:
            return len(self._record.rows)
        place = bisect.bisect_left(self._asked_at, attempt.completed_at)
        if place == len(self._lowest_from):
            return len(self._record.rows)
        return self._lowest_from[place] - 1

    def states(self, attempt: Attempt) -> list[Reservation | None]:
        """Give every state that the attempt's reservation was in within its window."""
        floor, ceiling = self.floor(attempt), self.ceiling(attempt)
        lives = self._record.life(attempt.operation.key)
        after = [sequence for sequence, _ in lives[1:]] + [len(self._record.rows) + 1]
        found: list[Reservation | None] = [
            known
            for (sequence, known), ended in zip(lives, after, strict=False)
            if sequence <= ceiling and ended > floor
        ]
        if not lives or lives[0][0] > floor:
            found.append(None)
        return found


def real_time(record: Record) -> list[str]:
    """C6: rows and answers are in the order of real time."""
    order, wrong = Order(record), list[str]()
    for (kind, key), rows in record.rows_by_key.items():
        asked = record.by_key.get((kind, key))
        for row in rows if asked else ():
            floor = min(order.floor(attempt) for attempt in asked or ())
            if row.sequence <= floor:
                wrong.append(
                    f"row {row.sequence} of {key} was asked for after row {floor} was told"
                )
    for attempt in record.attempts:
        if attempt.operation.kind in _RESERVATION_KINDS and attempt.verdict in {"ok", "fail"}:
            complaint = _check(order, attempt)
            if complaint:
                wrong.append(f"line {attempt.completed_at}: {complaint}")
    return wrong


def _check(order: Order, attempt: Attempt) -> str:
    kind, key = attempt.operation.kind, attempt.operation.key
    states = order.states(attempt)
    if attempt.verdict == "ok":
        answer = attempt.answer
        if not any(known is not None and shows(answer, known) for known in states):
            return f"{kind} {key} was told {answer}, which it was at no such time"
        return ""
    named = {None if known is None else known.state for known in states}
    if attempt.slug == "idempotency-mismatch" and kind == "reserve":
        others = [known for known in states if known and not _may_be_of(known, attempt)]
        return "" if others else f"{key} was told of another body that nothing was done for"
    says = _SAYS.get((kind, attempt.slug))
    if says is not None and not says & named:
        return f"{kind} {key} was refused as {attempt.slug}, but it was {named}"
    return ""


def shows(answer: dict[str, Any], known: Reservation) -> bool:
    """Say whether an answer shows this very state of a reservation."""
    units: dict[tuple[str, str], int] = {}
    for line in known.lines:
        units[line.sku, line.location] = units.get((line.sku, line.location), 0) + line.quantity
    told = {(line["sku"], line["location"]): line["quantity"] for line in answer["lines"]}
    return (
        answer["state"] == known.state.name.lower()
        and answer["channel"] == known.channel
        and answer.get("order_id", "") == known.order_id
        and told == units
        and (
            known.state is not State.HELD or milliseconds(answer["expires_at"]) == known.deadline_ms
        )
    )


def milliseconds(moment: str) -> int:
    """Read a time of the contract."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def _may_be_of(known: Reservation, attempt: Attempt) -> bool:
    if known.state is State.REFUSED:
        # Of a refusal only what was lacking is kept: it may always have been of another body.
        return False
    held: dict[str, int] = {}
    for line in known.lines:
        held[line.sku] = held.get(line.sku, 0) + line.quantity
    return held == wanted_by_sku(attempt.operation.body)
