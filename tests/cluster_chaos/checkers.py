"""What must hold of every run over several shards, each a function that gives what it found wrong."""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from chaos.checkers import (
    ledger_is_whole,
    logs_are_clean,
    no_oversell,
    no_phantom,
    units_are_conserved,
)
from chaos.history import Attempt
from chaos.order import milliseconds, real_time
from chaos.record import Record, wanted_by_sku
from cluster_chaos.record import Whole, own, shards_of
from cluster_chaos.replaying import replay

from allocation.outcomes import Kind, State

SOLD_AGAIN_SECONDS_MAX = 5.0
CONVERGED_SECONDS_MAX = 10.0
# A look every 10 seconds, and one more where a fault fell on the first.
SETTLED_SECONDS_MAX = 25.0
# So old a figure in memory may be.
MOMENT_MS = 2_000
POOL = ("location", "on_hand", "reserved", "committed")
_LIVE = {State.HELD, State.COMMITTED}
_SENT = {State.SHIPPED, State.RETURNED}
_GONE = {State.RELEASED, State.EXPIRED}
# Which rows an operation makes on each shard that has a part of it.
_MADE = {
    "reserve": (Kind.HELD,),
    "order": (Kind.ORDERED,),
    "confirm": (Kind.COMMITTED,),
    "extend": (Kind.EXTENDED,),
    "move": (Kind.MOVED,),
}


def _on_each(check: Callable[[Record], list[str]]) -> Callable[[Whole], list[str]]:
    def checked(whole: Whole) -> list[str]:
        return [
            f"shard {shard}: {complaint}"
            for shard, record in enumerate(whole.shards)
            for complaint in check(record)
        ]

    return checked


def answers_are_remembered(whole: Whole) -> list[str]:
    """C2: every success is in the ledger of every shard that has a part of it."""
    return [
        f"{attempt.operation.kind} {attempt.operation.key} was acknowledged, but {lack}"
        for attempt in whole.attempts
        if attempt.verdict == "ok" and (lack := _lacking(whole, attempt))
    ]


def _lacking(whole: Whole, attempt: Attempt) -> str:
    kind, key = attempt.operation.kind, attempt.operation.key
    taken = whole.took(key, Kind.HELD, Kind.ORDERED)
    match kind:
        case "reserve" | "order" | "move":
            found, wanted = whole.took(key, *_MADE[kind]), shards_of(attempt.operation.body)
            partial = attempt.operation.body.get("partial", False)
            right = bool(found) and found <= wanted if partial else found == wanted
            return "" if right else f"is on shards {sorted(found)} of {sorted(wanted)}"
        case "confirm":
            lives = whole.legs.get(key, {})
            done = {
                shard
                for shard in taken
                if any(state.state in {State.COMMITTED, *_SENT} for _, state in lives[shard])
            }
            return "" if taken and done == taken else f"only on {sorted(done)} of {sorted(taken)}"
        case "extend":
            until_ms = milliseconds(attempt.answer["expires_at"])
            rows = whole.rows.get((Kind.EXTENDED, key), {})
            ends = [own(row, row.entry).deadline_ms for each in rows.values() for row in each]
            right = rows.keys() == taken and until_ms in ends
            return "" if right else f"on {sorted(rows)} of {sorted(taken)}, until {ends}"
        case "release":
            last = whole.last(key)
            kept = {shard for shard in taken if last[shard] not in {State.RELEASED, *_SENT}}
            return f"shards {sorted(kept)} still have it" if kept or not taken else ""
        case _:
            return ""


def one_effect_a_key(whole: Whole) -> list[str]:
    """C3: one effect per key on each shard, however often it was asked for; and told once that it is new."""
    wrong: list[str] = []
    decided = (Kind.HELD, Kind.REFUSED, Kind.ORDERED, Kind.MOVED)
    times: Counter[tuple[int, str, str]] = Counter()
    for (kind, key), by_shard in whole.rows.items():
        for shard, rows in by_shard.items() if kind in decided else ():
            times[shard, "move" if kind is Kind.MOVED else "cart", key] += len(rows)
    wrong += [
        f"{what} {key} was decided {n} times on {s}" for (s, what, key), n in times.items() if n > 1
    ]
    for (kind, key), attempts in whole.by_key.items():
        if kind in {"reserve", "order", "move"}:
            news = [one for one in attempts if one.verdict == "ok" and not one.replayed]
            # Each shard may be the one that a fault has kept from answering.
            if len(news) > 1 and len(shards_of(news[0].operation.body)) == 1:
                wrong.append(f"{kind} {key} was told {len(news)} times that it is new")
    return wrong


