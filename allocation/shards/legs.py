"""The legs of a reservation: what each shard has of it, cut from the request and put together for the answer.

A leg is an ordinary reservation, under the reservation's own id, in the ledger of its shard. Its decision there is
its vote, and is durable; what the whole has come to follows from the votes alone.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec import structs

from allocation.commands import Order, Reserve, Wanted
from allocation.model import Line, Reservation, Shortage
from allocation.outcomes import Outcome, State
from allocation.ports import Decision
from allocation.shards.routing import lines_by_shard

NOTHING = msgspec.Raw(b"\xc0")
# A whole is no further than the leg that is least far.
_FROM_LEAST = (
    State.REFUSED,
    State.RELEASED,
    State.EXPIRED,
    State.HELD,
    State.COMMITTED,
    State.SHIPPED,
    State.RETURNED,
)
_SEPARATOR = "@"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Reserve | Order).decode

Cart = Reserve | Order
OfSku = TypeVar("OfSku", Line, Shortage)


def legs_of(cart: Cart, shards: int) -> dict[int, Cart]:
    """Cut a cart into what each shard decides. A leg names all shards of its cart in its fingerprint."""
    lines = lines_by_shard(cart.lines, shards)
    if len(lines) == 1:
        return dict.fromkeys(lines, cart)
    fingerprint = f"{cart.fingerprint}{_SEPARATOR}{'.'.join(map(str, lines))}"
    return {
        shard: structs.replace(cart, fingerprint=fingerprint, lines=part)
        for shard, part in lines.items()
    }


def shards_named_by(fingerprint: str) -> tuple[int, ...]:
    """Give the shards that a leg says its cart is on; none where it is a whole reservation."""
    _, separator, shards = fingerprint.rpartition(_SEPARATOR)
    return tuple(map(int, shards.split("."))) if separator else ()


def whole_fingerprint(fingerprint: str) -> str:
    """Give the fingerprint of the cart that a leg belongs to."""
    return fingerprint.partition(_SEPARATOR)[0]


def joined(decisions: Sequence[Decision], outcome: Outcome, request: bytes) -> Decision:
    """Give one decision for what the legs have come to."""
    records = [decision.record for decision in decisions if decision.record is not None]
    version = max(decision.version for decision in decisions)
    return Decision(outcome, version, joined_record(records, request), NOTHING)


def joined_record(records: Sequence[Reservation], request: bytes) -> Reservation:
    """Give one record for all legs, in the order of the request, where it is known.

    What a refused leg lacked is a shortage of the whole.
    """
    wanted: Sequence[Wanted] = _decode(request).lines if request else ()
    place = {line.sku: number for number, line in reversed([*enumerate(wanted)])}
    state = least_far(records)
    kept = [record for record in records if record.state is not State.REFUSED] or records
    held = [record.deadline_ms for record in kept if record.state is State.HELD]
    first = records[0]
    return structs.replace(
        first,
        state=state,
        version=max(record.version for record in records),
        fingerprint=whole_fingerprint(first.fingerprint),
        deadline_ms=min(held) if held else max(record.deadline_ms for record in kept),
        order_id=next((record.order_id for record in kept if record.order_id), ""),
        replaced_by=next((record.replaced_by for record in kept if record.replaced_by), ""),
        lines=_in_order([line for record in kept for line in record.lines], place),
        shortages=_in_order([lack for record in records for lack in record.shortages], place),
    )


def least_far(records: Sequence[Reservation]) -> State:
    """Say how far the whole is. A refused leg counts only where all are: the others are a partial hold."""
    states = {record.state for record in records}
    if len(states) > 1:
        states.discard(State.REFUSED)
    return next(state for state in _FROM_LEAST if state in states)


def _in_order(lines: list[OfSku], place: Mapping[str, int]) -> tuple[OfSku, ...]:
    return tuple(sorted(lines, key=lambda line: place.get(line.sku, 0)))


def refused(outcome: Outcome, subject: str) -> Decision:
    """Refuse as a shard does."""
    return Decision(outcome, 0, None, msgspec.Raw(_encode(subject)))
