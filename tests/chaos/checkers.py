"""What must hold of every run, each a function of what it has written down that gives what it found wrong."""

import signal
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from chaos.history import Attempt
from chaos.inbound import deliveries_have_one_effect
from chaos.lasting import holds_last
from chaos.linear import linear
from chaos.logs import complaints_of
from chaos.order import milliseconds, real_time
from chaos.record import ROWS_OF, Record, Row, unpacked, wanted_by_sku
from chaos.replaying import replay

from allocation.folding import (
    CONFIGURATION_KEY,
    EVENTS_KEY,
    RESERVATIONS_KEY,
    STOCK_KEY,
    FoldedState,
)
from allocation.journal import GENESIS_HASH, chain
from allocation.outcomes import Kind, State
from allocation.recount import Recount

FIRST_SUCCESS_SECONDS_MAX = 5.0
CONVERGED_SECONDS_MAX = 10.0
# From its deadline until a sweep has ended a hold for certain.
GRACE_MS = 5_000
# So old a figure in memory may be.
MOMENT_MS = 2_000
# A service that is still starting has not yet said that it minds the signal.
_ENDED_AS_ASKED = (0, -signal.SIGTERM)


def no_oversell(record: Record) -> list[str]:
    """C1: no row promised units that were not there."""
    recount = Recount()
    for row in record.rows:
        recount.apply(row.sequence, row.body)
    return [f"{over.sequence}: {over.units} of {over.sku} too many" for over in recount.oversold]


def no_lost_acknowledgement(record: Record) -> list[str]:
    """C2: every success has its row; that the row tells the same result is for C6."""
    return [
        f"line {attempt.completed_at}: {attempt.operation.kind} {attempt.operation.key}"
        " was acknowledged and is not there"
        for attempt in record.attempts
        if attempt.verdict == "ok"
        and attempt.operation.kind in ROWS_OF
        and not _is_remembered(record, attempt)
    ]


def _is_remembered(record: Record, attempt: Attempt) -> bool:
    kind, key = attempt.operation.kind, attempt.operation.key
    rows = record.rows_by_key.get((kind, key), [])
    if kind == "reserve":
        return any(row.kind == Kind.HELD for row in rows)
    if kind == "extend":
        until_ms = milliseconds(attempt.answer["expires_at"])
        return any(_reservation(row).deadline_ms == until_ms for row in rows)
    if kind == "confirm" and not rows:
        # A hold that is shipped at once is a placed order from then on.
        placed = {State.COMMITTED, State.SHIPPED}
        return any(known.state in placed for _, known in record.life(key))
    return bool(rows)


def no_double_apply(record: Record) -> list[str]:
    """C3: one effect per key, however often it was asked for."""
    wrong: list[str] = []
    for (kind, key), rows in record.rows_by_key.items():
        # An order that was placed without a number may be given one later.
        most = {"confirm": 2, "extend": len(record.by_key.get((kind, key), []))}.get(kind, 1)
        if len(rows) > most:
            wrong.append(f"{kind} {key} was done {len(rows)} times")
    for place, attempts in record.by_key.items():
        applied = [
            attempt
            for attempt in attempts
            if attempt.verdict == "ok" and place[0] in {"reserve", "move"} and not attempt.replayed
        ]
        if len(applied) > 1:
            wrong.append(f"{place[0]} {place[1]} was told {len(applied)} times that it is new")
    return wrong


