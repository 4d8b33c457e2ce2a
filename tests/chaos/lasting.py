"""How long holds last by a clock that nobody sets: that of the run, which every line of the history carries.

The ledger's own times are the gate's, and it is the gate's clock that is set here. When a row was made is known
from the clients: not before it, or one before it in the ledger, was asked for; and not after it, or one after it,
was answered.
"""

import math
from collections.abc import Iterator
from itertools import accumulate

from chaos.record import ROWS_OF, Record

from allocation.outcomes import Kind

# What a decision on clocks promises (docs/decisions/0011): a tenth of its time, between two edges of two seconds.
FOLLOWING_SHARE, EDGES_SECONDS = 0.1, 4.0
# From its deadline until a sweep has ended a hold for certain, on a machine of its own.
GRACE_SECONDS = 5.0
CLOCK_FAULT = "redis-clock"


def holds_last(record: Record) -> list[str]:
    """C16: no hold ends much earlier than it was given for, nor much later where only clocks were set.

    A process that started while a clock was wrong believed it, and is promised nothing.
    """
    if _has_believed_a_wrong_clock(record):
        return []
    earliest, latest = _earliest(record), _latest(record)
    only_clocks = all(fault["kind"] == CLOCK_FAULT for fault in record.final["faults"])
    late_seconds = GRACE_SECONDS * record.final.get("room", 1.0) if only_clocks else math.inf
    wrong: list[str] = []
    for key, given, ended, ttl_seconds in _expired(record):
        longest = latest[ended - 1] - earliest[given - 1]
        shortest = earliest[ended - 1] - latest[given - 1]
        bound_seconds = FOLLOWING_SHARE * ttl_seconds + EDGES_SECONDS
        if longest < ttl_seconds - bound_seconds:
            told = f"{longest:.1f} s at most"
        elif shortest > ttl_seconds + bound_seconds + late_seconds:
            told = f"{shortest:.1f} s at least"
        else:
            continue
        wrong.append(f"row {ended}: {key} lasted {told}, not {ttl_seconds:.0f} s")
    return wrong


def _expired(record: Record) -> Iterator[tuple[str, int, int, float]]:
    """Give for each hold that expired: its key, the rows that gave it its time and ended it, and that time."""
    for key in record.reservations:
        given, ttl_seconds = 0, 0.0
        for sequence, known in record.life(key):
            row = record.rows[sequence - 1]
            if row.kind in {Kind.HELD, Kind.EXTENDED}:
                given, ttl_seconds = sequence, (known.deadline_ms - row.at_ms) / 1_000
            elif row.kind == Kind.EXPIRED:
                yield key, given, sequence, ttl_seconds


def _has_believed_a_wrong_clock(record: Record) -> bool:
    wrong = [
        (fault["began"], fault["ended"])
        for fault in record.final["faults"]
        if fault["kind"] == CLOCK_FAULT
    ]
    return any(
        started < ended and _first_answer(record, service, started) > began
        for service, starts in record.final.get("starts", {}).items()
        for started in starts
        for began, ended in wrong
    )


def _first_answer(record: Record, service: str, after: float) -> float:
    """Say when a service that was started had looked at the clock for certain."""
    answered = (
        attempt.completed_seconds
        for attempt in record.attempts
        if attempt.service == service and attempt.status and attempt.completed_seconds > after
    )
    return min(answered, default=math.inf)


def _earliest(record: Record) -> list[float]:
    """Give for each row the moment before which it was not made."""
    asked = [0.0] * len(record.rows)
    for place, rows in record.rows_by_key.items():
        attempts = record.by_key.get(place)
        for row in rows if attempts else ():
            asked[row.sequence - 1] = min(attempt.invoked_seconds for attempt in attempts or ())
    return list(accumulate(asked, max))


def _latest(record: Record) -> list[float]:
    """Give for each row the moment after which it was there."""
    told = [math.inf] * len(record.rows)
    for (kind, key), rows in record.rows_by_key.items():
        # Of several rows an answer does not say which one it tells of.
        if len(rows) == 1 and kind in ROWS_OF:
            told[rows[0].sequence - 1] = min(
                (
                    attempt.completed_seconds
                    for attempt in record.by_key.get((kind, key), [])
                    if attempt.verdict == "ok"
                ),
                default=math.inf,
            )
    return list(accumulate(reversed(told), min))[::-1]
