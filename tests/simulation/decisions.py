"""The gate's decisions as the Lua makes them, in plain Python, for shops with one location.

It writes real journal entries and real records, so that the engine's own rebuild and audit can read them.
"""

from collections.abc import Sequence

import msgspec
from simulation.store import Store

from allocation.commands import (
    Command,
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Confirm,
    Move,
    Movement,
    Release,
    Reserve,
)
from allocation.folding import CONFIGURATION_KEY, EVENTS_KEY, RESERVATIONS_KEY, STOCK_KEY
from allocation.journal import EventRecord, chain
from allocation.model import Channel, Line, Location, Reservation, Shortage, Stock
from allocation.outcomes import Kind, Outcome, State
from allocation.ports import Decision

RETENTION_MS, EVENT_RETENTION_MS = 7 * 86_400_000, 14 * 86_400_000
MOVES_KEPT_MS = 30 * 86_400_000
NIL = msgspec.Raw(b"\xc0")
REPLAYED = msgspec.Raw(b"\xc3")
# Where a stock record of one pool has what; each use is a channel with what it has reserved and committed.
ON_HAND, DAMAGED, QUALITY_CONTROL, SAFETY_STOCK, SHIPPED, USES, FIRST_USE = 1, 2, 3, 4, 5, 7, 8
RESERVED, COMMITTED = 1, 2

pack = msgspec.msgpack.Encoder().encode
_DECODE = {
    STOCK_KEY: msgspec.msgpack.Decoder(Stock).decode,
    RESERVATIONS_KEY: msgspec.msgpack.Decoder(Reservation).decode,
    EVENTS_KEY: msgspec.msgpack.Decoder(EventRecord).decode,
}
_decode_command = msgspec.msgpack.Decoder(Command).decode
_decode_channel = msgspec.msgpack.Decoder(Channel).decode
_decode_location = msgspec.msgpack.Decoder(Location).decode
_replace = msgspec.structs.replace


