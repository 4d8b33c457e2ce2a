"""Online verification on a real Redis and PostgreSQL: nothing is found beside sales, and every hand edit is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import msgspec
import pytest
from engine.shards import CATALOGUE, WHOLE, Shard, hold, until
from one_redis import OneRedis
from redis.asyncio import Redis

from allocation.audit import audit
from allocation.checkpoints import write_checkpoint
from allocation.commands import Confirm, Move, MovedLine, Movement, Release, Reserve, Wanted
from allocation.errors import Closed, EngineError, GateUnverified
from allocation.folding import FoldedState
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.gate.redis_reads import RedisReads
from allocation.history import history_from_checkpoint
from allocation.journal import chain
from allocation.ledger.postgres_findings import PostgresFindings
from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.outcomes import Outcome
from allocation.pipeline import Pipeline
from allocation.rebuild import fold
from allocation.takeover import take_over_and_rebuild
from allocation.verification import Checkpoints, ReadLedger, Verification
from allocation.watch import Finding, Place, Watch

META, STOCK, RESERVATIONS, EVENTS, CONFIGURATION, DEADLINES, MOVES, _ = shard_keys(0)
# Where the first pool of a stock record has its units on hand.
ON_HAND = 1
SELLABLE = {Outcome.HELD, Outcome.INSUFFICIENT_STOCK}
Edit = Callable[[Redis], Awaitable[object]]


class Watched:
    """A watch over the shard of a test, with what it found."""

    def __init__(self, gate: RedisGate, redis: Redis, database_url: str) -> None:
        self.database_url = database_url
        self.ledger = PostgresLedger(database_url, 0)
        self.reads = RedisReads(OneRedis(redis), 0)
        self.findings = PostgresFindings(database_url, 0)
        self.found: list[Finding] = []
        self.verification = Verification(self.reads, self.ledger, cpu_share_max=1.0)
        self.watch = Watch(gate, self.ledger, self.findings, self.verification, self.found.append)

    async def look(self) -> Place:
        """Look once, again where a take-over came between."""
        while True:
            try:
                return (await self.watch.run_once()).place
            except GateUnverified:
                await asyncio.sleep(0.01)

    async def ask(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """Ask the database, or change the ledger as nobody but its owner can."""
        connection = await asyncpg.connect(self.database_url)
        try:
            await connection.execute("ALTER TABLE ledger DISABLE TRIGGER USER")
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    async def close(self) -> None:
        await self.reads.close()
        await self.findings.close()
        await self.ledger.close()


@pytest.fixture
async def shard(gate: RedisGate, database_url: str) -> AsyncIterator[Shard]:
    """Give a running pipeline with mugs, holds, and an order."""
    async with Shard.open(gate, database_url) as shard:
        await shard.do(*CATALOGUE)
        await shard.do(*(hold(f"r{number}") for number in range(5)))
        await shard.do(Confirm("r0", "order"))
        yield shard


@pytest.fixture
async def watched(
    shard: Shard, gate: RedisGate, redis: Redis, database_url: str
) -> AsyncIterator[Watched]:
    """Give a watch over that shard."""
    del shard
    watched = Watched(gate, redis, database_url)
    yield watched
    await watched.close()


async def sell(pipeline: Pipeline, name: str) -> Outcome:
    """Hold a mug, trying again while the shard is being rebuilt."""
    while True:
        try:
            return (await pipeline.submit(hold(name))).outcome
        except EngineError:
            await asyncio.sleep(0.01)


async def more_on_hand(redis: Redis) -> None:
    record = msgspec.msgpack.decode(await redis.hget(STOCK, "MUG"))
    record[1][ON_HAND] += 1
    await redis.hset(STOCK, "MUG", msgspec.msgpack.encode(record))


async def other_channel(redis: Redis) -> None:
    record = msgspec.msgpack.decode(await redis.hget(CONFIGURATION, "channel:web"))
    await redis.hset(CONFIGURATION, "channel:web", msgspec.msgpack.encode([*record[:2], []]))


async def moved_deadline(redis: Redis) -> None:
    await redis.zincrby(DEADLINES, 3_600_000, "rr1")


async def removed_move(redis: Redis) -> None:
    await redis.zremrangebyrank(MOVES, 1, 1)


async def another_kind(redis: Redis) -> None:
    await redis.delete(MOVES)
    await redis.set(MOVES, "x")


# What is done, the key and the field that are found, and which side has that field.
EDITS: dict[str, tuple[Edit, str, str, str]] = {
    "stock figure": (more_on_hand, "stock", "MUG", "both"),
    "stock removed": (lambda redis: redis.hdel(STOCK, "MUG"), "stock", "MUG", "ledger"),
    "extra stock": (lambda redis: redis.hset(STOCK, "HAT", b"\x92\x01\x90"), "stock", "HAT", "gate"),
    "name that is no text": (lambda redis: redis.hset(STOCK, b"\xff\0", b"\xc1"), "stock", "\\udcff\\0", "gate"),
    "reservation removed": (lambda redis: redis.hdel(RESERVATIONS, "r1"), "reservations", "r1", "ledger"),
    "extra reservation": (lambda redis: redis.hset(RESERVATIONS, "x", "?"), "reservations", "x", "gate"),
    "event removed": (lambda redis: redis.hdel(EVENTS, "opening"), "events", "opening", "ledger"),
    "configuration changed": (other_channel, "configuration", "channel:web", "both"),
    "deadline moved": (moved_deadline, "deadlines", "rr1", "both"),
    "deadline removed": (lambda redis: redis.zrem(DEADLINES, "rr2"), "deadlines", "rr2", "ledger"),
    "extra deadline": (lambda redis: redis.zadd(DEADLINES, {"rr0": 9e12}), "deadlines", "rr0", "gate"),
    "move removed": (removed_move, "moves", "MUG\\0LON\\0", "ledger"),
    "extra move": (lambda redis: redis.zadd(MOVES, {"MUG": 0}), "moves", "MUG", "gate"),
    "key of another kind": (another_kind, "moves", "", "gate"),
    "placeholder removed": (lambda redis: redis.hdel(EVENTS, ""), "events", "", "ledger"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
async def test_hand_edit(watched: Watched, shard: Shard, redis: Redis, name: str) -> None:
    """Whatever is changed in Redis by hand is found in one round, recorded, and healed; sales go on."""
    edit, key, field, who_has_it = EDITS[name]
    assert await watched.look() is Place.VERIFIED
    await edit(redis)
    assert await watched.look() is Place.REBUILT
    (finding,) = watched.found
    (drift,) = finding.drifts
    assert drift.key == key
    assert drift.field.startswith(field)
    assert (drift.gate is not None) == (who_has_it != "ledger")
    assert (drift.ledger is not None) == (who_has_it != "gate")
    (row,) = await watched.ask("SELECT shard, sequence, key, field, gate, ledger FROM drift")
    assert tuple(row) == (0, finding.sequence, key, drift.field, drift.gate, drift.ledger)
    assert await sell(shard.pipeline, "after") is Outcome.HELD
    assert await watched.look() is Place.VERIFIED
    assert (await audit(shard.gate, shard.ledger)).holds


@pytest.mark.parametrize("many", [False, True])
async def test_a_record_that_is_put_back(
    watched: Watched, shard: Shard, redis: Redis, many: bool
) -> None:
    """A record that was right in an earlier round, and has changed since, is found when it comes back."""
    await shard.do(*(hold(f"m{number}") for number in range(50 if many else 0)))
    assert await watched.look() is Place.VERIFIED
    before = await redis.hget(RESERVATIONS, "r1")
    await shard.do(Release("r1"))
    await redis.hset(RESERVATIONS, "r1", before)
    assert await watched.look() is Place.REBUILT
    assert [drift.field for drift in watched.found[0].drifts] == ["r1"]
    assert await watched.look() is Place.VERIFIED


async def test_everything_removed(watched: Watched, redis: Redis) -> None:
    """A whole key that is gone is found, field by field."""
    await redis.delete(RESERVATIONS)
    assert await watched.look() is Place.REBUILT
    fields = {drift.field for drift in watched.found[0].drifts}
    assert fields == {"", *(f"r{number}" for number in range(5))}
    assert await watched.look() is Place.VERIFIED


async def test_nothing_is_found_beside_sales(watched: Watched, shard: Shard) -> None:
    """Rounds beside holds, ends of holds, expiries and movements find nothing at all."""
    stop = False

    async def sell_on(seller: int) -> None:
        number = 0
        while not stop:
            name = f"s{seller}-{number}"
            line = MovedLine("MUG", "LON", 1)
            await shard.do(
                hold(name, ttl_ms=1),
                Reserve(f"{name}b", "", "web", 60_000, *WHOLE, (Wanted("MUG", 1),)),
                Move(name, "", int(Movement.RECEIPT), 0, "", (line,)),
            )
            await shard.do(Release(f"{name}b"))
            number += 1

    sellers = [asyncio.create_task(sell_on(seller)) for seller in range(4)]
    rounds = 0
    while rounds < 20 or shard.pipeline.durable_sequence < 1_000:
        assert await watched.look() is Place.VERIFIED
        rounds += 1
    stop = True
    await asyncio.gather(*sellers)
    assert await watched.look() is Place.VERIFIED
    assert watched.found == []


async def test_edit_amid_sales(watched: Watched, shard: Shard, redis: Redis) -> None:
    """A record that nobody sells is found while others are sold, and sales go on after the rebuild."""
    outcomes: list[Outcome] = []
    stop = False

    async def sell_on() -> None:
        while not stop:
            outcomes.append(await sell(shard.pipeline, f"s{len(outcomes)}"))

    seller = asyncio.create_task(sell_on())
    await until(lambda: len(outcomes) > 10)
    await redis.hdel(RESERVATIONS, "r1")
    assert await watched.look() is Place.REBUILT
    sold = len(outcomes)
    await until(lambda: len(outcomes) > sold + 10)
    stop = True
    await seller
    assert set(outcomes) <= SELLABLE | {Outcome.REPLAYED}
    assert [drift.field for drift in watched.found[0].drifts] == ["r1"]
    assert await watched.look() is Place.VERIFIED


async def test_overdue_hold_that_is_put_off(watched: Watched, shard: Shard, redis: Redis) -> None:
    """A hold whose turn the gate has put off, which no entry tells, is no difference."""
    await shard.do(hold("late", ttl_ms=1))
    await shard.pipeline.stop()
    moment = await watched.reads.moment()
    await redis.zadd(DEADLINES, {"rlate": moment.now_ms + 59_000})
    assert await watched.look() is Place.VERIFIED
    await redis.zadd(DEADLINES, {"rlate": moment.now_ms + 600_000})
    assert await watched.look() is Place.REBUILT


@pytest.mark.parametrize("field", ["hash", "sequence"])
async def test_position_changed(watched: Watched, redis: Redis, field: str) -> None:
    """A gate that claims another position than the ledger has is found, and taken back to the ledger's."""
    assert await watched.look() is Place.VERIFIED
    await redis.hset(META, field, "1")
    assert await watched.look() is Place.REBUILT
    assert [drift.key for drift in watched.found[0].drifts] == ["meta"]
    assert await watched.look() is Place.VERIFIED


