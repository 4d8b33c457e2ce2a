"""Each ledger decided once more: a leg is an ordinary reservation, so every row must be what a plain shop does."""

from collections import defaultdict
from typing import Any

from chaos.history import Attempt
from chaos.record import Record, Row, wanted_by_sku
from chaos.replaying import Clerk, configured_by, decide_again, moved_by, wanted_of
from cluster_chaos.record import own

from allocation.commands import Command, Confirm, Extend, Order, Release, Reserve
from allocation.journal import Entry
from allocation.outcomes import Kind, Outcome, State


class Shopkeeper(Clerk):
    """A clerk to whom a hold may give way, and have it back where the other one is refused."""

    def decide(self, command: Command) -> Outcome:
        outcome = super().decide(command)
        earlier = getattr(command, "replaces", "")
        promise = self.promises.get(earlier)
        if promise is not None and promise.state is State.HELD:
            # The index of shelves has forgotten what was released for a moment.
            for part in promise.parts:
                self._by_place[part.sku, part.location].add(earlier)
        return outcome


def replay(record: Record) -> list[str]:
    """Decide every row of one shard again; give what came out otherwise."""
    return decide_again(record, Shopkeeper(), _command_of)


def _command_of(clerk: Clerk, record: Record, row: Row, entry: Entry) -> Any:
    """Find in the history what was asked of this shard; a text where nobody did."""
    match row.kind:
        case Kind.HELD | Kind.REFUSED:
            command = _reserve(clerk, record, row, entry)
        case Kind.ORDERED:
            command = _order(record, row, entry)
        case Kind.COMMITTED:
            command = Confirm(row.key, own(row, entry).order_id)
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


def _reserve(clerk: Clerk, record: Record, row: Row, entry: Entry) -> Any:
    reservation = own(row, entry)
    held: dict[str, int] = defaultdict(int)
    for line in reservation.lines:
        held[line.sku] += line.quantity
    for body in _bodies(record, row.key):
        wanted, partial = wanted_by_sku(body), body.get("partial", False)
        fits = row.kind == Kind.REFUSED or held == wanted
        fits = fits or (partial and all(held[sku] <= wanted.get(sku, 0) for sku in held))
        ends_at_ms = row.at_ms + body["ttl_seconds"] * 1000
        if fits and (row.kind == Kind.REFUSED or reservation.deadline_ms == ends_at_ms):
            return Reserve(
                row.key,
                reservation.fingerprint,
                body["channel"],
                body["ttl_seconds"] * 1000,
                partial=partial,
                replaces=_replaced(clerk, body),
                lines=tuple(wanted_of(body)),
            )
    return "is nothing that anybody asked for"


def _bodies(record: Record, key: str) -> list[dict[str, Any]]:
    """Give what may have been decided under a key; what was answered as decided comes before what is unknown."""

    def rank(attempt: Attempt) -> int:
        decided = attempt.verdict == "ok" or attempt.slug == "insufficient-stock"
        return 0 if decided else 1 if attempt.verdict == "info" else 2

    attempts = sorted(record.by_key.get(("reserve", key), []), key=rank)
    return [each.operation.body for each in attempts if each.slug != "idempotency-mismatch"]


def _replaced(clerk: Clerk, body: dict[str, Any]) -> str:
    """Name the earlier hold where this shard has a leg of it: elsewhere there is nothing to give way."""
    earlier = body.get("replaces", "")
    promise = clerk.promises.get(earlier)
    return earlier if promise is not None and promise.state is not State.REFUSED else ""


def _order(record: Record, row: Row, entry: Entry) -> Any:
    reservation = own(row, entry)
    for attempt in record.by_key.get(("order", row.key), []):
        body = attempt.operation.body
        return Order(
            row.key,
            reservation.fingerprint,
            body["channel"],
            body["order_id"],
            tuple(wanted_of(body)),
        )
    return "is nothing that anybody asked for"


def _extend(record: Record, row: Row, entry: Entry) -> Any:
    ttl_ms = own(row, entry).deadline_ms - row.at_ms
    attempts = record.by_key.get(("extend", row.key), [])
    asked = {attempt.operation.body["ttl_seconds"] * 1000 for attempt in attempts}
    return Extend(row.key, ttl_ms) if ttl_ms in asked else f"by {ttl_ms} ms, not {asked}"
