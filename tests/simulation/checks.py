"""What must be true of a run, whatever has happened in it; each check names what it found."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from oracle import Oracle
from simulation.decisions import RETENTION_MS
from simulation.gate import RedisServer
from simulation.history import FAIL, Operation
from simulation.ledger import SimulatedPostgres

from allocation.audit import audit
from allocation.commands import (
    Command,
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Confirm,
    Move,
    Release,
    Reserve,
)
from allocation.folding import STOCK_KEY, FoldedState
from allocation.journal import GENESIS_HASH, Entry, chain, decode_entry
from allocation.outcomes import Kind, Outcome, State
from allocation.ports import Head

if TYPE_CHECKING:
    from simulation.world import World

KIND_OF = {
    Outcome.HELD: Kind.HELD,
    Outcome.INSUFFICIENT_STOCK: Kind.REFUSED,
    Outcome.COMMITTED: Kind.COMMITTED,
    Outcome.RELEASED: Kind.RELEASED,
    Outcome.APPLIED: Kind.MOVED,
    Outcome.CREATED: Kind.CONFIGURED,
}
REPEATED = frozenset({Outcome.REPLAYED, Outcome.DUPLICATE, Outcome.UNCHANGED})


class _Still:
    """Gate and ledger as an audit reads them, while nothing else happens."""

    def __init__(self, redis: RedisServer, postgres: SimulatedPostgres) -> None:
        self._store, self._postgres = redis.store, postgres

    async def present_state(self) -> tuple[int, int, str] | None:
        return self._store.epoch or 0, self._store.sequence, self._store.hash

    async def scan_stock(self, _cursor: int, _count: int) -> tuple[int, dict[bytes, bytes]]:
        stock = self._store.records[STOCK_KEY]
        return 0, {sku.encode(): record for sku, record in stock.items()}

    async def head(self) -> Head:
        return self._postgres.head

    async def read_with_hash(self, after_sequence: int, limit: int) -> list[tuple[int, str, bytes]]:
        numbers = sorted(number for number in self._postgres.rows if number > after_sequence)
        return [(number, *self._postgres.rows[number]) for number in numbers[:limit]]


async def check_all(world: "World", answered: list[Operation] | None = None) -> list[str]:
    """Give everything that is wrong with the run; nothing where it is right.

    `answered` are the operations whose answers must stand; all of them where it is missing.
    """
    answered = world.operations if answered is None else answered
    postgres, redis = world.postgres, world.redis
    found = list(_whole(postgres))
    if found:
        # What does not chain cannot be read further.
        return found + list(_answers_kept(answered, postgres))
    still = _Still(redis, postgres)
    audited = await audit(still, still)
    found += [f"audit: {broken}" for broken in audited.breaks]
    found += [f"oversold: {over}" for over in audited.oversold]
    found += [f"audit: {difference}" for difference in audited.differences]
    entries = [decode_entry(postgres.rows[number][1]) for number in sorted(postgres.rows)]
    found += _gate_is_fold(redis, postgres)
    found += _model_agrees(entries, world.operations)
    found += _answers_kept(answered, postgres)
    found += _failed_did_nothing(entries, world.operations)
    found += _real_time_order(answered)
    found += _nothing_dropped(world.decided, postgres)
    return found


def _whole(postgres: SimulatedPostgres) -> Iterator[str]:
    latest = GENESIS_HASH
    for expected, number in enumerate(sorted(postgres.rows), 1):
        stored, body = postgres.rows[number]
        latest = chain(latest, body)
        if number != expected:
            yield f"ledger: entry {expected} is missing"
            return
        if stored != latest:
            yield f"ledger: entry {number} does not continue the one before"
            return
    head = postgres.head
    if (head.last_sequence, head.last_hash) != (len(postgres.rows), latest):
        yield f"ledger: its head says {head.last_sequence}, it has {len(postgres.rows)} entries"


def _gate_is_fold(redis: RedisServer, postgres: SimulatedPostgres) -> Iterator[str]:
    folded, store = FoldedState(), redis.store
    for number in sorted(postgres.rows):
        folded.apply(postgres.rows[number][1])
    for key, records in folded.records.items():
        if records != store.records[key]:
            wrong = {
                field
                for field in records.keys() | store.records[key].keys()
                if records.get(field) != store.records[key].get(field)
            }
            yield f"gate: key {key} differs from the folded ledger in {sorted(wrong)}"
    if dict(folded.deadlines()) != store.deadlines:
        yield "gate: deadlines differ from the folded ledger"
    if {member for moves in folded.moves.values() for member in moves} != store.moves:
        yield "gate: moves differ from the folded ledger"


def _key_of(command: Command) -> tuple[object, ...]:  # noqa: PLR0911 - one for each kind
    """Name what a command would write: two with one name are the same request."""
    match command:
        case Reserve():
            return "reserve", command.reservation_id
        case Confirm():
            return "confirm", command.reservation_id, command.order_id
        case Release():
            return "release", command.reservation_id
        case Move():
            return "move", command.event_key
        case ConfigureSku():
            return "configure", f"sku:{command.sku}"
        case ConfigureLocation():
            return "configure", f"location:{command.code}"
        case ConfigureChannel():
            return "configure", f"channel:{command.code}"
    raise NotImplementedError(command)


def _key_of_entry(entry: Entry) -> tuple[object, ...]:
    match entry.kind:
        case Kind.HELD | Kind.REFUSED:
            return "reserve", entry.subject
        case Kind.COMMITTED:
            record = dict(entry.reservations)[entry.subject]
            return "confirm", entry.subject, record.order_id
        case Kind.RELEASED:
            return "release", entry.subject
        case Kind.MOVED:
            return "move", entry.subject
        case Kind.CONFIGURED:
            return "configure", entry.subject
    return "expire", entry.subject


def _model_agrees(entries: list[Entry], operations: list[Operation]) -> Iterator[str]:
    """Decide every entry again by the sequential model: each once, each with the same result."""
    oracle = Oracle(RETENTION_MS, RETENTION_MS)
    asked = {_key_of(operation.command): operation.command for operation in operations}
    done: set[tuple[object, ...]] = set()
    for sequence, entry in enumerate(entries, 1):
        if entry.at_ms < oracle.now_ms:
            yield f"model: entry {sequence} is earlier than the one before"
        oracle.now_ms = entry.at_ms
        if entry.kind is Kind.EXPIRED:
            yield from _expire(oracle, sequence, entry)
            continue
        key = _key_of_entry(entry)
        if key in done:
            yield f"model: {key} was done twice, again as entry {sequence}"
        if key not in asked:
            yield f"model: nobody has asked for entry {sequence}: {key}"
            return
        done.add(key)
        if entry.kind is Kind.REFUSED and _overdue(oracle):
            yield f"model: entry {sequence} was refused while holds were overdue"
        outcome = oracle.decide(asked[key])
        if KIND_OF.get(outcome) is not entry.kind:
            yield f"model: entry {sequence} is {entry.kind.name} where the model says {outcome.name}"
        yield from _same_records(oracle, sequence, entry)


def _expire(oracle: Oracle, sequence: int, entry: Entry) -> Iterator[str]:
    promise = oracle.promises.get(entry.subject)
    if promise is None or promise.state is not State.HELD or promise.ends_at_ms > entry.at_ms:
        yield f"model: entry {sequence} expires what is not overdue: {entry.subject}"
    else:
        oracle._close(promise, State.EXPIRED)


def _overdue(oracle: Oracle) -> bool:
    return any(
        promise.state is State.HELD and promise.ends_at_ms <= oracle.now_ms
        for promise in oracle.promises.values()
    )


def _same_records(oracle: Oracle, sequence: int, entry: Entry) -> Iterator[str]:
    for reservation_id, record in entry.reservations:
        promise = oracle.promises.get(reservation_id)
        assert record is not None, "Bug: nothing is forgotten here"
        told = (record.state, sum(line.quantity for line in record.lines), record.order_id)
        model = promise and (
            promise.state,
            sum(part.quantity for part in promise.parts),
            promise.order_id,
        )
        if told != model:
            yield f"model: entry {sequence} says {told} of {reservation_id}, the model {model}"
    for sku, stock in entry.stock:
        for pool in stock.pools:
            model = (oracle.shelf(sku, pool.location).on_hand, oracle.available(sku, pool.location))
            if (pool.on_hand, pool.available) != model:
                yield f"model: entry {sequence} leaves {pool}, the model {model}"


def _answers_kept(operations: list[Operation], postgres: SimulatedPostgres) -> Iterator[str]:
    """Find answers that do not stand in the ledger, or did not when they were given."""
    for operation in operations:
        decision, label = operation.decision, f"#{operation.number} {operation.command}"
        if decision is None or not decision.version:
            continue
        if decision.version > operation.durable_at_answer:
            yield f"answer: {label} was answered before entry {decision.version} was durable"
        if decision.version not in postgres.rows:
            yield f"answer: {label} is lost: there is no entry {decision.version}"
            continue
        entry = decode_entry(postgres.rows[decision.version][1])
        kind = KIND_OF.get(decision.outcome)
        if kind is not None and (
            kind is not entry.kind or _key_of_entry(entry) != _key_of(operation.command)
        ):
            yield f"answer: {label} is lost: entry {decision.version} is {_key_of_entry(entry)}"
        if decision.record is not None and decision.record not in dict(entry.reservations).values():
            yield f"answer: {label} tells another record than entry {decision.version}"


def _failed_did_nothing(entries: list[Entry], operations: list[Operation]) -> Iterator[str]:
    """Find requests that were refused with the promise that nothing was done, and were done."""
    effects = {_key_of_entry(entry) for entry in entries}
    perhaps = {
        _key_of(operation.command)
        for operation in operations
        if any(attempt.verdict != FAIL for attempt in operation.attempts)
    }
    for operation in operations:
        key = _key_of(operation.command)
        if key in effects and key not in perhaps:
            yield f"fail: #{operation.number} {key} was done though it was said not to be"


def _real_time_order(operations: list[Operation]) -> Iterator[str]:
    """Find what comes in the ledger before something that was answered before it was asked for."""
    done = [
        operation
        for operation in operations
        if operation.decision is not None
        and operation.decision.version
        and operation.decision.outcome not in REPEATED
        and bytes(operation.decision.extra) != b"\xc3"
    ]
    asked = sorted(done, key=lambda operation: operation.invoked_at)
    answered = sorted(done, key=lambda operation: operation.answered_at)
    latest, place = 0, 0
    for operation in asked:
        while place < len(answered) and answered[place].answered_at < operation.invoked_at:
            latest = max(latest, answered[place].decision.version)
            place += 1
        if operation.decision.version <= latest:
            yield f"order: #{operation.number} has {operation.decision.version}, after {latest} was answered"


def _nothing_dropped(decided: dict[int, str], postgres: SimulatedPostgres) -> Iterator[str]:
    """Find what the gate decided rightfully, and no fault of Redis took away, and nobody appended."""
    for sequence, last_hash in decided.items():
        if sequence not in postgres.rows or postgres.rows[sequence][0] != last_hash:
            yield f"dropped: entry {sequence} was decided, nothing was lost, and it is not in the ledger"
