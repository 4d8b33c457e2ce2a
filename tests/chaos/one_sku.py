"""One SKU as its customers see it: what each answer says of the moment at which it was decided.

A cart of several SKUs is seen as far as it wants this one. Nothing here knows of a ledger.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from chaos.market import LOCATIONS
from msgspec import Struct

Parts = tuple[tuple[str, int], ...]


class Promise(NamedTuple):
    """What became of one key; `ends_at_ms` is below zero where only its earliest value is known."""

    state: str
    sent: bytes = b""
    parts: Parts = ()
    ends_at_ms: int = 0
    lacking: int = 0


class Shop:
    """What may be sold in each place, below zero where more went than there was, and every key that still matters.

    It never changes: each step makes another one.
    """

    __slots__ = ("_hash", "available", "known")

    def __init__(
        self,
        available: tuple[int, ...] = (0,) * len(LOCATIONS),
        known: dict[str, Promise] | None = None,
    ) -> None:
        self.available, self.known = available, known or {}
        self._hash = hash((available, frozenset(self.known.items())))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Shop)
            and self._hash == other._hash
            and self.available == other.available
            and self.known == other.known
        )

    def having(
        self, key: str, promise: Promise | None, change: Parts = (), sign: int = 1
    ) -> "Shop":
        """Give the shop in which a key has another promise, and units came in or left."""
        known = self.known.copy()
        if promise is None:
            known.pop(key, None)
        else:
            known[key] = promise
        if not change:
            return Shop(self.available, known)
        moved = dict(change)
        places = zip(LOCATIONS, self.available, strict=True)
        return Shop(tuple(units + sign * moved.get(place, 0) for place, units in places), known)


class Step(Struct, frozen=True, gc=False):
    """One attempt, as far as it is about the SKU. `ends_at` is a line; None where nobody knows what came of it."""

    kind: str
    key: str
    begins_at: int
    ends_at: int | None
    # What the gate's clock showed at least when it began, and at most when it happened.
    began_ms: int
    ended_ms: int
    slug: str = ""
    sent: bytes = b"null"
    # What a success told of the reservation.
    state: str = ""
    parts: Parts = ()
    ends_at_ms: int = 0
    # What a refusal told: how many units of this SKU were missing.
    lacking: int = 0
    replayed: bool = False
    # What a movement changes, and the reservation that it names.
    change: Parts = ()
    names: str = ""


class Wants(NamedTuple):
    """What a body wants of the SKU: (place or none, units), pins first; and whether it wants nothing else."""

    lines: Parts
    is_alone: bool
    ttl_ms: int


@lru_cache(maxsize=10_000)
def wants(sent: bytes, sku: str) -> Wants:
    body = msgspec.json.decode(sent)
    lines: dict[str, int] = {}
    for line in body["lines"]:
        if line["sku"] == sku:
            place = line.get("location") or ""
            lines[place] = lines.get(place, 0) + line["quantity"]
    is_alone = all(line["sku"] == sku for line in body["lines"])
    pins_first = tuple(sorted(lines.items(), key=lambda line: not line[0]))
    return Wants(pins_first, is_alone, body["ttl_seconds"] * 1000)


def source(shop: Shop, lines: Iterable[tuple[str, int]]) -> tuple[Parts, int]:
    """Say where units would be taken, and how many are missing."""
    return _take(shop, [((place,) if place else LOCATIONS, units) for place, units in lines])


def source_again(shop: Shop, promise: Promise, sku: str) -> tuple[Parts, int]:
    """Say where the units of a hold that has ended would be taken: where they were, else anywhere but for pins."""
    pins = dict(wants(promise.sent, sku).lines)
    pinned = {place: min(units, pins.get(place, 0)) for place, units in promise.parts}
    lines = [((place,), units) for place, units in pinned.items()]
    lines += [((place, *LOCATIONS), units - pinned[place]) for place, units in promise.parts]
    return _take(shop, lines)


def _take(shop: Shop, lines: Iterable[tuple[tuple[str, ...], int]]) -> tuple[Parts, int]:
    left = {place: max(0, units) for place, units in zip(LOCATIONS, shop.available, strict=True)}
    taken: dict[str, int] = {}
    missing = 0
    for places, units in lines:
        wanted = units
        for place in places:
            there = min(wanted, left[place])
            if there:
                left[place] -= there
                taken[place] = taken.get(place, 0) + there
                wanted -= there
        missing += wanted
    return tuple(sorted(taken.items())), missing


class OneSku:
    """The rules for one SKU: which shops each step may leave behind."""

    def __init__(self, sku: str, loose: dict[str, int], fates: dict[str, Step]) -> None:
        """Take what later answers tell.

        `loose` has the keys whose deadline may have been moved unseen, and the earliest it can be; `fates` an
        answer for each key that tells how it was decided.
        """
        self.sku, self._loose, self._fates = sku, loose, fates

    def after(self, shop: Shop, step: Step) -> list[Shop]:
        """Give every shop that an answered step may leave behind; none where it cannot have happened now."""
        if step.kind == "move":
            return self._move(shop, step)
        promise = shop.known.get(step.key)
        if step.kind == "reserve":
            return self._reserve(shop, step, promise)
        state = None if promise is None else promise.state
        if step.slug:
            return [shop] if self._may_refuse(shop, step, promise) else []
        if promise is None or state == "refused":
            return []
        return [
            found
            for found in self._effect(shop, step, promise)
            if self._shows(step, found.known.get(step.key))
        ]

    def unseen(self, shop: Shop, step: Step) -> list[Shop]:
        """Give the shops that a step leaves whose answer nobody got, as far as it did anything."""
        promise = shop.known.get(step.key)
        if step.kind == "reserve":
            return list(self._reserved_unseen(shop, step)) if promise is None else []
        if step.kind == "move":
            return [] if promise else self._move(shop, step)
        if promise is None or step.kind in {"read", "extend"}:
            return []
        return [found for found in self._effect(shop, step, promise) if found != shop]

    def expired(self, shop: Shop, now_ms: int) -> list[Shop]:
        """Give the shops in which one hold more has ended: those end in the order of their deadlines."""
        held = [pair for pair in shop.known.items() if pair[1].state == "held"]
        due = [pair for pair in held if self._earliest_ms(*pair) <= now_ms]
        certain = [pair for pair in due if pair[1].ends_at_ms > 0 and pair[0] not in self._loose]
        first = min(certain, key=lambda pair: pair[1].ends_at_ms, default=None)
        return [
            shop.having(key, promise._replace(state="expired"), promise.parts)
            for key, promise in due
            if first is None
            or (key, promise) not in certain
            or promise.ends_at_ms == first[1].ends_at_ms
        ]

    def _earliest_ms(self, key: str, promise: Promise) -> int:
        return min(abs(promise.ends_at_ms), self._loose.get(key, abs(promise.ends_at_ms)))

    # Each kind of step.

    def _reserve(self, shop: Shop, step: Step, promise: Promise | None) -> list[Shop]:
        if promise is not None:
            return self._reserve_again(shop, step, promise)
        parts, missing = source(shop, wants(step.sent, self.sku).lines)
        if step.slug == "insufficient-stock":
            if step.lacking != missing:
                return []
            return [shop.having(step.key, Promise("refused", step.sent, lacking=missing))]
        if step.slug or step.replayed or missing or parts != step.parts or step.state != "held":
            return []
        held = Promise("held", step.sent, parts, step.ends_at_ms)
        return [shop.having(step.key, held, parts, -1)]

    def _reserve_again(self, shop: Shop, step: Step, promise: Promise) -> list[Shop]:
        if step.slug == "idempotency-mismatch":
            return [shop] if promise.sent != step.sent else []
        if promise.sent != step.sent:
            return []
        if step.slug == "insufficient-stock":
            is_same = promise.state == "refused" and promise.lacking == step.lacking
            return [shop] if is_same else []
        if not step.replayed or promise.state == "refused" or not self._shows(step, promise):
            return []
        return [self._learning(shop, step, promise)]

    def _reserved_unseen(self, shop: Shop, step: Step) -> Iterator[Shop]:
        wanted, fate = wants(step.sent, self.sku), self._fates.get(step.key)
        if fate is not None and fate.kind == "reserve" and fate.sent != step.sent:
            return
        parts, missing = source(shop, wanted.lines)
        is_held = not missing and (fate is None or not fate.slug)
        if is_held and (fate is None or fate.state != "held" or fate.parts == parts):
            ends_at_ms = -(step.began_ms + wanted.ttl_ms)
            yield shop.having(step.key, Promise("held", step.sent, parts, ends_at_ms), parts, -1)
        if fate is None and (missing or not wanted.is_alone):
            yield shop.having(step.key, Promise("refused", step.sent, lacking=missing))

    def refused_unseen(self, shop: Shop, step: Step) -> Shop:
        """Refuse what nobody got the answer to, where it is known to have been refused like this."""
        fate = self._fates.get(step.key)
        if step.kind != "reserve" or fate is None or not fate.slug or step.key in shop.known:
            return shop
        missing = source(shop, wants(step.sent, self.sku).lines)[1]
        if fate.lacking != missing or fate.sent != step.sent:
            return shop
        return shop.having(step.key, Promise("refused", step.sent, lacking=missing))

    def _effect(self, shop: Shop, step: Step, promise: Promise) -> list[Shop]:
        """Give what a step on a reservation leaves behind, whatever it was told."""
        if step.kind == "confirm":
            return self._confirm(shop, step, promise)
        if step.kind == "release":
            back = promise.parts if promise.state in {"held", "committed"} else ()
            released = shop.having(step.key, promise._replace(state="released"), back)
            return [] if promise.state in {"shipped", "refused"} else [released]
        if step.kind == "extend":
            moved = promise._replace(ends_at_ms=step.ends_at_ms)
            return [shop.having(step.key, moved)] if promise.state == "held" else []
        return [self._learning(shop, step, promise)]

    def _confirm(self, shop: Shop, step: Step, promise: Promise) -> list[Shop]:
        if promise.state in {"committed", "shipped"}:
            return [shop]
        if promise.state == "held":
            return [shop.having(step.key, promise._replace(state="committed"))]
        parts, missing = source_again(shop, promise, self.sku)
        if promise.state != "expired" or missing:
            return []
        placed = promise._replace(state="committed", parts=parts)
        return [shop.having(step.key, placed, parts, -1)]

    def _may_refuse(self, shop: Shop, step: Step, promise: Promise | None) -> bool:
        state = "refused" if promise is None else promise.state
        if step.kind == "confirm" and step.slug == "hold-lost" and promise and state == "expired":
            # Where the cart has other SKUs, one of those may be what it lacks.
            is_alone = wants(promise.sent, self.sku).is_alone
            return not is_alone or source_again(shop, promise, self.sku)[1] > 0
        says = {
            "unknown-reservation": {"refused"},
            "hold-lost": {"released", "expired"} if step.kind == "extend" else {"released"},
            "already-committed": {"committed", "shipped"},
            "already-shipped": {"shipped"},
        }
        return state in says.get(step.slug, {state})

    def _move(self, shop: Shop, step: Step) -> list[Shop]:
        known = shop.known.get(step.key) is not None
        if known or step.replayed:
            return [shop] if known and (step.replayed or step.ends_at is None) else []
        shop = shop.having(step.key, Promise("applied"))
        promise = shop.known.get(step.names)
        if promise is None or promise.state not in {"held", "committed"}:
            return [shop.having(step.key, Promise("applied"), step.change)]
        # The units were promised already: they are no longer there, and no longer spoken for.
        return [shop.having(step.names, promise._replace(state="shipped"))]

    # What answers tell of a reservation.

    def _shows(self, step: Step, promise: Promise | None) -> bool:
        if promise is None or (step.state, step.parts) != (promise.state, promise.parts):
            return False
        is_certain = promise.ends_at_ms > 0 and step.key not in self._loose
        return promise.state != "held" or not is_certain or promise.ends_at_ms == step.ends_at_ms

    def _learning(self, shop: Shop, step: Step, promise: Promise) -> Shop:
        if promise.state != "held" or promise.ends_at_ms > 0:
            return shop
        return shop.having(step.key, promise._replace(ends_at_ms=step.ends_at_ms))


def told_parts(answer: dict[str, Any], sku: str) -> Parts:
    """Read where the units of one SKU are."""
    parts: dict[str, int] = {}
    for line in answer["lines"]:
        if line["sku"] == sku:
            parts[line["location"]] = parts.get(line["location"], 0) + line["quantity"]
    return tuple(sorted(parts.items()))