@pytest.mark.parametrize("after_start", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger SET body = body || '\\x00' WHERE sequence = 5",
        "UPDATE ledger SET hash = 'x' WHERE sequence = 5",
        "DELETE FROM ledger WHERE sequence = 5",
    ],
)
async def test_ledger_changed_by_hand(
    watched: Watched, shard: Shard, redis: Redis, change: str, after_start: bool
) -> None:
    """A row that was changed by hand closes the shard: nothing is sold until an operator opens it again."""
    if after_start:
        assert await watched.look() is Place.VERIFIED
    (row,) = await watched.ask("SELECT * FROM ledger WHERE sequence = 5")
    await watched.ask(change)
    assert await watched.look() is Place.CLOSED
    assert "Entry 5 of the ledger" in watched.found[0].broken
    before = await watched.reads.moment()
    with pytest.raises(EngineError):
        await shard.pipeline.submit(hold("closed"))
    with pytest.raises(Closed, match="Entry 5"):
        await take_over_and_rebuild(shard.gate, shard.ledger, lambda _read, _through: None)
    await shard.pipeline.stop()
    with pytest.raises(Closed, match="reopen"):
        await Pipeline(shard.gate, shard.ledger).start()
    assert (await watched.reads.moment()).sequence == before.sequence
    assert await redis.hget(RESERVATIONS, "r1")
    assert await watched.look() is Place.CLOSED
    await watched.ask("DELETE FROM ledger WHERE sequence = 5")
    await watched.ask("INSERT INTO ledger VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", *row.values())
    assert await watched.findings.reopen_shard()
    reopened = Pipeline(shard.gate, shard.ledger)
    await reopened.start()
    assert await sell(reopened, "after") is Outcome.HELD
    assert await watched.look() is Place.VERIFIED
    await reopened.stop()