def no_effect_without_cause(record: Record) -> list[str]:
    """C4: what failed had no effect; what is not known had one or none; nobody is left unsure."""
    wrong = [f"operation {number} was never resolved" for number in record.final["unresolved"]]
    for (kind, key), rows in record.rows_by_key.items():
        attempts = record.by_key.get((kind, key), [])
        causes = [
            attempt
            for attempt in attempts
            if attempt.verdict == "info" or (attempt.verdict == "ok" and not attempt.replayed)
        ]
        for row in rows:
            refused = row.kind == Kind.REFUSED and any(
                attempt.slug == "insufficient-stock" for attempt in attempts
            )
            if not causes and not refused:
                wrong.append(
                    f"row {row.sequence}: {kind} {key} was done, though every answer denies it"
                )
            if row.kind == Kind.HELD and not any(
                _held(row) == wanted_by_sku(attempt.operation.body) for attempt in causes
            ):
                wrong.append(f"row {row.sequence}: {key} was held with a body that was refused")
        if causes and len(rows) > len(causes):
            wrong.append(f"{kind} {key} was done {len(rows)} times, by {len(causes)} attempts")
    return wrong


def ledger_is_whole(record: Record) -> list[str]:
    """C8: no gap, every hash covers the one before, epochs and times never go back, the head is the end."""
    wrong: list[str] = []
    latest = GENESIS_HASH
    for expected, row in enumerate(record.rows, 1):
        latest = chain(latest, row.body)
        if row.sequence != expected:
            wrong.append(f"row {expected} is missing; there is {row.sequence}")
            break
        if row.hash != latest:
            wrong.append(f"row {row.sequence} does not continue the one before")
            break
    for before, after in pairwise(record.rows):
        if after.epoch < before.epoch:
            wrong.append(f"row {after.sequence} is of epoch {after.epoch}, after {before.epoch}")
        if after.at_ms < before.at_ms:
            wrong.append(
                f"row {after.sequence} is {before.at_ms - after.at_ms} ms older than the one before"
            )
    for row in record.rows:
        entry = row.entry
        if (row.at_ms, row.kind, row.subject) != (entry.at_ms, entry.kind, entry.subject):
            wrong.append(f"row {row.sequence} says otherwise than its body")
    head, count = record.final["head"], len(record.rows)
    if (head["last_sequence"], head["last_hash"]) != (count, record.rows[-1].hash if count else ""):
        wrong.append(f"the head is {head}, after {count} rows")
    return wrong


def gate_is_ledger(record: Record) -> list[str]:
    """C9: after healing the gate, and every service's figures, are the ledger's, and soon."""
    folded, gate, head = FoldedState(), record.final["gate"], record.final["head"]
    for row in record.rows:
        folded.apply(row.body)
    wrong = [
        f"the gate's {name} differ from the ledger's: {_differing(unpacked(gate[name]), folded.records[key])}"
        for name, key in (
            ("stock", STOCK_KEY),
            ("reservations", RESERVATIONS_KEY),
            ("events", EVENTS_KEY),
            ("configuration", CONFIGURATION_KEY),
        )
        if unpacked(gate[name]) != folded.records[key]
    ]
    if dict(map(tuple, gate["deadlines"])) != dict(folded.deadlines()):
        wrong.append("the gate's deadlines differ from the ledger's")
    if sorted(gate["moves"]) != sorted(move for kept in folded.moves.values() for move in kept):
        wrong.append("the gate's moves differ from the ledger's")
    meta = gate["meta"]
    if (meta.get("epoch"), meta.get("sequence"), meta.get("hash")) != (
        str(head["epoch"]),
        str(head["last_sequence"]),
        head["last_hash"],
    ):
        wrong.append(f"the gate stands at {meta}, the ledger at {head}")
    return wrong + _figures_differ(record) + _took_too_long(record)


def _differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    return sorted(
        field for field in found.keys() | expected.keys() if found.get(field) != expected.get(field)
    )[:5]


