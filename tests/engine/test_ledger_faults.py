"""What Postgres may do to the ledger, and what is answered meanwhile."""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from engine.shards import CATALOGUE, Shard, audited_sequence, hold, until
from redis.asyncio import Redis

from allocation.errors import (
    EngineError,
    GateUnverified,
    LedgerRewound,
    OutcomeUnknown,
    StaleProcess,
    Unsuitable,
)
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.ledger import postgres_ledger
from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.outcomes import Outcome
from allocation.ports import Head
from allocation.takeover import take_over_and_rebuild, verify
from service.embedded.credentials import load_credentials
from service.embedded.placement import place
from service.embedded.postgres_server import PostgresServer
from service.preparation import migrate_database
from service.workers.loop import Loop
from service.workers.server_look import ServerLook

JOURNAL = shard_keys(0)[7]
OTHER_CONNECTIONS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
STANDBY_WAITS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'SyncRep'"
)


@pytest.fixture
async def shard(gate: RedisGate, database_url: str) -> AsyncIterator[Shard]:
    """Give a running pipeline with a hundred mugs in London."""
    async with Shard.open(gate, database_url) as shard:
        await shard.do(*CATALOGUE)
        yield shard


@pytest.fixture
async def operator(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Give a connection of someone who meddles."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@asynccontextmanager
async def standby_that_is_missing(operator: asyncpg.Connection) -> AsyncIterator[None]:
    """Let every commit wait for a standby that is not there."""
    await operator.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await operator.execute("SELECT pg_reload_conf()")
    try:
        while await operator.fetchval("SHOW synchronous_standby_names") != "nobody":
            pass
        yield
    finally:
        await operator.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await operator.execute("SELECT pg_reload_conf()")


async def test_a_commit_that_no_standby_has_is_not_answered(
    shard: Shard, operator: asyncpg.Connection
) -> None:
    """A wait for the standby that is cancelled leaves the answer open, also for whoever looks at the head."""
    async with standby_that_is_missing(operator):
        answer = shard.pipeline.submit(hold("r1"))
        cancelled = 0
        while cancelled < 3:
            cancelled += await operator.fetchval(
                f"SELECT count(pg_cancel_backend(pid)) {STANDBY_WAITS}"
            )
            assert not answer.done()
    assert (await answer).outcome is Outcome.HELD


async def test_a_setting_that_became_weak_ends_the_pipeline(
    shard: Shard, operator: asyncpg.Connection
) -> None:
    """Whether commits are flushed is asked again on every new connection that appends."""
    database = await operator.fetchval("SELECT quote_ident(current_database())")
    await operator.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    await operator.execute(f"SELECT pg_terminate_backend(pid) {OTHER_CONNECTIONS}")
    answer = shard.pipeline.submit(hold("r1"))
    with pytest.raises(Unsuitable, match="synchronous_commit"):
        await asyncio.wait_for(shard.pipeline.broken, 10)
    with pytest.raises(OutcomeUnknown):
        await answer
    await operator.execute(f"ALTER DATABASE {database} RESET synchronous_commit")


async def test_connections_that_say_nothing_are_given_up(
    shard: Shard, operator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Postgres is there but a connection is dead, the next one is used."""
    monkeypatch.setattr(postgres_ledger, "APPEND_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(postgres_ledger, "READ_TIMEOUT_SECONDS", 0.3)
    await operator.execute(f"SELECT pg_terminate_backend(pid) {OTHER_CONNECTIONS}")
    await shard.do(hold("r1"))
    await shard.ledger.head()
    silent = [row[0] for row in await operator.fetch(f"SELECT pid {OTHER_CONNECTIONS}")]
    assert len(silent) == 2
    for process_id in silent:
        os.kill(process_id, signal.SIGSTOP)
    try:
        assert (await shard.do(hold("r2")))[0].outcome is Outcome.HELD
    finally:
        for process_id in silent:
            os.kill(process_id, signal.SIGCONT)


async def test_a_taker_that_sleeps_keeps_nobody_out(
    gate: RedisGate,
    database_url: str,
    operator: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lock of a take-over spares work; it is the epoch that keeps the sleeper from doing harm."""
    monkeypatch.setattr(postgres_ledger, "TAKE_OVER_LOCK_MS", "100")
    await operator.execute("SELECT pg_advisory_lock(7261, 0)")
    async with Shard.open(gate, database_url) as shard:
        assert shard.pipeline.take_overs == 1


async def test_a_taker_at_work_is_waited_for(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebuild may take longer than a wait; who has not shown life for one is not waited for."""
    monkeypatch.setattr(postgres_ledger, "TAKE_OVER_LOCK_MS", "300")
    monkeypatch.setattr(postgres_ledger, "LIFE_SECONDS", 0.05)
    ledgers = [PostgresLedger(database_url, 0) for _ in range(2)]
    for ledger in ledgers:
        await ledger.create()
    turns: list[str] = []

    async def take_turn() -> None:
        async with ledgers[1].only_taker():
            turns.append("second")

    async with ledgers[0].only_taker():
        waiting = asyncio.create_task(take_turn())
        await asyncio.sleep(1.2)
        turns.append("first")
    await asyncio.wait_for(waiting, 10)
    assert turns == ["first", "second"]
    monkeypatch.setattr(postgres_ledger, "LIFE_SECONDS", 60.0)
    async with ledgers[0].only_taker():
        await asyncio.wait_for(take_turn(), 10)
        turns.append("asleep")
    assert turns[2:] == ["second", "asleep"]
    for ledger in ledgers:
        await ledger.close()


async def test_a_ledger_that_lost_its_end_is_noticed(
    shard: Shard, operator: asyncpg.Connection, database_url: str
) -> None:
    """A promoted standby without the last entries: what the journal still has is appended again."""
    await shard.do(hold("r1"))
    await lose_entries(operator, 1)
    await eventually_held(shard, "r2")
    assert (await shard.do(hold("r1")))[0].outcome is Outcome.REPLAYED
    assert shard.pipeline.take_overs == 1
    await audited_sequence(database_url)


async def test_a_ledger_that_lost_more_than_the_journal_has(
    shard: Shard, operator: asyncpg.Connection, database_url: str, redis: Redis
) -> None:
    """Then nothing is sold until an operator has said that the ledger is right all the same."""
    for number in range(5):
        await shard.do(hold(f"r{number}"))
    await lose_entries(operator, 4)
    await redis.xtrim(JOURNAL, 0)
    with pytest.raises(OutcomeUnknown):
        await shard.do(hold("new"))
    await until(lambda: isinstance(shard.pipeline.closed_by, LedgerRewound))
    with pytest.raises(GateUnverified):
        await shard.do(hold("new"))
    await take_over_and_rebuild(shard.gate, shard.ledger, lambda _read, _through: None)
    with pytest.raises(StaleProcess):
        await asyncio.wait_for(shard.pipeline.broken, 10)
    async with Shard.open(shard.gate, database_url) as restarted:
        assert (await restarted.do(hold("r4")))[0].outcome is Outcome.HELD
        assert (await restarted.do(hold("r0")))[0].outcome is Outcome.REPLAYED
    await audited_sequence(database_url)


async def test_a_journal_that_is_trimmed_during_a_take_over(
    shard: Shard, operator: asyncpg.Connection, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has noticed nothing may trim what another has just found there; then the shard is closed."""
    await shard.do(hold("r1"))
    before = await shard.ledger.head()
    assert shard.pipeline.verified is not None
    identity = shard.pipeline.verified.identity
    await lose_entries(operator, 1)
    take_over = shard.ledger.take_over

    async def take_over_late(run_id: str, replication_id: str, above_epoch: int) -> Head:
        await shard.gate.decide(before.epoch, identity, [hold("late")], before.last_sequence)
        # As Redis trims by itself once the stream is longer.
        await redis.xtrim(
            JOURNAL, minid=f"{before.epoch}-{before.last_sequence + 1}", approximate=False
        )
        return await take_over(run_id, replication_id, above_epoch)

    monkeypatch.setattr(shard.ledger, "take_over", take_over_late)
    await operator.execute("UPDATE shard_head SET taken_on = 'another server'")
    with pytest.raises(LedgerRewound):
        await verify(shard.gate, shard.ledger)
    with pytest.raises(LedgerRewound):
        await verify(shard.gate, shard.ledger)
    state = await shard.gate.present_state()
    assert state is not None
    assert state[:2] == (before.epoch, before.last_sequence + 1)


@pytest.mark.usefixtures("shard")
async def test_a_restored_ledger_that_knows_only_old_epochs(
    operator: asyncpg.Connection, gate: RedisGate, database_url: str
) -> None:
    """A take-over goes above the epoch that the gate has seen, else the gate would refuse it for ever."""
    await operator.execute("UPDATE shard_head SET epoch = 40")
    async with Shard.open(gate, database_url) as second:
        assert second.pipeline.take_overs == 1
        await second.pipeline.stop()
        await operator.execute("UPDATE shard_head SET epoch = 2")
        async with Shard.open(gate, database_url) as third:
            assert (await third.ledger.head()).epoch == 42
            assert (await third.do(hold("r1")))[0].outcome is Outcome.HELD


async def test_a_promoted_server_is_not_trusted_before_a_take_over(
    gate: RedisGate, own_postgres: PostgresServer
) -> None:
    """Where a new connection leads to another timeline, the shard is verified again, and sales go on."""
    await migrate_database(own_postgres.url)
    async with Shard.open(gate, own_postgres.url) as shard:
        await shard.do(*CATALOGUE, hold("r1"))
        before = await shard.ledger.present_server()
        await restart_promoted(own_postgres)
        await eventually_held(shard, "r2")
        assert shard.pipeline.take_overs == 2
        assert (await shard.ledger.head()).taken_on == await shard.ledger.present_server() != before
    await audited_sequence(own_postgres.url)


async def test_a_process_that_only_reads_notices_a_promotion(
    gate: RedisGate, own_postgres: PostgresServer
) -> None:
    """Where nothing is written, a look finds the other server, and the shard is taken over on it."""
    await migrate_database(own_postgres.url)
    async with Shard.open(gate, own_postgres.url) as shard:
        await shard.do(*CATALOGUE, hold("r1"))
        look = Loop("look", ServerLook([shard.pipeline], shard.ledger).run_once, idle_seconds=0.05)
        look.start()
        before = await shard.ledger.present_server()
        await restart_promoted(own_postgres)
        await until(lambda: shard.pipeline.take_overs == 2)
        assert (await shard.ledger.head()).taken_on == await shard.ledger.present_server() != before
        held = await shard.do(hold("r2"))
        assert held[0].outcome is Outcome.HELD
        await look.stop()


async def test_a_look_at_the_same_server_changes_nothing(shard: Shard) -> None:
    """A look finds the server that the shard was taken over on, and the shard goes on as it was."""
    verified = shard.pipeline.verified
    assert await ServerLook([shard.pipeline], shard.ledger).run_once() == 0
    assert shard.pipeline.verified is verified is not None


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """Give a Postgres that no other test uses, in a folder that its account can reach."""
    folder = Path(tempfile.mkdtemp(prefix="ringfence-test-"))
    folder.chmod(0o755)
    server = PostgresServer(place(folder), load_credentials(folder).postgres, avoided_ports=())
    server.start()
    while not server.is_ready():
        time.sleep(0.05)
    yield server
    server.stop()
    shutil.rmtree(folder)


async def restart_promoted(server: PostgresServer) -> None:
    """Start a Postgres again as a standby of nobody, and make it a primary on a timeline of its own."""
    server.stop()
    (server.folder / "standby.signal").touch()
    assert server.revive()
    while True:
        try:
            connection = await asyncpg.connect(server.url)
        except (OSError, asyncpg.PostgresError):
            await asyncio.sleep(0.05)
            continue
        assert await connection.fetchval("SELECT pg_promote()")
        await connection.close()
        return


async def eventually_held(shard: Shard, reservation_id: str) -> None:
    """Repeat a hold until its answer is definite, as every caller must."""
    while True:
        try:
            (decision,) = await shard.do(hold(reservation_id))
        except EngineError:
            await asyncio.sleep(0.05)
        else:
            break
    assert decision.outcome in {Outcome.HELD, Outcome.REPLAYED}


async def lose_entries(operator: asyncpg.Connection, count: int) -> None:
    """Take the last entries away, as if they had never reached this server."""
    async with operator.transaction():
        await operator.execute("ALTER TABLE ledger DISABLE TRIGGER ledger_is_append_only")
        last = await operator.fetchval("SELECT max(sequence) FROM ledger") - count
        await operator.execute("DELETE FROM ledger WHERE sequence > $1", last)
        await operator.execute(
            "UPDATE shard_head SET last_sequence = sequence, last_hash = hash "
            "FROM ledger WHERE sequence = $1",
            last,
        )
        await operator.execute("ALTER TABLE ledger ENABLE TRIGGER ledger_is_append_only")


async def test_who_follows_hears_of_a_ledger_that_others_moved(
    gate: RedisGate, database_url: str
) -> None:
    """A pipeline that begins behind entries of others says so at once, not with the next sale."""
    async with Shard.open(gate, database_url) as first:
        await first.do(*CATALOGUE)
        told: list[int] = []
        async with Shard.open(gate, database_url, lambda last, _first, _bodies: told.append(last)):
            assert told == [first.pipeline.durable_sequence]