def no_effect_without_cause(whole: Whole) -> list[str]:
    """C4: what failed had no effect on any shard, and nobody is left unsure."""
    wrong = [f"operation {number} was never resolved" for number in whole.final["unresolved"]]
    for operation, kinds in _MADE.items():
        for kind in kinds:
            for (row_kind, key), by_shard in whole.rows.items():
                attempts = whole.by_key.get((operation, key), []) if row_kind is kind else None
                if attempts is not None and not _has_cause(whole, kind, key, attempts):
                    wrong.append(
                        f"{operation} {key} was done on {sorted(by_shard)}, though every answer denies it"
                    )
    return wrong + _refused_and_kept(whole)


def _has_cause(whole: Whole, kind: Kind, key: str, attempts: list[Attempt]) -> bool:
    if any(attempt.verdict in {"ok", "info"} for attempt in attempts):
        return True
    # A cart that was refused or lost as a whole has been given back where it had been taken.
    slugs = {attempt.slug for attempt in attempts}
    said = {"insufficient-stock", "hold-lost", "already-committed", "unknown-reservation"} & slugs
    given_back = not set(whole.last(key).values()) & {*_LIVE, *_SENT}
    return kind is not Kind.MOVED and bool(said) and given_back


def _refused_and_kept(whole: Whole) -> list[str]:
    """Give what somebody was told for certain that they do not have, and have."""
    wrong: list[str] = []
    for (kind, key), attempts in whole.by_key.items():
        slugs = {attempt.slug for attempt in attempts if attempt.verdict == "fail"}
        last = whole.last(key)
        kept = sorted(shard for shard, state in last.items() if state in {*_LIVE, *_SENT})
        if kind == "reserve" and "insufficient-stock" in slugs and kept:
            wrong.append(f"{key} was refused, and shards {kept} have it")
        # On one shard a confirmation may be tried again; and what has been shipped stays so.
        live = sorted(shard for shard, state in last.items() if state in _LIVE)
        if kind == "confirm" and "hold-lost" in slugs and len(last) > 1 and live:
            wrong.append(f"{key} was lost, and shards {live} have it")
    return wrong


def real_time_on_each_shard(whole: Whole) -> list[str]:
    """C6: rows and answers are in the order of real time, for whatever lies on one shard alone."""
    places: dict[str, set[int]] = defaultdict(set)
    for attempt in whole.attempts:
        if attempt.operation.kind in {"reserve", "move"}:
            body = attempt.operation.body
            places[attempt.operation.key] |= shards_of(body)
            # What gives way to another cart ends without being asked for.
            places[body.get("replaces", "")] |= {-1}
    wrong: list[str] = []
    for shard, record in enumerate(whole.shards):
        sole = [
            attempt
            for attempt in record.attempts
            if attempt.operation.kind in {"availability", "stock"}
            or places.get(attempt.operation.key) == {shard}
        ]
        found = real_time(Record(sole, record.rows, record.final))
        wrong += [f"shard {shard}: {complaint}" for complaint in found]
    return wrong


def ledgers_are_whole(whole: Whole) -> list[str]:
    """C8: no gap, every hash covers the one before, epochs and times never go back, the head is the end."""
    return _on_each(ledger_is_whole)(whole)


def gates_are_ledgers(whole: Whole) -> list[str]:
    """C9: after healing each gate is its ledger, every service tells the same figures, and soon."""
    wrong = [
        f"shard {shard}: {complaint}"
        for shard, complaints in enumerate(whole.final["audits"])
        for complaint in complaints
    ]
    for record in whole.shards:
        wrong += _figures_differ(record)
    return wrong + _took_too_long(whole.final)


def _figures_differ(record: Record) -> list[str]:
    """Compare the last figures with the ledger at their version: a hold may end after they were read."""
    carried: dict[str, dict[int, list[tuple[Any, ...]]]] = defaultdict(dict)
    newest: dict[str, int] = {}
    for row in record.rows:
        for sku, stock in row.entry.stock:
            carried[sku][row.sequence] = [
                (pool.location, pool.on_hand, pool.reserved, pool.committed) for pool in stock.pools
            ]
            if row.at_ms < record.final["figures_read_ms"] - MOMENT_MS:
                newest[sku] = row.sequence
    return [
        f"{service} says {sku} is {found} at {told['version']} of {newest[sku]}, the ledger {expected}"
        for service, figures in record.final["figures"].items()
        for sku, told in (figures or {}).items()
        if sku in carried
        and (
            (found := [tuple(pool[name] for name in POOL) for pool in told["locations"]])
            != (expected := carried[sku].get(told["version"]))
            or told["version"] < newest[sku]
        )
    ]