def _figures_differ(record: Record) -> list[str]:
    """Compare the last figures with the ledger at their version, which must not be an old one.

    A hold may end by itself after they were read.
    """
    asked = {
        (sku, told["version"])
        for figures in record.final["figures"].values()
        for sku, told in (figures or {}).items()
    }
    carried: dict[tuple[str, int], list[tuple[Any, ...]]] = {}
    newest: dict[str, int] = defaultdict(int)
    for row in record.rows:
        for sku, stock in row.entry.stock:
            if (sku, row.sequence) in asked:
                carried[sku, row.sequence] = [
                    (pool.location, pool.on_hand, pool.reserved, pool.committed)
                    for pool in stock.pools
                ]
            if row.at_ms < record.final["figures_read_ms"] - MOMENT_MS:
                newest[sku] = row.sequence
    wrong: list[str] = []
    for service, figures in record.final["figures"].items():
        for sku, told in (figures or {}).items():
            expected = carried.get((sku, told["version"]))
            found = [
                tuple(pool[name] for name in ("location", "on_hand", "reserved", "committed"))
                for pool in told["locations"]
            ]
            if found != expected or told["version"] < newest[sku]:
                at = f"{told['version']} of {newest[sku]}"
                wrong.append(f"{service} says {sku} is {found} at {at}, the ledger {expected}")
    return wrong


def _took_too_long(record: Record) -> list[str]:
    final = record.final
    room = CONVERGED_SECONDS_MAX * final.get("room", 1.0)
    return [
        f"{what} took {final[name]} s"
        for what, name in (("to be ready", "ready_seconds"), ("to agree", "agreed_seconds"))
        if final[name] is None or final[name] > room
    ]


def carts_are_whole(record: Record) -> list[str]:
    """C10: a cart is held with all it asked for, or not at all."""
    return [
        f"row {row.sequence}: {key} has {_held(row)} of a cart that nobody asked for like that"
        for (kind, key), rows in record.rows_by_key.items()
        for row in rows
        if kind == "reserve"
        and row.kind == Kind.HELD
        and not any(
            _held(row) == wanted_by_sku(attempt.operation.body)
            for attempt in record.by_key.get((kind, key), [])
        )
    ]


def _reservation(row: Row) -> Any:
    return row.entry.reservations[0][1]


def _held(row: Row) -> dict[str, int]:
    held: dict[str, int] = defaultdict(int)
    for line in _reservation(row).lines:
        held[line.sku] += line.quantity
    return dict(held)


def units_are_conserved(record: Record) -> list[str]:
    """C11: every figure that was read adds up, to what the changes before its version come to."""
    told = [
        (attempt.completed_at, item)
        for attempt in record.attempts
        if attempt.verdict == "ok" and attempt.operation.kind in {"availability", "stock"}
        for item in _items(attempt)
    ]
    counted = _counted_at_versions(record, {(item["sku"], item["version"]) for _, item in told})
    return [
        f"line {line}: {item}, counted {counted.get((item['sku'], item['version']))}"
        for line, item in told
        if _told(item) not in counted.get((item["sku"], item["version"]), ())
    ]


def _items(attempt: Attempt) -> list[dict[str, Any]]:
    answer = attempt.answer
    return [answer] if attempt.operation.kind == "stock" else answer["items"]


def _told(item: dict[str, Any]) -> Any:
    if "available" in item:
        return item["available"]
    return tuple(
        (
            pool["location"],
            pool["on_hand"],
            pool["reserved"],
            pool["committed"],
            pool["available"],
        )
        for pool in item["locations"]
    )


def _counted_at_versions(
    record: Record, asked: set[tuple[str, int]]
) -> dict[tuple[str, int], tuple[Any, Any]]:
    """Count SKUs anew at the rows that were asked for: what may be sold, and every bucket."""
    recount = Recount()
    counted: dict[tuple[str, int], tuple[Any, Any]] = {}
    for row in record.rows:
        recount.apply(row.sequence, row.body)
        for sku, stock in row.entry.stock:
            if (sku, row.sequence) not in asked:
                continue
            pools = [
                (pool.location, recount._pool((sku, pool.location)).figures())
                for pool in stock.pools
            ]
            available = sum(max(0, figures.available) for _, figures in pools)
            buckets = tuple(
                (place, figures.on_hand, figures.reserved, figures.committed, figures.available)
                for place, figures in pools
            )
            counted[sku, row.sequence] = available, buckets
    return counted


