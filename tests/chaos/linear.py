"""Linearizability, looked for without the ledger: some order of all attempts must explain every answer.

The search is Wing and Gong's, as Lowe made it quick: attempts are followed in the order of the history, every
order of those under way is kept that still explains all answers so far, and orders that left the same behind are
one. What nobody got an answer to may have happened at any time since, or never; so may a hold have ended, from its
deadline on, by the clock that new holds tell. Each sample is the whole life of one SKU, which began with nothing.
"""

import bisect
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from chaos.history import Attempt
from chaos.market import SAMPLED
from chaos.one_sku import OneSku, Parts, Shop, Step, told_parts
from chaos.order import milliseconds
from chaos.record import Record
from msgspec import Struct

# Each try: how many steps on the way to the next answer may be any, where those after them are only such as could
# not come later; and how many orders it may look at, many times what it needs as a rule. What is found with few is
# an order all the same; only that there is none must be known without a bound.
TRIES = ((0, 50_000), (1, 50_000), (1_000_000, 300_000))
_ON_RESERVATIONS = ("reserve", "confirm", "release", "extend", "read")
_SIGNS = {"receipt": 1, "adjustment": 1, "shipment": -1}
# Which steps happened without an answer yet, and the shop that they left.
Order = tuple[frozenset[int], Shop]


class Verdict(Struct, frozen=True):
    """What a search found: `complaint` is empty where an order was found. `orders` is what it cost."""

    complaint: str
    steps: int
    orders: int


class Undecided(Exception):
    """The search needed more than it may."""


def linear(record: Record) -> list[str]:
    """C7: for each SKU that was sampled some order of what happened explains all that was told."""
    return [
        f"{sku}: {verdict.complaint}"
        for sku, verdict in searched(record).items()
        if verdict.complaint
    ]


def searched(record: Record) -> dict[str, Verdict]:
    """Search every sample of a run."""
    clock = GateClock(record.attempts)
    return {sku: search(sku, attempts, clock) for sku, attempts in samples(record.attempts).items()}


def search(sku: str, attempts: Iterable[Attempt], clock: "GateClock") -> Verdict:
    """Look for an order."""
    steps = _without_effect_elsewhere(
        [step for attempt in attempts if (step := _step(sku, attempt, clock)) is not None]
    )
    complaint, spent = "", 0
    for free, orders_max in TRIES:
        following = _Search(sku, steps, free, orders_max)
        try:
            complaint = following.follow()
        except Undecided:
            complaint = f"unknown: {orders_max} orders were not enough"
        spent += following.orders
        if not complaint:
            break
    return Verdict(complaint, len(steps), spent)