async def test_ledger_that_went_back(watched: Watched, shard: Shard) -> None:
    """A sound ledger that has lost its last entries is read anew, and closes nothing."""
    assert await watched.look() is Place.VERIFIED
    await shard.pipeline.stop()
    head = await shard.ledger.head()
    await watched.ask("DELETE FROM ledger WHERE sequence = $1", head.last_sequence)
    await watched.ask(
        "UPDATE shard_head SET last_sequence = last_sequence - 1, last_hash ="
        " (SELECT hash FROM ledger WHERE sequence = $1)",
        head.last_sequence - 1,
    )
    await take_over_and_rebuild(shard.gate, shard.ledger, lambda _read, _through: None)
    assert await watched.look() is Place.VERIFIED
    assert watched.found == []


async def test_one_process_at_a_time(
    watched: Watched, gate: RedisGate, redis: Redis, database_url: str
) -> None:
    """Of two watches one verifies; the other begins when the first one's connection has ended."""
    other = Watched(gate, redis, database_url)
    assert await watched.look() is Place.VERIFIED
    assert await other.look() is Place.STANDING_BY
    assert await watched.look() is Place.VERIFIED
    await watched.findings.close()
    async with asyncio.timeout(30):
        while await other.look() is not Place.VERIFIED:  # noqa: ASYNC110 - Postgres ends the turn
            await asyncio.sleep(0.01)
    assert await watched.look() is Place.STANDING_BY
    await other.close()


