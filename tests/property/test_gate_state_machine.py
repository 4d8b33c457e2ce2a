"""The real Lua on a real Redis against the sequential model, with everything compared after every step."""

from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from oracle import Oracle
from oracle_records import Promise
from property.command_strategies import (
    DAY_MS,
    LOCATIONS,
    MINUTE_MS,
    SKUS,
    commands,
    confirms,
    event_keys,
    extensions,
    movements,
    orders,
    releases,
    reserves,
    units,
)
from property.driven_gate import EVENT_RETENTION_MS, RESERVATION_RETENTION_MS, DrivenGate

from allocation.commands import (
    Command,
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Move,
    MovedLine,
    Movement,
)
from allocation.model import Reservation
from allocation.outcomes import State

CATALOGUE: tuple[Command, ...] = (
    *(ConfigureLocation(code, code) for code in LOCATIONS),
    ConfigureChannel("web", "", ("LON", "PAR")),
    ConfigureChannel("pos", "", ("PAR",)),
    *(ConfigureSku(sku, ()) for sku in SKUS),
    *(
        Move(
            f"opening {sku} {location}",
            "",
            int(Movement.RECEIPT),
            0,
            "",
            (MovedLine(sku, location, 6),),
        )
        for sku in SKUS
        for location in LOCATIONS
    ),
)


class GateAgainstOracle(RuleBasedStateMachine):
    """Every rule sends commands to both and compares what they answer; every invariant, what they hold."""

    gate: DrivenGate

    def __init__(self) -> None:
        super().__init__()
        self.oracle = Oracle(RESERVATION_RETENTION_MS, EVENT_RETENTION_MS)
        self.now_ms = self.gate.reset()
        self._decide(CATALOGUE)

    @rule(command=reserves)
    def reserve(self, command: Command) -> None:
        self._decide([command])

    @rule(command=orders)
    def order(self, command: Command) -> None:
        self._decide([command])

    @rule(command=st.one_of(confirms, releases, extensions))
    def end_or_extend(self, command: Command) -> None:
        self._decide([command])

    @rule(drawn=st.data())
    def move(self, drawn: st.DataObject) -> None:
        self._decide([drawn.draw(movements(self.now_ms))])

    @rule(
        key=event_keys, sku=st.sampled_from(SKUS), location=st.sampled_from(LOCATIONS), units=units
    )
    def sell_what_was_damaged(self, key: str, sku: str, location: str, units: int) -> None:
        units = min(units, self.oracle.shelf(sku, location).damaged)
        if units > 0:
            line = MovedLine(sku, location, units, "damaged", "")
            self._decide([Move(key, "as before", int(Movement.STATUS), 0, "", (line,))])

    @rule(drawn=st.data())
    def batch(self, drawn: st.DataObject) -> None:
        self._decide(drawn.draw(st.lists(commands(self.now_ms), min_size=2, max_size=8)))

    @rule(passed_ms=st.sampled_from([1_500, 16 * MINUTE_MS, DAY_MS, 8 * DAY_MS, 15 * DAY_MS]))
    def wait(self, passed_ms: int) -> None:
        self.now_ms += passed_ms
        self._decide([])

    @invariant()
    def both_hold_the_same_stock(self) -> None:
        for sku, stock in self.gate.stock().items():
            assert sku in self.oracle.skus
            found = {pool.location: pool for pool in stock.pools}
            for location in LOCATIONS:
                pool, shelf = found.get(location), self.oracle.shelf(sku, location)
                assert (pool.on_hand if pool else 0) == shelf.on_hand
                assert (pool.damaged if pool else 0) == shelf.damaged
                assert (pool.quality_control if pool else 0) == shelf.quality_control
                assert (pool.safety_stock if pool else 0) == shelf.safety_stock
                assert (pool.committed if pool else 0) == self.oracle.committed(sku, location)
                uses = pool.uses if pool else ()
                reserved = {use.channel: use.reserved for use in uses if use.reserved}
                committed = {use.channel: use.committed for use in uses if use.committed}
                assert reserved == self.oracle.promised(sku, location, State.HELD)
                assert committed == self.oracle.promised(sku, location, State.COMMITTED)
                assert (pool.available if pool else 0) == self.oracle.available(sku, location)

    @invariant()
    def both_hold_the_same_reservations(self) -> None:
        found = {key: _told(record) for key, record in self.gate.reservations().items()}
        assert found == {key: _expected(promise) for key, promise in self.oracle.promises.items()}
        assert self.gate.event_keys() == set(self.oracle.events)

    @invariant()
    def the_journal_tells_exactly_what_redis_holds(self) -> None:
        self.gate.check_journal()
        assert self.gate.sequence == self.oracle.decisions

    def _decide(self, batch: Sequence[Command]) -> None:
        decisions = self.gate.decide(self.now_ms, batch).decisions
        self.oracle.advance(self.now_ms)
        assert len(decisions) == len(batch)
        for command, decision in zip(batch, decisions, strict=True):
            expected = self.oracle.decide(command)
            assert decision.outcome is expected, (command, decision, expected)
            if decision.record is not None:
                promise = self.oracle.promises[command.reservation_id]  # type: ignore[union-attr]
                told, expected_record = _told(decision.record), _expected(promise)
                assert told == expected_record, (command, told, expected_record)


def _told(record: Reservation) -> tuple[object, ...]:
    return (
        record.state,
        record.fingerprint,
        record.channel,
        record.deadline_ms,
        record.order_id,
        record.replaced_by,
        [
            (line.sku, line.quantity, line.location, line.pinned, line.shipped, line.returned)
            for line in record.lines
        ],
        [(short.sku, short.requested, short.available) for short in record.shortages],
    )


def _expected(promise: Promise) -> tuple[object, ...]:
    return (
        promise.state,
        promise.fingerprint,
        promise.channel,
        promise.ends_at_ms,
        promise.order_id,
        promise.replaced_by,
        [
            (part.sku, part.quantity, part.location, part.pinned, part.shipped, part.returned)
            for part in promise.parts
        ],
        promise.shortages,
    )


def test_gate_decides_as_the_sequential_model_does(driven_gate: DrivenGate) -> None:
    """Every outcome, record, bucket and journal entry is what one careful clerk would have made of it."""
    GateAgainstOracle.gate = driven_gate
    run_state_machine_as_test(
        GateAgainstOracle,
        settings=settings(
            max_examples=80,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