class _Search:
    """One way through the history, in all orders that may still explain it."""

    def __init__(self, sku: str, steps: list[Step], free: int, orders_max: int) -> None:
        self.orders = 0
        self._steps, self._free, self._orders_max = steps, free, orders_max
        self._rules = OneSku(sku, _loose(steps), _fates(steps))
        # Steps that have begun, and may happen.
        self._open: dict[int, Step] = {}
        self._last_use: dict[str, int] = {}
        for step in steps:
            last = step.begins_at if step.ends_at is None else step.ends_at
            for name in (step.key, step.names):
                self._last_use[name] = max(last, self._last_use.get(name, 0))
                if step.ends_at is None:
                    # It may do something for ever, unless its key is known to have been used.
                    self._last_use[name] = sys.maxsize

    def follow(self) -> str:
        """Go through the history; give the first answer that no order explains."""
        orders: set[Order] = {(frozenset(), Shop())}
        for line, number, is_end in _events(self._steps):
            step = self._steps[number]
            if not is_end:
                self._open[number] = step
                continue
            orders = self._until_happened(orders, number, step.ended_ms)
            if not orders:
                return f"line {line}: {_said(step)}, which no order of events explains"
            del self._open[number]
            orders = {self._without(order, number, line) for order in orders}
        return ""

    def _until_happened(self, orders: set[Order], number: int, now_ms: int) -> set[Order]:
        """Let steps happen, in every order that may be, until this one has."""
        found, edge, seen = set[Order](), {self._settled(order) for order in orders}, set[Order]()
        depth = 0
        while edge:
            seen |= edge
            happened = {order for order in edge if number in order[0]}
            found |= happened
            edge -= happened
            self.orders += len(edge)
            if self.orders > self._orders_max:
                raise Undecided
            edge = {
                following
                for order in edge
                for following in self._before(order, number, now_ms, is_free=depth < self._free)
            } - seen
            depth += 1
        # An order that another can still become needs not be followed by itself.
        return found - {later for order in found for later in self._following(order, now_ms)}

    def _before(self, order: Order, number: int, now_ms: int, *, is_free: bool) -> set[Order]:
        """Let one step more happen on the way to this one."""
        happened, shop = order
        reached = self._rules.after(shop, self._steps[number])
        if is_free or not reached:
            return self._following(order, now_ms)
        # It may happen now: what can come after it seldom has to come before.
        following = {(happened | {number}, then) for then in reached}
        following |= {(happened, then) for then in self._rules.expired(shop, now_ms)}
        for other, step in self._open.items():
            if other in happened or other == number or step.ends_at is None:
                continue
            if not any(self._rules.after(then, step) for then in reached):
                left = self._rules.after(shop, step)
                following |= {(happened | {other}, then) for then in left}
        return {self._settled(then) for then in following}

    def _following(self, order: Order, now_ms: int) -> set[Order]:
        """Let one step more happen, whichever may."""
        happened, shop = order
        left = [(happened, then) for then in self._rules.expired(shop, now_ms)]
        for number, step in self._open.items():
            if number in happened:
                continue
            if step.ends_at is None:
                # What did nothing needs no place in the order, and may do something later.
                left += [(happened, then) for then in self._rules.unseen(shop, step)]
            else:
                left += [(happened | {number}, then) for then in self._rules.after(shop, step)]
        return {self._settled(then) for then in left}

    def _settled(self, order: Order) -> Order:
        """Let happen at once what takes nothing from anybody: whatever comes then could come all the same."""
        happened, shop = order
        for number, step in self._open.items():
            if step.ends_at is None:
                shop = self._rules.refused_unseen(shop, step)
            elif number not in happened:
                after = self._rules.after(shop, step)
                if after and (after == [shop] or step.slug == "insufficient-stock"):
                    happened, shop = happened | {number}, after[0]
        return happened, shop

    def _without(self, order: Order, number: int, line: int) -> Order:
        """Forget a step that was answered, and keys that nobody will name again."""
        happened, shop = order
        known = {
            key: promise
            for key, promise in shop.known.items()
            # A hold that nobody asks for any more may still end.
            if promise.state == "held" or self._last_use[key] > line
        }
        return happened - {number}, Shop(shop.available, known)


def _events(steps: list[Step]) -> Iterator[tuple[int, int, bool]]:
    """Give every beginning and every answer: its line, the step, and whether it is the answer."""
    begun = [(step.begins_at, number, False) for number, step in enumerate(steps)]
    ended = [
        (step.ends_at, number, True)
        for number, step in enumerate(steps)
        if step.ends_at is not None
    ]
    return iter(sorted(begun + ended))


def _said(step: Step) -> str:
    told = step.slug or f"{step.state} {dict(step.parts)}".strip()
    return f"{step.kind} {step.key} was told {told}"


def _without_effect_elsewhere(steps: list[Step]) -> list[Step]:
    """Leave out what was never answered, and did nothing: somebody else was told to have done the same first."""
    first = {
        (step.kind, step.key)
        for step in steps
        if step.kind in {"reserve", "release", "move"}
        and not (step.ends_at is None or step.slug or step.replayed)
    }
    return [
        step for step in steps if step.ends_at is not None or (step.kind, step.key) not in first
    ]


def _loose(steps: list[Step]) -> dict[str, int]:
    """Give the keys with an extension that nobody got an answer to, and when that may have let them end."""
    found: dict[str, int] = {}
    for step in steps:
        if step.kind == "extend" and step.ends_at is None:
            found[step.key] = min(found.get(step.key, step.ends_at_ms), step.ends_at_ms)
    return found


def _fates(steps: list[Step]) -> dict[str, Step]:
    """Give for each key an answer that tells how it was decided; one that shows the hold itself tells most."""
    found: dict[str, Step] = {}
    for step in steps:
        is_telling = step.slug == "insufficient-stock" or (step.state and not step.slug)
        if is_telling and (step.key not in found or step.state == "held"):
            found[step.key] = step
    return found


# From attempts to steps.


