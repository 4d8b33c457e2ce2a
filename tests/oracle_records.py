"""The things that the sequential model of the gate keeps: shelves, and promises made from them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from allocation.commands import MovedLine, Movement
from allocation.outcomes import Outcome, State

Value = TypeVar("Value")


@dataclass
class Shelf:
    """One SKU at one location: the newest count, what changed since, and what is not for sale."""

    counted: int = 0
    counted_at_ms: int = 0
    changes: list[tuple[int, int]] = field(default_factory=list)
    damaged: int = 0
    quality_control: int = 0
    safety_stock: int = 0
    left_unnamed: int = 0

    @property
    def on_hand(self) -> int:
        return self.counted + sum(units for _, units in self.changes)

    def change(self, units: int, occurred_at_ms: int, now_ms: int) -> None:
        """Take a change in, unless the newest count has seen it already."""
        if occurred_at_ms == 0 or occurred_at_ms > self.counted_at_ms:
            self.changes.append((occurred_at_ms or now_ms, units))

    def count(self, units: int, as_of_ms: int, now_ms: int) -> None:
        """Start from a count; what happened after the moment it was taken still holds."""
        if as_of_ms == 0:
            self.counted, self.counted_at_ms, self.changes = units, now_ms, []
        elif as_of_ms > self.counted_at_ms:
            self.counted, self.counted_at_ms = units, as_of_ms
            self.changes = [change for change in self.changes if change[0] > as_of_ms]

    def grade(self, status: str, units: int) -> None:
        if status == "damaged":
            self.damaged += units
        elif status == "quality_control":
            self.quality_control += units

    def move(self, kind: Movement, line: MovedLine, occurred_at_ms: int, now_ms: int) -> None:
        """Do to this shelf what a movement of the kind does where it starts."""
        if kind is Movement.COUNT:
            self.count(line.quantity, occurred_at_ms, now_ms)
        elif kind is Movement.STATUS:
            self.grade(line.source, -line.quantity)
            self.grade(line.to, line.quantity)
        else:
            leaves = kind in {Movement.SHIPMENT, Movement.TRANSFER}
            self.change(-line.quantity if leaves else line.quantity, occurred_at_ms, now_ms)
        if kind in {Movement.RECEIPT, Movement.RETURN}:
            self.grade(line.to, line.quantity)


@dataclass
class Part:
    """Units of one SKU that one reservation took at one location."""

    sku: str
    quantity: int
    location: str
    pinned: bool
    shipped: int = 0
    returned: int = 0


@dataclass
class Promise:
    """One reservation, as anybody could tell its story."""

    state: State
    fingerprint: str
    channel: str
    ends_at_ms: int
    parts: list[Part]
    shortages: list[tuple[str, int, int]]
    order_id: str = ""
    replaced_by: str = ""


class Refusal(Exception):
    """A decision that changes nothing."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.name)
        self.outcome = outcome


def spread(
    line: MovedLine, parts: list[Part], room: Callable[[Part], int]
) -> list[tuple[Part, int]]:
    """Share units out over the parts of a reservation, those at the line's own location first."""
    mine = [part for part in parts if part.sku == line.sku]
    mine.sort(key=lambda part: part.location != line.location)
    shares, left = [], line.quantity
    for part in mine:
        units = min(left, room(part))
        shares.append((part, units))
        left -= units
    return shares


def configured(known: dict[str, Value], key: str, value: Value) -> Outcome:
    """Set one thing of the catalogue, and say whether that changed anything."""
    before = known.get(key)
    known[key] = value
    if before is None:
        return Outcome.CREATED
    return Outcome.UNCHANGED if before == value else Outcome.REPLACED
