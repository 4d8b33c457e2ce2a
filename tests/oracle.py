"""The rules of the gate once more, in the plainest Python there is: one command after another, no batches.

Written from the design, not from the Lua. Where the gate keeps running counters, this keeps lists and adds them
up each time; where the gate keeps sequences and hashes, this only counts decisions.
"""

from collections.abc import Iterable
from functools import singledispatchmethod

from oracle_records import Part, Promise, Refusal, Shelf, configured, spread

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
    Order,
    Release,
    Reserve,
    Wanted,
)
from allocation.outcomes import Outcome, State

COUNTABLE_MS = 30 * 86_400_000
CLOSED = (State.RELEASED, State.EXPIRED)


class Oracle:
    """A shop with one clerk, who does one thing at a time and forgets nothing too early."""

    def __init__(self, reservation_retention_ms: int, event_retention_ms: int) -> None:
        self.now_ms = 0
        self.decisions = 0
        self.shelves: dict[tuple[str, str], Shelf] = {}
        self.skus: set[str] = set()
        self.locations: dict[str, str] = {}
        self.channels: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.promises: dict[str, Promise] = {}
        self.events: dict[str, tuple[str, int]] = {}
        self.safety_stock: dict[str, dict[str, int]] = {}
        self._closed_ms, self._event_ms = reservation_retention_ms, event_retention_ms

    def advance(self, now_ms: int) -> None:
        """Let time pass: forget what is old, end the holds that are overdue."""
        self.now_ms = now_ms
        due = [key for key, it in self.promises.items() if 0 < it.ends_at_ms <= now_ms]
        old_events = [key for key, (_, ends_at_ms) in self.events.items() if ends_at_ms <= now_ms]
        overdue = [key for key in due if self.promises[key].state is State.HELD]
        for key in overdue:
            self._close(self.promises[key], State.EXPIRED)
        forgotten = [key for key in due if key not in overdue]
        for key in forgotten:
            del self.promises[key]
        for key in old_events:
            del self.events[key]
        self.decisions += len(overdue) + bool(forgotten or old_events)

    def decide(self, command: Command) -> Outcome:
        """Do what is asked, or say why not."""
        try:
            outcome = self._decide(command)
        except Refusal as refusal:
            return refusal.outcome
        if outcome not in {Outcome.REPLAYED, Outcome.DUPLICATE, Outcome.UNCHANGED}:
            self.decisions += 1
        return outcome

    # What there is.

    def promised(self, sku: str, location: str, *states: State) -> dict[str, int]:
        """Add up by channel what reservations in some states have, and has not left."""
        units: dict[str, int] = {}
        for promise in self.promises.values():
            if promise.state in states:
                for part in promise.parts:
                    if (part.sku, part.location) == (sku, location):
                        left = part.quantity - part.shipped
                        units[promise.channel] = units.get(promise.channel, 0) + left
        return {channel: count for channel, count in units.items() if count}

    def committed(self, sku: str, location: str) -> int:
        everybody = sum(self.promised(sku, location, State.COMMITTED).values())
        return everybody - self.shelf(sku, location).left_unnamed

    def available(self, sku: str, location: str) -> int:
        shelf = self.shelf(sku, location)
        # Nothing can be sold because it is less than nothing that is broken.
        unsellable = max(0, shelf.damaged) + max(0, shelf.quality_control) + shelf.safety_stock
        held = sum(self.promised(sku, location, State.HELD).values())
        return shelf.on_hand - unsellable - held - self.committed(sku, location)

    def shelf(self, sku: str, location: str) -> Shelf:
        return self.shelves.setdefault((sku, location), Shelf())

    # Reservations.

    @singledispatchmethod
    def _decide(self, command: Command) -> Outcome:
        raise NotImplementedError(command)

    @_decide.register
    def _reserve(self, command: Reserve) -> Outcome:
        known = self._known(command.reservation_id, command.fingerprint)
        if known is not None:
            return known
        locations = self._check_lines(command.channel, command.lines)
        replaced = self.promises.get(command.replaces)
        if command.replaces and (replaced is None or replaced.state is State.REFUSED):
            raise Refusal(Outcome.UNKNOWN_RESERVATION)
        if replaced and replaced.state not in {State.HELD, *CLOSED}:
            raise Refusal(Outcome.ALREADY_COMMITTED)
        promise = Promise(
            State.HELD, command.fingerprint, command.channel, self.now_ms + command.ttl_ms, [], []
        )
        state_before = replaced.state if replaced else None
        if replaced and replaced.state is State.HELD:
            replaced.state = State.RELEASED
        self.promises[command.reservation_id] = promise
        self._source(promise, command.lines, locations)
        if promise.shortages and not (command.partial and promise.parts):
            if replaced and state_before:
                replaced.state = state_before
            promise.parts.clear()
            self._close(promise, State.REFUSED)
            return Outcome.INSUFFICIENT_STOCK
        if replaced:
            if state_before is State.HELD:
                self._close(replaced, State.RELEASED)
            replaced.state, replaced.replaced_by = State.RELEASED, command.reservation_id
        return Outcome.HELD

    @_decide.register
    def _confirm(self, command: Confirm) -> Outcome:
        promise = self._promise(command.reservation_id)
        if promise.state is State.RELEASED:
            raise Refusal(Outcome.HOLD_LOST)
        if promise.state not in {State.HELD, State.EXPIRED}:
            if command.order_id in {"", promise.order_id}:
                return Outcome.REPLAYED
            if promise.order_id:
                raise Refusal(Outcome.IDEMPOTENCY_MISMATCH)
            # The order had no name yet.
            promise.order_id = command.order_id
            return Outcome.COMMITTED
        if promise.state is State.EXPIRED:
            self._take_again(promise)
        promise.state, promise.order_id, promise.ends_at_ms = State.COMMITTED, command.order_id, 0
        return Outcome.COMMITTED

    @_decide.register
    def _release(self, command: Release) -> Outcome:
        promise = self._promise(command.reservation_id)
        if promise.state is State.RELEASED:
            return Outcome.REPLAYED
        if command.hold_only and promise.state not in {State.HELD, State.EXPIRED}:
            raise Refusal(Outcome.ALREADY_COMMITTED)
        if promise.state in {State.SHIPPED, State.RETURNED}:
            raise Refusal(Outcome.ALREADY_SHIPPED)
        if promise.state is State.EXPIRED:
            promise.state = State.RELEASED
        else:
            self._close(promise, State.RELEASED)
            self._cap_left_unnamed(promise)
        return Outcome.RELEASED

    @_decide.register
    def _extend(self, command: Extend) -> Outcome:
        promise = self._promise(command.reservation_id)
        if promise.state in CLOSED:
            raise Refusal(Outcome.HOLD_LOST)
        if promise.state is not State.HELD:
            raise Refusal(Outcome.ALREADY_COMMITTED)
        promise.ends_at_ms = self.now_ms + command.ttl_ms
        return Outcome.EXTENDED

    @_decide.register
    def _order(self, command: Order) -> Outcome:
        known = self._known(command.reservation_id, command.fingerprint)
        if known is not None:
            return known
        if not self.channels.get(command.channel, ("", ()))[1]:
            raise Refusal(Outcome.UNKNOWN_CHANNEL)
        locations = self._check_lines(command.channel, command.lines)
        promise = Promise(State.COMMITTED, command.fingerprint, command.channel, 0, [], [])
        promise.order_id = command.order_id
        self.promises[command.reservation_id] = promise
        self._source(promise, command.lines, locations, owe=True)
        return Outcome.COMMITTED

    # Movements.

    @_decide.register
    def _move(self, command: Move) -> Outcome:
        if command.event_key in self.events:
            if self.events[command.event_key][0] != command.fingerprint:
                raise Refusal(Outcome.IDEMPOTENCY_MISMATCH)
            return Outcome.DUPLICATE
        for line in command.lines:
            places = [line.location, *([line.to] if command.kind == Movement.TRANSFER else [])]
            if line.sku not in self.skus:
                raise Refusal(Outcome.UNKNOWN_SKU)
            if any(place not in self.locations for place in places):
                raise Refusal(Outcome.UNKNOWN_LOCATION)
        named = self.promises.get(command.reservation_id)
        # Goods that go out or come back under a name that nobody knows have moved all the same.
        promise = None if named is None or named.state is State.REFUSED else named
        too_old = 0 < command.occurred_at_ms < self.now_ms - COUNTABLE_MS
        if command.kind == Movement.COUNT and too_old:
            raise Refusal(Outcome.COUNT_TOO_OLD)
        for line in command.lines:
            self._move_goods(command, line)
            if command.kind == Movement.SHIPMENT and (promise or not command.reservation_id):
                self._settle_shipment(line, promise)
            elif command.kind == Movement.RETURN and promise:
                self._settle_return(line, promise)
        self.events[command.event_key] = (command.fingerprint, self.now_ms + self._event_ms)
        return Outcome.APPLIED

    def _move_goods(self, command: Move, line: MovedLine) -> None:
        shelf, when = self.shelf(line.sku, line.location), (command.occurred_at_ms, self.now_ms)
        shelf.move(Movement(command.kind), line, *when)
        if command.kind == Movement.TRANSFER:
            self.shelf(line.sku, line.to).change(line.quantity, *when)

    def _settle_shipment(self, line: MovedLine, promise: Promise | None) -> None:
        if promise is None:
            open_units = max(0, self.committed(line.sku, line.location))
            self.shelf(line.sku, line.location).left_unnamed += min(line.quantity, open_units)
            return
        if promise.state is State.HELD:
            promise.state, promise.ends_at_ms = State.COMMITTED, 0
        if promise.state is State.COMMITTED:
            for part, units in spread(
                line, promise.parts, lambda part: part.quantity - part.shipped
            ):
                part.shipped += units
            self._cap_left_unnamed(promise)
            if all(part.shipped == part.quantity for part in promise.parts):
                promise.state, promise.ends_at_ms = State.SHIPPED, self.now_ms + self._closed_ms

    def _settle_return(self, line: MovedLine, promise: Promise) -> None:
        for part, units in spread(line, promise.parts, lambda part: part.shipped - part.returned):
            part.returned += units
        everything = all(part.returned == part.quantity for part in promise.parts)
        if promise.state is State.SHIPPED and everything:
            promise.state = State.RETURNED

    # Configuration.

    @_decide.register
    def _configure_location(self, command: ConfigureLocation) -> Outcome:
        return configured(self.locations, command.code, command.name)

    @_decide.register
    def _configure_channel(self, command: ConfigureChannel) -> Outcome:
        if any(location not in self.locations for location in command.locations):
            raise Refusal(Outcome.UNKNOWN_LOCATION)
        return configured(self.channels, command.code, (command.name, command.locations))

    @_decide.register
    def _configure_sku(self, command: ConfigureSku) -> Outcome:
        flat = command.safety_stock
        wanted = {str(flat[at]): int(flat[at + 1]) for at in range(0, len(flat), 2)}
        if any(location not in self.locations for location in wanted):
            raise Refusal(Outcome.UNKNOWN_LOCATION)
        self.skus.add(command.sku)
        wanted = {location: units for location, units in wanted.items() if units}
        for location in self.locations:
            self.shelf(command.sku, location).safety_stock = wanted.get(location, 0)
        return configured(self.safety_stock, command.sku, wanted)

    # What several commands share.

    def _known(self, reservation_id: str, fingerprint: str) -> Outcome | None:
        known = self.promises.get(reservation_id)
        if known is None:
            return None
        if known.fingerprint != fingerprint:
            raise Refusal(Outcome.IDEMPOTENCY_MISMATCH)
        # A refusal that was given once is given again; nothing is decided anew.
        if known.state is State.REFUSED:
            raise Refusal(Outcome.INSUFFICIENT_STOCK)
        return Outcome.REPLAYED

    def _promise(self, reservation_id: str) -> Promise:
        promise = self.promises.get(reservation_id)
        if promise is None or promise.state is State.REFUSED:
            raise Refusal(Outcome.UNKNOWN_RESERVATION)
        return promise

    def _check_lines(self, channel: str, lines: Iterable[Wanted]) -> tuple[str, ...]:
        if channel not in self.channels:
            raise Refusal(Outcome.UNKNOWN_CHANNEL)
        locations = self.channels[channel][1]
        for line in lines:
            if line.sku not in self.skus:
                raise Refusal(Outcome.UNKNOWN_SKU)
            if line.location and line.location not in locations:
                raise Refusal(Outcome.UNKNOWN_LOCATION)
        return locations

    def _source(
        self,
        promise: Promise,
        lines: Iterable[Wanted],
        locations: tuple[str, ...],
        *,
        owe: bool = False,
    ) -> None:
        for line in lines:
            places = (line.location,) if line.location else locations
            missing = self._take(
                promise, line.sku, line.quantity, places, pinned=bool(line.location)
            )
            if missing:
                promise.shortages.append((line.sku, line.quantity, line.quantity - missing))
            if missing and owe:
                same = [
                    part
                    for part in promise.parts
                    if (part.sku, part.location, part.pinned)
                    == (line.sku, places[0], bool(line.location))
                ]
                if not same:
                    same = [Part(line.sku, 0, places[0], bool(line.location))]
                    promise.parts += same
                same[0].quantity += missing

    def _take(
        self, promise: Promise, sku: str, wanted: int, places: Iterable[str], *, pinned: bool
    ) -> int:
        for place in places:
            units = min(wanted, max(0, self.available(sku, place)))
            if units:
                promise.parts.append(Part(sku, units, place, pinned))
                wanted -= units
        return wanted

    def _take_again(self, promise: Promise) -> None:
        before, locations = promise.parts, self.channels[promise.channel][1]
        promise.state, promise.parts = State.COMMITTED, []
        for part in before:
            places = (part.location, *(() if part.pinned else locations))
            if self._take(promise, part.sku, part.quantity, places, pinned=part.pinned):
                promise.state, promise.parts = State.EXPIRED, before
                raise Refusal(Outcome.HOLD_LOST)

    def _close(self, promise: Promise, state: State) -> None:
        promise.state, promise.ends_at_ms = state, self.now_ms + self._closed_ms

    def _cap_left_unnamed(self, promise: Promise) -> None:
        """No more units can have left without a name than are committed."""
        for part in promise.parts:
            shelf = self.shelf(part.sku, part.location)
            everybody = sum(self.promised(part.sku, part.location, State.COMMITTED).values())
            shelf.left_unnamed = min(shelf.left_unnamed, everybody)