class GateClock:
    """What is known of the clock that holds end by: each new hold tells it, and it never goes back."""

    def __init__(self, attempts: Iterable[Attempt]) -> None:
        told = [
            (attempt, told_ms) for attempt in attempts if (told_ms := _gate_ms(attempt)) is not None
        ]
        asked = sorted((attempt.invoked_at, told_ms) for attempt, told_ms in told)
        heard = sorted((attempt.completed_at or 0, told_ms) for attempt, told_ms in told)
        self._asked_at = [line for line, _ in asked]
        self._heard_at = [line for line, _ in heard]
        self._least_after = [*accumulate((ms for _, ms in reversed(asked)), min)][::-1]
        self._most_before = [*accumulate((ms for _, ms in heard), max)]

    def latest_ms(self, line: int) -> int:
        """Give what it was at most at a line: no more than a hold that was asked for later tells."""
        place = bisect.bisect_left(self._asked_at, line)
        return self._least_after[place] if place < len(self._least_after) else sys.maxsize

    def earliest_ms(self, line: int) -> int:
        """Give what it was at least at a line: what a hold told that was heard of before."""
        place = bisect.bisect_left(self._heard_at, line)
        return self._most_before[place - 1] if place else 0


def _gate_ms(attempt: Attempt) -> int | None:
    operation = attempt.operation
    if operation.kind != "reserve" or attempt.verdict != "ok" or attempt.replayed:
        return None
    return milliseconds(attempt.answer["expires_at"]) - operation.body["ttl_seconds"] * 1000


def samples(attempts: list[Attempt]) -> dict[str, list[Attempt]]:
    """Find for each sampled SKU every attempt that is about it."""
    about: dict[str, set[str]] = defaultdict(set)
    for attempt in attempts:
        operation = attempt.operation
        if operation.kind in {"reserve", "move"} and SAMPLED.encode() in bytes(operation.sent):
            skus = {line["sku"] for line in operation.body["lines"]}
            about[operation.key] |= {sku for sku in skus if sku.startswith(SAMPLED)}
    found: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        if attempt.operation.kind in (*_ON_RESERVATIONS, "move"):
            for sku in about.get(attempt.operation.key, ()):
                found[sku].append(attempt)
    return dict(found)


def _step(sku: str, attempt: Attempt, clock: GateClock) -> Step | None:
    """Read an attempt; None where it can have had no part in what became of the SKU."""
    operation, verdict = attempt.operation, attempt.verdict
    is_refused = verdict == "fail" and attempt.slug in _TELLING
    if (verdict == "fail" and not is_refused) or (verdict, operation.kind) == ("info", "read"):
        return None
    seen: dict[str, Any] = {"slug": attempt.slug} if is_refused else {}
    if operation.kind == "reserve":
        seen["sent"] = bytes(operation.sent)
    if operation.kind == "move":
        body = operation.body
        sign = _SIGNS[body["kind"]]
        seen |= {"change": _change(body, sku, sign), "names": body.get("reservation_id", "")}
    if verdict == "ok":
        seen |= _told(attempt, sku)
    elif attempt.slug == "insufficient-stock":
        lines = [line for line in attempt.answer["lines"] if line["sku"] == sku]
        seen["lacking"] = sum(line["requested"] - line["available"] for line in lines)
    elif operation.kind == "extend" and verdict == "info":
        asked_ms = operation.body["ttl_seconds"] * 1000
        seen["ends_at_ms"] = clock.earliest_ms(attempt.invoked_at) + asked_ms
    return Step(
        operation.kind,
        operation.key,
        attempt.invoked_at,
        None if verdict == "info" else attempt.completed_at,
        clock.earliest_ms(attempt.invoked_at),
        _gate_ms(attempt) or clock.latest_ms(attempt.completed_at or sys.maxsize),
        **seen,
    )


# Refusals that say something about the reservation; the others say no more than that nothing was done.
_TELLING = {
    "insufficient-stock",
    "idempotency-mismatch",
    "hold-lost",
    "already-committed",
    "already-shipped",
    "unknown-reservation",
}


def _told(attempt: Attempt, sku: str) -> dict[str, Any]:
    answer = attempt.answer
    told: dict[str, Any] = {"replayed": attempt.replayed}
    if attempt.operation.kind != "move":
        told |= {"state": answer["state"], "parts": told_parts(answer, sku)}
    if answer.get("expires_at"):
        told["ends_at_ms"] = milliseconds(answer["expires_at"])
    return told


def _change(body: dict[str, Any], sku: str, sign: int) -> Parts:
    change: dict[str, int] = {}
    for line in body["lines"]:
        if line["sku"] == sku:
            change[line["location"]] = change.get(line["location"], 0) + sign * line["quantity"]
    return tuple(sorted(change.items()))
