"""The ledger decided once more: every row must be what a plain shop would have done at that moment."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from chaos.record import Record, Row, wanted_by_sku
from oracle import Oracle
from oracle_records import Part, Shelf

from allocation.commands import (
    Command,
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Confirm,
    Extend,
    Move,
    MovedLine,
    Movement,
    Release,
    Reserve,
    Wanted,
)
from allocation.journal import Entry, decode_channel
from allocation.model import Line, Stock
from allocation.outcomes import Kind, Outcome, State

KEPT_MS = 365 * 86_400_000
EXPECTED = {
    Kind.HELD: Outcome.HELD,
    Kind.REFUSED: Outcome.INSUFFICIENT_STOCK,
    Kind.COMMITTED: Outcome.COMMITTED,
    Kind.RELEASED: Outcome.RELEASED,
    Kind.EXTENDED: Outcome.EXTENDED,
    Kind.ORDERED: Outcome.COMMITTED,
    Kind.MOVED: Outcome.APPLIED,
    Kind.CONFIGURED: Outcome.CREATED,
}


_LIVE = {State.HELD, State.COMMITTED}


class _SummedShelf(Shelf):
    """A shelf that adds its changes up as they come: a long run has too many of them to do it at each look."""

    moved = 0

    @property
    def on_hand(self) -> int:
        return self.counted + self.moved

    def change(self, units: int, occurred_at_ms: int, now_ms: int) -> None:
        known = len(self.changes)
        super().change(units, occurred_at_ms, now_ms)
        self.moved += sum(units for _, units in self.changes[known:])

    def count(self, units: int, as_of_ms: int, now_ms: int) -> None:
        super().count(units, as_of_ms, now_ms)
        self.moved = sum(units for _, units in self.changes)


class Clerk(Oracle):
    """The sequential model with an index of shelves, told when holds end instead of looking at all of them."""

    def __init__(self) -> None:
        super().__init__(KEPT_MS, KEPT_MS)
        self._by_place: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._reserving = ""

    def advance(self, now_ms: int) -> None:
        """Let time pass; nothing happens by itself."""
        self.now_ms = now_ms

    def decide(self, command: Command) -> Outcome:
        self._reserving = getattr(command, "reservation_id", "")
        return super().decide(command)

    def expire(self, key: str) -> bool:
        """End one hold; False where it is not overdue."""
        promise = self.promises.get(key)
        if promise is None or promise.state is not State.HELD or promise.ends_at_ms > self.now_ms:
            return False
        self._close(promise, State.EXPIRED)
        return True

    def is_overdue(self, sku: str) -> bool:
        """Say whether a hold on a SKU should have ended before anybody was refused."""
        keys = {key for place in self.locations for key in self._by_place[sku, place]}
        return any(
            self.promises[key].state is State.HELD and self.promises[key].ends_at_ms <= self.now_ms
            for key in keys
        )

    def promised(self, sku: str, location: str, *states: State) -> dict[str, int]:
        units: dict[str, int] = {}
        keys, over = self._by_place[sku, location], list[str]()
        for key in keys:
            promise = self.promises[key]
            if promise.state not in _LIVE:
                over.append(key)
            elif promise.state in states:
                for part in promise.parts:
                    if (part.sku, part.location) == (sku, location):
                        left = part.quantity - part.shipped
                        units[promise.channel] = units.get(promise.channel, 0) + left
        keys.difference_update(over)
        return {channel: count for channel, count in units.items() if count}

    def shelf(self, sku: str, location: str) -> Shelf:
        if (sku, location) not in self.shelves:
            self.shelves[sku, location] = _SummedShelf()
        return self.shelves[sku, location]

    def _take(
        self, promise: Any, sku: str, wanted: int, places: Iterable[str], *, pinned: bool
    ) -> int:
        places = tuple(places)
        for place in places:
            self._by_place[sku, place].add(self._reserving)
        return super()._take(promise, sku, wanted, places, pinned=pinned)


# What was asked of the clerk, found in the history; a text where nobody did.
CommandOf = Callable[[Clerk, Record, Row, Entry], Any]


def replay(record: Record) -> list[str]:
    """Decide every row again; give what came out otherwise."""
    return decide_again(record, Clerk(), _command_of)


def decide_again(record: Record, clerk: Clerk, command_of: CommandOf) -> list[str]:
    """Have a clerk decide every row of one ledger again; give what came out otherwise."""
    wrong: list[str] = []
    for row in record.rows:
        entry = row.entry
        clerk.advance(row.at_ms)
        complaint = _decide(clerk, record, row, command_of) or _compare(clerk, entry)
        if complaint:
            wrong.append(f"{row.sequence} {Kind(row.kind).name} {row.key}: {complaint}")
    return wrong


def _decide(clerk: Clerk, record: Record, row: Row, command_of: CommandOf) -> str:
    if row.kind == Kind.EXPIRED:
        return "" if clerk.expire(row.key) else "was not overdue"
    command = command_of(clerk, record, row, row.entry)
    if isinstance(command, str):
        return command
    if row.kind == Kind.REFUSED:
        overdue = [line.sku for line in command.lines if clerk.is_overdue(line.sku)]
        if overdue:
            return f"refused while holds on {overdue} were overdue"
    outcome, expected = clerk.decide(command), EXPECTED[Kind(row.kind)]
    return "" if outcome is expected else f"is {outcome.name}, not {expected.name}"


def _command_of(clerk: Clerk, record: Record, row: Row, entry: Entry) -> Any:
    """Find in the history what was asked for; a text where nobody did."""
    match row.kind:
        case Kind.HELD | Kind.REFUSED:
            command = _reserve(clerk, record, row, entry)
        case Kind.COMMITTED:
            command = Confirm(row.key, entry.reservations[0][1].order_id)
        case Kind.RELEASED:
            command = Release(row.key)
        case Kind.EXTENDED:
            command = _extend(record, row, entry)
        case Kind.MOVED:
            command = moved_by(record, row)
        case Kind.CONFIGURED:
            command = configured_by(row, entry)
        case _:
            command = "is of a kind that nobody asked for"
    return command


def _extend(record: Record, row: Row, entry: Entry) -> Any:
    ttl_ms = entry.reservations[0][1].deadline_ms - row.at_ms
    attempts = record.by_key.get(("extend", row.key), [])
    asked = {attempt.operation.body["ttl_seconds"] * 1000 for attempt in attempts}
    return Extend(row.key, ttl_ms) if ttl_ms in asked else f"by {ttl_ms} ms, not {asked}"


def _reserve(clerk: Clerk, record: Record, row: Row, entry: Entry) -> Any:
    reservation = entry.reservations[0][1]
    for attempt in record.by_key.get(("reserve", row.key), []):
        body = attempt.operation.body
        wanted = wanted_by_sku(body)
        if row.kind == Kind.HELD:
            held: dict[str, int] = defaultdict(int)
            for line in reservation.lines:
                held[line.sku] += line.quantity
            fits = held == wanted
            fits = fits and reservation.deadline_ms == row.at_ms + body["ttl_seconds"] * 1000
        else:
            lacking: dict[str, int] = defaultdict(int)
            for shortage in reservation.shortages:
                lacking[shortage.sku] += shortage.requested - shortage.available
            fits = lacking == _lacking(clerk, body)
        if fits:
            return Reserve(
                row.key,
                reservation.fingerprint,
                body["channel"],
                body["ttl_seconds"] * 1000,
                partial=False,
                replaces="",
                lines=tuple(wanted_of(body)),
            )
    return "is nothing that anybody asked for"


def wanted_of(body: dict[str, Any]) -> list[Wanted]:
    summed: dict[tuple[str, str], int] = {}
    for line in body["lines"]:
        place = (line["sku"], line.get("location") or "")
        summed[place] = summed.get(place, 0) + line["quantity"]
    wanted = [Wanted(sku, units, location) for (sku, location), units in summed.items()]
    return sorted(wanted, key=lambda want: not want.location)


def _lacking(clerk: Clerk, body: dict[str, Any]) -> dict[str, int]:
    """Say what a cart would lack now, pins served first."""
    left: dict[tuple[str, str], int] = {}
    lacking: dict[str, int] = {}
    for want in wanted_of(body):
        missing = want.quantity
        places = (want.location,) if want.location else clerk.channels[body["channel"]][1]
        for place in places:
            there = left.setdefault((want.sku, place), max(0, clerk.available(want.sku, place)))
            units = min(missing, there)
            left[want.sku, place] -= units
            missing -= units
        if missing:
            lacking[want.sku] = lacking.get(want.sku, 0) + missing
    return lacking


def moved_by(record: Record, row: Row) -> Any:
    asked = record.by_key.get((row.operation or "", row.key))
    if not asked:
        return "is a movement that nobody sent"
    body = record.bodies_taken.get(row.key) or asked[0].operation.body
    moment = body.get("as_of") or body.get("occurred_at")
    at_ms = int(datetime.fromisoformat(moment).timestamp() * 1000) if moment else 0
    lines: dict[tuple[str, str], int] = {}
    for line in body["lines"]:
        place = (line["sku"], line["location"])
        lines[place] = lines.get(place, 0) + line["quantity"]
    moved = tuple(MovedLine(sku, location, units) for (sku, location), units in lines.items())
    kind = int(Movement[body["kind"].upper()])
    return Move(row.subject, "", kind, at_ms, body.get("reservation_id", ""), moved)


def configured_by(row: Row, entry: Entry) -> Any:
    kind, _, code = row.subject.partition(":")
    if kind == "location":
        return ConfigureLocation(code, "")
    if kind == "channel":
        return ConfigureChannel(code, "", decode_channel(entry.configuration[0][1]).locations)
    return ConfigureSku(code, ())


def _compare(clerk: Clerk, entry: Entry) -> str:
    """Compare what the row carries with what the model has now."""
    for sku, stock in entry.stock:
        counted = _counted(clerk, sku, stock)
        carried = [
            (pool.location, pool.on_hand, pool.reserved, pool.committed) for pool in stock.pools
        ]
        if counted != carried:
            return f"{sku} is {counted} (location, on hand, reserved, committed), not {carried}"
    for key, reservation in entry.reservations:
        promise = clerk.promises.get(key)
        if promise is None or reservation is None or promise.state is not reservation.state:
            return f"{key} is {promise and promise.state.name}"
        # What a refused one has is nothing, in either.
        if _units(promise.parts) != _units(reservation.lines):
            return f"{key} has {_units(promise.parts)}, not {_units(reservation.lines)}"
    return ""


def _counted(clerk: Clerk, sku: str, stock: Stock) -> list[tuple[str, int, int, int]]:
    return [
        (
            pool.location,
            clerk.shelf(sku, pool.location).on_hand,
            sum(clerk.promised(sku, pool.location, State.HELD).values()),
            clerk.committed(sku, pool.location),
        )
        for pool in stock.pools
    ]


def _units(parts: Iterable[Part | Line]) -> dict[tuple[str, str], tuple[int, int]]:
    units: dict[tuple[str, str], tuple[int, int]] = {}
    for part in parts:
        quantity, shipped = units.get((part.sku, part.location), (0, 0))
        place = (part.sku, part.location)
        units[place] = (quantity + part.quantity, shipped + part.shipped)
    return units