async def test_checkpoints_are_kept(shard: Shard, redis: Redis) -> None:
    """A checkpoint is offered once more entries than agreed have come, of a state that was found right."""
    kept: list[tuple[int, str]] = []

    async def keep(_ledger: ReadLedger, state: FoldedState, sequence: int, last_hash: str) -> None:
        assert "MUG" in state.records[2]
        kept.append((sequence, last_hash))

    reads = RedisReads(OneRedis(redis), 0)
    verification = Verification(
        reads,
        shard.ledger,
        cpu_share_max=1.0,
        checkpoints=Checkpoints(lambda: history_from_checkpoint(shard.ledger), keep, 10),
    )
    for count, expected in ((0, 0), (1, 1), (10, 1), (1, 2)):
        await shard.do(*(hold(f"c{count}-{expected}-{number}") for number in range(count)))
        await verification.run_round()
        assert len(kept) == expected
    head = await shard.ledger.head()
    assert kept[-1] == (head.last_sequence, head.last_hash)
    await shard.do(*(hold(f"d{number}") for number in range(11)))
    await more_on_hand(redis)
    assert (await verification.run_round()).drifts
    assert len(kept) == 2
    await reads.close()


class RecordingLedger(PostgresLedger):
    """The real ledger; it notes behind which entry each page was read."""

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url, 0)
        self.read_after: list[int] = []

    async def read_with_hash(self, after_sequence: int, limit: int) -> list[tuple[int, str, bytes]]:
        """Read as ever."""
        self.read_after.append(after_sequence)
        return await super().read_with_hash(after_sequence, limit)


async def keep_none(*_state: object) -> None:
    """Keep no checkpoint."""


@pytest.fixture
async def from_checkpoint(
    shard: Shard, watched: Watched, database_url: str
) -> AsyncIterator[tuple[RecordingLedger, int]]:
    """Have the watch begin at a checkpoint, with entries after it; give the ledger that it reads, and where."""
    await shard.do(Release("r2"))
    sequence, last_hash = await durable_end(shard)
    await write_checkpoint(shard.ledger, await fold(shard.ledger, sequence), sequence, last_hash)
    await shard.do(hold("later"), Release("r3"))
    ledger = RecordingLedger(database_url)
    verification = Verification(
        watched.reads,
        ledger,
        cpu_share_max=1.0,
        checkpoints=Checkpoints(lambda: history_from_checkpoint(ledger), keep_none),
    )
    watched.verification = verification
    watched.watch = Watch(shard.gate, ledger, watched.findings, verification, watched.found.append)
    yield ledger, sequence
    await ledger.close()


async def durable_end(shard: Shard) -> tuple[int, str]:
    """Say where the ledger ends."""
    head = await shard.ledger.head()
    return head.last_sequence, head.last_hash