def no_phantom(record: Record) -> list[str]:
    """C12: no hold ends early, and none outlives its deadline."""
    wrong: list[str] = []
    for key in record.reservations:
        lives = record.life(key)
        for (_, before), (sequence, after) in pairwise(lives):
            at_ms = record.rows[sequence - 1].at_ms
            if after.state is State.EXPIRED and before.deadline_ms > at_ms:
                wrong.append(f"row {sequence}: {key} ended {before.deadline_ms - at_ms} ms early")
        last = lives[-1][1]
        late_ms = record.final["served_until_ms"] - last.deadline_ms
        if last.state is State.HELD and late_ms > GRACE_MS:
            wrong.append(f"{key} is held {late_ms} ms after its deadline")
    return wrong


def sells_again(record: Record) -> list[str]:
    """C13: soon after the last fault somebody succeeds."""
    if not record.final["faults"]:
        return []
    waited = first_success_seconds(record)
    if waited is None:
        return ["nobody succeeded after the last fault"]
    most = FIRST_SUCCESS_SECONDS_MAX * record.final.get("room", 1.0)
    return [f"the first success came {waited:.1f} s after the last fault"] if waited > most else []


def first_success_seconds(record: Record) -> float | None:
    """Give how long after the last fault a change was acknowledged; None where none was."""
    ended = max((fault["ended"] for fault in record.final["faults"]), default=0.0)
    successes = [
        attempt.completed_seconds - ended
        for attempt in record.attempts
        if attempt.verdict == "ok"
        and attempt.operation.kind in ROWS_OF
        and attempt.completed_seconds >= ended
    ]
    return min(successes, default=None)


def logs_are_clean(record: Record) -> list[str]:
    """C15: no service has met a bug, and each ends as it is asked to."""
    wrong = [
        f"{name}: {complaint}"
        for name, text in record.logs.items()
        for complaint in complaints_of(text)
    ]
    wrong += [
        f"{name} was asked to end, and ended with status {status}"
        for name, statuses in record.final["exit_statuses"].items()
        for status in statuses
        if status not in _ENDED_AS_ASKED
    ]
    return wrong + [
        f"{name} ended by itself, with status {ended['status']}, after it had begun to answer"
        for name, endings in record.final["ended_by_themselves"].items()
        for ended in endings
        if _had_answered(record, name, ended)
    ]


def _had_answered(record: Record, service: str, ended: dict[str, float]) -> bool:
    return any(
        attempt.status and ended["started"] < attempt.completed_seconds <= ended["ended"]
        for attempt in record.attempts
        if attempt.service == service
    )


CHECKERS: dict[str, Callable[[Record], list[str]]] = {
    "C1 no oversell": no_oversell,
    "C2 no lost acknowledgement": no_lost_acknowledgement,
    "C3 no double apply": no_double_apply,
    "C4 no effect without cause": no_effect_without_cause,
    "C5 the model agrees": replay,
    "C6 real time": real_time,
    "C7 linear for each SKU": linear,
    "C8 the ledger is whole": ledger_is_whole,
    "C9 the gate is the ledger": gate_is_ledger,
    "C10 carts are whole": carts_are_whole,
    "C11 units are conserved": units_are_conserved,
    "C12 no phantom": no_phantom,
    "C13 sells again": sells_again,
    "C14 deliveries have one effect": deliveries_have_one_effect,
    "C15 logs are clean": logs_are_clean,
    "C16 holds last": holds_last,
}


def verdicts(record: Record) -> dict[str, list[str]]:
    """Give what every checker found; one that cannot make sense of a run has found something too."""
    found: dict[str, list[str]] = {}
    for name, checker in CHECKERS.items():
        try:
            found[name] = checker(record)
        except (LookupError, TypeError, ValueError, AttributeError) as fault:
            found[name] = [f"what was written down makes no sense: {fault!r}"]
    return found


def counts(record: Record) -> Counter[str]:
    """Count attempts by what came of them."""
    return Counter(attempt.verdict for attempt in record.attempts)