def _took_too_long(final: dict[str, Any]) -> list[str]:
    limits = {
        "ready_seconds": CONVERGED_SECONDS_MAX,
        "agreed_seconds": CONVERGED_SECONDS_MAX,
        "settled_seconds": SETTLED_SECONDS_MAX,
    }
    return [
        f"{name} are {final[name]}"
        for name, most in limits.items()
        if final[name] is None or final[name] > most * final["room"]
    ]


def carts_are_whole(whole: Whole) -> list[str]:
    """C10: in the end the legs of a cart agree, and each has what was asked of its shard."""
    wrong: list[str] = []
    for key in whole.legs:
        last = whole.last(key)
        complaint = _disagreement(whole, key, last)
        if complaint:
            said = {shard: state.name for shard, state in sorted(last.items())}
            wrong.append(f"{key} {complaint}: {said}")
    return wrong


def _disagreement(whole: Whole, key: str, last: dict[int, State]) -> str:
    """Say what is wrong with the legs of a cart, whichever of the bodies under its key it has been."""
    asked = [
        attempt.operation.body
        for kind in ("reserve", "order")
        for attempt in whole.by_key.get((kind, key), [])
        if attempt.slug != "idempotency-mismatch"
    ]
    complaints = [_disagreement_with(whole, key, last, body) for body in asked]
    return min(complaints, default="was never asked for")


def _disagreement_with(whole: Whole, key: str, last: dict[int, State], body: Any) -> str:
    partial = body.get("partial", False)
    states = {state for state in last.values() if not (partial and state is State.REFUSED)}
    kept = states & {*_LIVE, *_SENT}
    if kept and not partial and last.keys() != shards_of(body):
        return f"lies on {sorted(last)} of {sorted(shards_of(body))}"
    if State.REFUSED in states and kept:
        return "is refused in one place and kept in another"
    if State.COMMITTED in states and states & {State.HELD, *_GONE}:
        return "is committed in one place and not in another"
    # What has expired was extended in one place only, and ends soon in the others.
    if State.HELD in states and states & {State.RELEASED, *_SENT}:
        return "is held in one place and not in another"
    return _other_units(whole, key, body, partial=partial)


def _other_units(whole: Whole, key: str, body: Any, *, partial: bool) -> str:
    taken: dict[str, int] = defaultdict(int)
    shards = whole.took(key, Kind.HELD, Kind.ORDERED)
    for shard in shards:
        for line in whole.legs[key][shard][0][1].lines:
            taken[line.sku] += line.quantity
    wanted = wanted_by_sku(body)
    if partial or shards != shards_of(body):
        fits = all(units <= wanted.get(sku, 0) for sku, units in taken.items())
    else:
        fits = taken == wanted
    return "" if fits else f"has taken {dict(taken)}"


def sells_again(whole: Whole) -> list[str]:
    """C13: soon after the last fault every shard sells."""
    most = SOLD_AGAIN_SECONDS_MAX * whole.final["room"]
    return [
        f"shard {shard} sold after {seconds} s"
        for shard, seconds in enumerate(whole.final["sold_again_seconds"])
        if seconds is None or seconds > most
    ]


def logs_tell_of_outages_alone(whole: Whole) -> list[str]:
    """C15: no service has met a bug, and each ends as it is asked to."""
    return logs_are_clean(Record(whole.attempts, [], whole.final, whole.logs))


CHECKERS: dict[str, Callable[[Whole], list[str]]] = {
    "C1 no oversell": _on_each(no_oversell),
    "C2 no lost acknowledgement": answers_are_remembered,
    "C3 no double apply": one_effect_a_key,
    "C4 no effect without cause": no_effect_without_cause,
    "C5 the model agrees": _on_each(replay),
    "C6 real time on each shard": real_time_on_each_shard,
    "C8 the ledgers are whole": ledgers_are_whole,
    "C9 gate, ledger and HTTP agree": gates_are_ledgers,
    "C10 carts are whole over shards": carts_are_whole,
    "C11 units are conserved": _on_each(units_are_conserved),
    "C12 no phantom holds": _on_each(no_phantom),
    "C13 every shard sells again": sells_again,
    "C15 clean logs": logs_tell_of_outages_alone,
}


def verdicts(whole: Whole) -> dict[str, list[str]]:
    """Give what every checker found wrong."""
    return {name: checker(whole) for name, checker in CHECKERS.items()}
