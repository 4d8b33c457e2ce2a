"""Turns decisions of the engine into the answers of the contract."""

from datetime import UTC, datetime
from functools import lru_cache

import msgspec
from msgspec import UNSET

from allocation.model import Reservation, Shortage, Stock
from allocation.outcomes import Outcome, State
from allocation.ports import Decision
from service.api.problems import SLUG_OF_REFUSAL, Problem
from service.api.schemas import (
    ChannelUse,
    LineAnswer,
    OversoldAnswer,
    PoolAnswer,
    ReservationAnswer,
    ShortageAnswer,
    StockAnswer,
    Unavailable,
)

_decode_text = msgspec.msgpack.Decoder(str).decode

NAME_OF_STATE = {state: state.name.lower() for state in State}
# What the detail of a refusal calls the thing that the gate did not find or accept.
_SUBJECT = {
    Outcome.UNKNOWN_SKU: "SKU",
    Outcome.UNKNOWN_CHANNEL: "Channel",
    Outcome.UNKNOWN_LOCATION: "Location",
    Outcome.UNKNOWN_RESERVATION: "Reservation",
    Outcome.HOLD_LOST: "Reservation",
    Outcome.ALREADY_COMMITTED: "Reservation",
    Outcome.ALREADY_SHIPPED: "Reservation",
}


def rfc3339(at_ms: int) -> str:
    """Write a time as the contract has it."""
    seconds, milliseconds = divmod(at_ms, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


# Neighbouring requests end within the same few seconds.
@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:-6]


def reservation_answer(reservation_id: str, reservation: Reservation) -> ReservationAnswer:
    """Show a reservation as it is now."""
    held = reservation.state is State.HELD
    return ReservationAnswer(
        reservation_id,
        NAME_OF_STATE[reservation.state],
        reservation.channel,
        line_answers(reservation),
        rfc3339(reservation.deadline_ms) if held else UNSET,
        reservation.order_id or UNSET,
        reservation.replaced_by or UNSET,
    )


def line_answers(reservation: Reservation) -> list[LineAnswer]:
    """Show where each unit is; what pinned and free lines have of one pool is one line."""
    if len(reservation.lines) == 1:
        line = reservation.lines[0]
        return [LineAnswer(line.sku, line.quantity, line.location)]
    merged: dict[tuple[str, str], int] = {}
    for line in reservation.lines:
        place = (line.sku, line.location)
        merged[place] = merged.get(place, 0) + line.quantity
    return [LineAnswer(sku, units, location) for (sku, location), units in merged.items()]


def oversold_answers(shortages: tuple[Shortage, ...]) -> list[OversoldAnswer]:
    """Show what a recorded order took that was not there."""
    return [
        OversoldAnswer(shortage.sku, shortage.requested - shortage.available)
        for shortage in shortages
    ]


def problem_of_refusal(decision: Decision) -> Problem:
    """Give the problem that tells a caller of a refusal."""
    outcome = decision.outcome
    slug = SLUG_OF_REFUSAL[outcome]
    if outcome is Outcome.INSUFFICIENT_STOCK and decision.record is not None:
        lines = [
            ShortageAnswer(lack.sku, lack.requested, lack.available, lack.limited_by)
            for lack in decision.record.shortages
        ]
        return Problem(slug, lines=lines)
    subject = _SUBJECT.get(outcome)
    if subject is None:
        return Problem(slug)
    return Problem(slug, f"{subject} {_decode_text(decision.extra)}.")


def stock_answer(sku: str, stock: Stock) -> StockAnswer:
    """Show every bucket of a SKU."""
    pools = [
        PoolAnswer(
            pool.location,
            pool.on_hand,
            Unavailable(pool.damaged, pool.quality_control),
            pool.reserved,
            pool.committed,
            pool.safety_stock,
            pool.available,
            [ChannelUse(use.channel, use.reserved, use.committed) for use in pool.uses],
        )
        for pool in stock.pools
    ]
    return StockAnswer(sku, stock.version, pools)