class Call:
    """One call: decides commands in order on a working copy, and knows what would have to be written."""

    # Whether what was done before is known by its id. Only a mutant has it otherwise.
    knows_replays = True

    def __init__(self, store: Store, now_ms: int, overdue_max: int) -> None:
        self._store = store
        self.now_ms = max(store.last_ms, now_ms)
        self.sequence, self.hash = store.sequence, store.hash
        self.entries: list[bytes] = []
        self.changed: dict[tuple[int, str], bytes | None] = {}
        self.moves: list[tuple[str, str]] = []
        self.swept_all = False
        self._touched: dict[tuple[int, str], msgspec.Struct] = {}
        self._moved: list[tuple[str, str]] = []
        self._expire_overdue(overdue_max)

    def decide(self, packed: Sequence[msgspec.Raw]) -> list[Decision]:
        """Decide every command."""
        return [self._decide_one(_decode_command(raw)) for raw in packed]

    def _decide_one(self, command: Command) -> Decision:  # noqa: PLR0911 - one for each kind
        self._touched, self._moved = {}, []
        match command:
            case Reserve():
                return self._reserve(command)
            case Confirm():
                return self._confirm(command)
            case Release():
                return self._release(command)
            case Move():
                return self._move(command)
            case ConfigureSku():
                return self._configure_sku(command)
            case ConfigureLocation():
                return self._configure(
                    f"location:{command.code}", Location(0, command.name), _decode_location
                )
            case ConfigureChannel():
                record = Channel(0, command.name, command.locations)
                return self._configure(f"channel:{command.code}", record, _decode_channel)
        raise NotImplementedError(command)

    # Reservations.

    def _reserve(self, command: Reserve) -> Decision:
        known = self._get(RESERVATIONS_KEY, command.reservation_id)
        if known is not None and self.knows_replays:
            return _replay(known, command.fingerprint)
        if self._packed(CONFIGURATION_KEY, f"channel:{command.channel}") is None:
            return _refused(Outcome.UNKNOWN_CHANNEL)
        if any(self._get(STOCK_KEY, line.sku) is None for line in command.lines):
            return _refused(Outcome.UNKNOWN_SKU)
        lines, shortages = self._source(command)
        if shortages and not self.swept_all:
            return _refused(Outcome.DEFERRED)
        state, ends_at_ms = State.HELD, self.now_ms + command.ttl_ms
        if shortages:
            state, ends_at_ms, lines = State.REFUSED, self.now_ms + RETENTION_MS, []
            self._touched = {}
        self._touched[RESERVATIONS_KEY, command.reservation_id] = Reservation(
            state,
            0,
            command.fingerprint,
            command.channel,
            ends_at_ms,
            "",
            "",
            tuple(lines),
            tuple(shortages),
        )
        if shortages:
            return self._record(Kind.REFUSED, command.reservation_id, Outcome.INSUFFICIENT_STOCK)
        return self._record(Kind.HELD, command.reservation_id, Outcome.HELD)

    def _source(self, command: Reserve) -> tuple[list[Line], list[Shortage]]:
        lines: list[Line] = []
        shortages: list[Shortage] = []
        for want in command.lines:
            units = self._take(want.sku, want.quantity, command.channel, RESERVED)
            missing = want.quantity - units
            if units:
                lines.append(Line(want.sku, units, "LON", 0, 0, pinned=False))
            if missing:
                held = sum(self._pool(want.sku)[FIRST_USE + RESERVED :: 3]) - units
                limited_by = "reserved" if held >= missing else "on_hand"
                shortages.append(Shortage(want.sku, want.quantity, units, limited_by))
        return lines, shortages

    def _confirm(self, command: Confirm) -> Decision:
        known = self._get(RESERVATIONS_KEY, command.reservation_id)
        if known is None or known.state is State.REFUSED:
            return _refused(Outcome.UNKNOWN_RESERVATION)
        if known.state is State.RELEASED:
            return _refused(Outcome.HOLD_LOST)
        if known.state is State.COMMITTED:
            return self._confirm_again(command, known)
        if known.state is State.HELD:
            for line in known.lines:
                self._promise(line.sku, known.channel, RESERVED, -line.quantity)
                self._promise(line.sku, known.channel, COMMITTED, line.quantity)
        else:
            for line in known.lines:
                taken = self._take(line.sku, line.quantity, known.channel, COMMITTED)
                if taken < line.quantity:
                    return _refused(Outcome.HOLD_LOST if self.swept_all else Outcome.DEFERRED)
        self._touched[RESERVATIONS_KEY, command.reservation_id] = _replace(
            known, state=State.COMMITTED, order_id=command.order_id, deadline_ms=0
        )
        return self._record(Kind.COMMITTED, command.reservation_id, Outcome.COMMITTED)

    def _confirm_again(self, command: Confirm, known: Reservation) -> Decision:
        if command.order_id in {"", known.order_id}:
            return Decision(Outcome.REPLAYED, known.version, known, NIL)
        if known.order_id:
            return _refused(Outcome.IDEMPOTENCY_MISMATCH)
        named = _replace(known, order_id=command.order_id)
        self._touched[RESERVATIONS_KEY, command.reservation_id] = named
        return self._record(Kind.COMMITTED, command.reservation_id, Outcome.COMMITTED)

    def _release(self, command: Release) -> Decision:
        reservation_id = command.reservation_id
        known = self._get(RESERVATIONS_KEY, reservation_id)
        if known is None or known.state is State.REFUSED:
            return _refused(Outcome.UNKNOWN_RESERVATION)
        if known.state is State.RELEASED:
            return Decision(Outcome.REPLAYED, known.version, known, NIL)
        if command.hold_only and known.state not in {State.HELD, State.EXPIRED}:
            return _refused(Outcome.ALREADY_COMMITTED)
        if known.state is State.EXPIRED:
            released = _replace(known, state=State.RELEASED)
            self._touched[RESERVATIONS_KEY, reservation_id] = released
        else:
            self._close(reservation_id, known, State.RELEASED)
        return self._record(Kind.RELEASED, reservation_id, Outcome.RELEASED)

    def _close(self, reservation_id: str, known: Reservation, state: State) -> None:
        bucket = RESERVED if known.state is State.HELD else COMMITTED
        for line in known.lines:
            self._promise(line.sku, known.channel, bucket, -line.quantity)
        self._touched[RESERVATIONS_KEY, reservation_id] = _replace(
            known, state=state, deadline_ms=self.now_ms + RETENTION_MS
        )

    def _expire_overdue(self, lines_max: int) -> None:
        overdue = sorted(
            (at_ms, member)
            for member, at_ms in self._store.deadlines.items()
            if 0 <= at_ms <= self.now_ms
        )[:lines_max]
        ended = lines = 0
        while ended < len(overdue) and lines < lines_max:
            reservation_id = overdue[ended][1][1:]
            known = self._get(RESERVATIONS_KEY, reservation_id)
            ended += 1
            lines += len(known.lines)
            self._touched, self._moved = {}, []
            self._close(reservation_id, known, State.EXPIRED)
            self._record(Kind.EXPIRED, reservation_id, Outcome.RELEASED)
        self.swept_all = ended == len(overdue) and ended < lines_max

    # Stock and configuration.

    def _move(self, command: Move) -> Decision:
        known = self._get(EVENTS_KEY, command.event_key)
        if known is not None and self.knows_replays:
            if known.fingerprint != command.fingerprint:
                return _refused(Outcome.IDEMPOTENCY_MISMATCH)
            return Decision(Outcome.DUPLICATE, known.version, None, NIL)
        assert command.kind in {Movement.RECEIPT, Movement.ADJUSTMENT}, "Bug: not simulated"
        if any(self._get(STOCK_KEY, line.sku) is None for line in command.lines):
            return _refused(Outcome.UNKNOWN_SKU)
        for line in command.lines:
            values = self._pool(line.sku)
            values[ON_HAND] += line.quantity
            self._set_pool(line.sku, values)
            prefix = f"{line.sku}\0{line.location}\0"
            number = f"{self.sequence + 1}.{len(self._moved)}"
            member = f"{prefix}{self.now_ms:015d}\0{number}\0{line.quantity}"
            oldest = max(0, self.now_ms - MOVES_KEPT_MS)
            self._moved += [("", member), (prefix, f"{prefix}{oldest:015d}")]
        self._touched[EVENTS_KEY, command.event_key] = EventRecord(
            command.fingerprint, 0, self.now_ms + EVENT_RETENTION_MS
        )
        detail = pack([command.kind, 0, "", command.lines])
        return self._record(Kind.MOVED, command.event_key, Outcome.APPLIED, detail)

    def _configure_sku(self, command: ConfigureSku) -> Decision:
        known = self._get(STOCK_KEY, command.sku)
        if known is not None:
            return Decision(Outcome.UNCHANGED, known.version, None, NIL)
        self._touched[STOCK_KEY, command.sku] = Stock(0, ())
        return self._record(Kind.CONFIGURED, f"sku:{command.sku}", Outcome.CREATED)

    def _configure(self, key: str, record: msgspec.Struct, decode: object) -> Decision:
        packed = self._packed(CONFIGURATION_KEY, key)
        if packed is not None:
            known = decode(packed)
            if _replace(record, version=known.version) == known:
                return Decision(Outcome.UNCHANGED, known.version, None, NIL)
        self._touched[CONFIGURATION_KEY, key] = record
        outcome = Outcome.CREATED if packed is None else Outcome.REPLACED
        return self._record(Kind.CONFIGURED, key, outcome)

    # The working copy.

    def _packed(self, key: int, field: str) -> bytes | None:
        if (key, field) in self.changed:
            return self.changed[key, field]
        return self._store.records[key].get(field)

    def _get(self, key: int, field: str) -> msgspec.Struct | None:
        touched = self._touched.get((key, field))
        if touched is not None:
            return touched
        packed = self._packed(key, field)
        return None if packed is None else _DECODE[key](packed)

    def _pool(self, sku: str) -> list[str | int]:
        return list(self._get(STOCK_KEY, sku).values) or ["LON", 0, 0, 0, 0, 0, 0, 0]

    def _set_pool(self, sku: str, values: list[str | int]) -> None:
        self._touched[STOCK_KEY, sku] = Stock(0, tuple(values))

    def _take(self, sku: str, quantity: int, channel: str, bucket: int) -> int:
        values = self._pool(sku)
        promised = sum(values[FIRST_USE + RESERVED :: 3]) + sum(values[FIRST_USE + COMMITTED :: 3])
        units = min(quantity, max(0, values[ON_HAND] - values[SAFETY_STOCK] - promised))
        if units:
            self._promise(sku, channel, bucket, units)
        return units

    def _promise(self, sku: str, channel: str, bucket: int, units: int) -> None:
        values = self._pool(sku)
        channels = values[FIRST_USE::3]
        if channel not in channels:
            values += [channel, 0, 0]
            values[USES] += 1
            channels.append(channel)
        values[FIRST_USE + 3 * channels.index(channel) + bucket] += units
        self._set_pool(sku, values)

    def _record(
        self, kind: Kind, subject: str, outcome: Outcome, detail: bytes = b"\xc0"
    ) -> Decision:
        """Make everything that was touched one entry."""
        sequence = self.sequence + 1
        lists: dict[int, list[tuple[str, msgspec.Raw]]] = {
            key: [] for key in (RESERVATIONS_KEY, STOCK_KEY, EVENTS_KEY, CONFIGURATION_KEY)
        }
        record: Reservation | None = None
        for (key, field), touched in self._touched.items():
            versioned = _replace(touched, version=sequence)
            packed = pack(versioned)
            lists[key].append((field, msgspec.Raw(packed)))
            self.changed[key, field] = packed
            if key == RESERVATIONS_KEY and field == subject:
                record = versioned
        body = pack(
            [int(kind), self.now_ms, subject, *lists.values(), self._moved, msgspec.Raw(detail)]
        )
        self.moves += self._moved
        self._touched, self._moved = {}, []
        self.sequence, self.hash = sequence, chain(self.hash, body)
        self.entries.append(body)
        return Decision(outcome, sequence, record, NIL)


def _replay(known: Reservation, fingerprint: str) -> Decision:
    if known.fingerprint != fingerprint:
        return _refused(Outcome.IDEMPOTENCY_MISMATCH)
    refused = known.state is State.REFUSED
    outcome = Outcome.INSUFFICIENT_STOCK if refused else Outcome.REPLAYED
    return Decision(outcome, known.version, known, REPLAYED)


def _refused(outcome: Outcome) -> Decision:
    return Decision(outcome, 0, None, NIL)