@pytest.mark.parametrize("name", ["stock figure", "deadline removed", "move removed", "extra move"])
async def test_hand_edit_after_a_checkpoint(
    watched: Watched, from_checkpoint: tuple[RecordingLedger, int], redis: Redis, name: str
) -> None:
    """A watch that began at a checkpoint reads what came after it, and finds every edit as any other does."""
    ledger, sequence = from_checkpoint
    edit, key, field, _ = EDITS[name]
    assert await watched.look() is Place.VERIFIED
    assert ledger.read_after[0] == sequence
    await edit(redis)
    assert await watched.look() is Place.REBUILT
    (drift,) = watched.found[0].drifts
    assert (drift.key, drift.field.startswith(field)) == (key, True)


async def test_damaged_checkpoint_is_passed_over(
    watched: Watched, from_checkpoint: tuple[RecordingLedger, int]
) -> None:
    """Where the checkpoint was changed, the watch begins at the first entry."""
    await watched.ask("UPDATE checkpoint_part SET body = body || '\\x00' WHERE part = 1")
    assert await watched.look() is Place.VERIFIED
    assert from_checkpoint[0].read_after[0] == 0


@pytest.mark.parametrize("after_start", [False, True])
async def test_entry_before_the_checkpoint_is_checked(
    watched: Watched, from_checkpoint: tuple[RecordingLedger, int], after_start: bool
) -> None:
    """An entry that the checkpoint spares the reading of is looked at all the same, and closes the shard."""
    assert from_checkpoint[1] > 5
    if after_start:
        assert await watched.look() is Place.VERIFIED
    await watched.ask("UPDATE ledger SET body = body || '\\x00' WHERE sequence = 5")
    assert await watched.look() is Place.CLOSED
    assert "Entry 5 of the ledger" in watched.found[0].broken


async def scored_move(redis: Redis) -> None:
    """Give a move another score, which takes it out of the order of all others."""
    (member,) = await redis.zrange(MOVES, 1, 1)
    await redis.zadd(MOVES, {member: -5})


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (scored_move, "MUG"),
        (lambda redis: redis.zadd(MOVES, {"": 7}), ""),
        (lambda redis: redis.zadd(MOVES, {"A": -1}), "A"),
        (lambda redis: redis.zadd(MOVES, {"zz": 3}), "zz"),
    ],
)
async def test_moves_of_other_scores(
    watched: Watched, shard: Shard, redis: Redis, edit: Edit, field: str
) -> None:
    """A move whose score was changed is found, though the moves are read in the order of one score."""
    lines = tuple(MovedLine("MUG", "LON", 1) for _ in range(3))
    await shard.do(*(Move(f"m{n}", "", int(Movement.RECEIPT), 0, "", lines) for n in range(50)))
    assert await watched.look() is Place.VERIFIED
    await edit(redis)
    assert await watched.look() is Place.REBUILT
    assert [drift.field.partition("\\0")[0] for drift in watched.found[0].drifts] == [field]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
async def test_small_pages_have_everything(
    watched: Watched, shard: Shard, redis: Redis, count: int
) -> None:
    """However small the pages, and however many deadlines are the same, every member is read in order."""
    await shard.pipeline.stop()
    await redis.zadd(DEADLINES, {f"x{n}": n // 10 for n in range(40)})
    await redis.zadd(MOVES, {f"m{n}": 0 for n in range(40)})
    for key, name in ((6, DEADLINES), (7, MOVES)):
        found, cursor = list[tuple[bytes, float]](), b""
        while True:
            page = await watched.reads.scan(key, cursor, count)
            found += zip(page.fields, page.values, strict=True)
            cursor = page.following
            if not cursor:
                break
        assert list(dict(found).items()) == list(
            dict(await redis.zrange(name, 0, -1, withscores=True)).items()
        )


async def test_a_hash_that_was_made_to_fit(watched: Watched) -> None:
    """An entry that was changed together with its hash no longer leads to the next one."""
    rows = await watched.ask("SELECT sequence, hash, body FROM ledger ORDER BY sequence")
    body = rows[4]["body"].replace(b"MUG", b"CUP")
    new_hash = chain(rows[3]["hash"], body)
    await watched.ask("UPDATE ledger SET body = $1, hash = $2 WHERE sequence = 5", body, new_hash)
    assert await watched.look() is Place.CLOSED
