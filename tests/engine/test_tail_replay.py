"""A Redis that is behind the ledger is brought forward by what it lacks, and ends as a full rebuild would."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import pytest
from engine.histories import (
    STAGES,
    WatchedGate,
    dumped,
    epoch_of,
    everything,
    go_through,
    set_back,
)
from engine.shards import Shard, hold
from redis.asyncio import Redis

from allocation import packing
from allocation.errors import Fenced, GateUnverified
from allocation.journal import chain
from allocation.ledger import postgres_ledger
from allocation.takeover import Verified, take_over_and_rebuild, verify

REPLAY = ["arm", "close", "put", "open"]


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PART_VALUES", 24)


class History:
    """A shard whose ledger is written, the states that Redis had on the way, and the one that it must have."""

    def __init__(self, shard: Shard, redis: Redis) -> None:
        self.shard, self.redis = shard, redis
        self.stages: list[dict[str, bytes]] = []
        self.expected: dict[str, object] = {}

    async def take_over(self, gate: WatchedGate | None = None) -> WatchedGate:
        """Start as a process that finds the gate as it is."""
        gate = gate or WatchedGate(self.redis)
        await verify(gate, self.shard.ledger)
        return gate


@pytest.fixture
async def history(redis: Redis, database_url: str) -> AsyncIterator[History]:
    """Give a history in stages, and what a full rebuild makes of it."""
    async with Shard.open(WatchedGate(redis), database_url) as shard:
        made = History(shard, redis)
        for stage in range(STAGES):
            await go_through(shard, redis, stage)
            made.stages.append(await dumped(redis))
        await shard.pipeline.stop()
        await take_over_and_rebuild(shard.gate, shard.ledger, lambda _read, _through: None)
        made.expected = await everything(redis)
        yield made


@pytest.mark.parametrize("stage", range(STAGES - 1))
async def test_a_tail_ends_where_a_full_rebuild_ends(history: History, stage: int) -> None:
    """Every key is the same, deadlines and moves too, whatever the tail has in it; nothing else goes."""
    await set_back(history.redis, history.stages[stage])
    gate = await history.take_over()
    assert set(REPLAY) <= set(gate.steps) <= {*REPLAY, "remove", "forget"}
    assert await everything(history.redis) == history.expected


async def test_a_tail_takes_away_what_has_ended(history: History) -> None:
    """Forgotten records, deadlines that are over and moves before a count go, each by a step of its own."""
    await set_back(history.redis, history.stages[0])
    gate = await history.take_over()
    assert {"remove", "forget"} <= set(gate.steps)


async def test_the_gate_goes_on_after_a_tail(history: History, database_url: str) -> None:
    """What the tail brought is known: a request that was decided in it is replayed, and sales go on."""
    await set_back(history.redis, history.stages[1])
    async with Shard.open(WatchedGate(history.redis), database_url) as shard:
        old, new = await shard.do(hold("long-4-3"), hold("new"))
    assert (old.outcome.name, new.outcome.name) == ("REPLAYED", "HELD")


async def test_a_state_where_the_ledger_ends_is_only_armed(history: History) -> None:
    """Nothing is loaded where nothing is missing."""
    assert (await history.take_over()).steps == []
    await history.shard.ledger.take_over("another", "server", 0)
    assert (await history.take_over()).steps == ["arm"]


async def test_another_history_is_rebuilt_in_full(history: History) -> None:
    """A Redis that decided otherwise, up to the same sequence, is never brought forward."""
    await set_back(history.redis, history.stages[1])
    gate = WatchedGate(history.redis)
    before = await gate.present_state()
    assert before is not None
    await gate.decide(before[0], await gate.prepare(), [hold("never-durable", 7)], before[1])
    decided = await gate.present_state()
    assert decided is not None
    assert await history.shard.ledger.hash_at(decided[1]) not in {None, decided[2]}
    await history.take_over(gate)
    assert "begin" in gate.steps
    assert "close" not in gate.steps
    assert await everything(history.redis) == history.expected


async def test_a_state_that_moved_meanwhile_is_rebuilt_in_full(history: History) -> None:
    """What is closed is exactly what was looked at, or nothing."""
    await set_back(history.redis, history.stages[1])
    gate = WatchedGate(history.redis)
    identity = await gate.prepare()

    async def decide_before_it_is_closed(place: int) -> None:
        present = await gate.present_state()
        if gate.steps[place] == "close" and present is not None:
            await gate.decide(present[0], identity, [hold("last-moment")], present[1])

    gate.before = decide_before_it_is_closed
    await history.take_over(gate)
    assert "begin" in gate.steps
    assert await everything(history.redis) == history.expected


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("emptied", [False, True])
async def test_a_load_that_stops_at_any_step_is_made_up_for(
    history: History, *, done: bool, emptied: bool
) -> None:
    """Between close and open the gate decides nothing, and the next take-over makes the state anew."""
    for last in count():
        await set_back(history.redis, {} if emptied else history.stages[1])
        gate = WatchedGate(history.redis)

        async def stop(place: int, last: int = last) -> None:
            if place == last:
                raise GateUnverified

        gate.before, gate.after = (gate.before, stop) if done else (stop, gate.after)
        try:
            await history.take_over(gate)
        except GateUnverified:
            step = gate.steps[last]
            opened = done and step == "open"
            untouched = step == "arm" or (step in {"begin", "close"} and not done)
            assert (await epoch_of(gate) != 0) is (opened or (untouched and not emptied))
            following = await history.take_over()
            if not opened:
                assert "open" in following.steps
            assert await everything(history.redis) == history.expected
            continue
        assert last > len(REPLAY)
        return


@pytest.mark.parametrize("emptied", [False, True])
async def test_a_loader_that_wakes_up_late_is_refused_at_every_step(
    history: History, monkeypatch: pytest.MonkeyPatch, *, emptied: bool
) -> None:
    """After a newer take-over neither Redis nor Postgres takes anything from it."""
    monkeypatch.setattr(postgres_ledger, "TAKE_OVER_LOCK_MS", "1")
    for last in count():
        await set_back(history.redis, {} if emptied else history.stages[1])
        gate = WatchedGate(history.redis)
        paused, woken = asyncio.Event(), asyncio.Event()

        async def sleep(place: int, last: int = last) -> None:
            if place == last:
                paused.set()  # noqa: B023 - of this very turn
                await woken.wait()  # noqa: B023

        gate.before = sleep
        sleeper = asyncio.create_task(verify(gate, history.shard.ledger))
        pausing = asyncio.create_task(paused.wait())
        await asyncio.wait({sleeper, pausing}, return_when=asyncio.FIRST_COMPLETED)
        if sleeper.done():
            pausing.cancel()
            assert last > len(REPLAY)
            return
        newer = await verify(WatchedGate(history.redis), history.shard.ledger)
        woken.set()
        with pytest.raises(Fenced):
            await sleeper
        assert await epoch_of(gate) == newer.head.epoch
        assert await everything(history.redis) == history.expected
        await _refused_by_postgres(history, newer)


async def _refused_by_postgres(history: History, newer: Verified) -> None:
    older = type(newer.head)(newer.head.epoch - 1, newer.head.last_sequence, newer.head.last_hash)
    (row,) = await history.shard.ledger.read(0, 1)
    with pytest.raises(Fenced):
        await history.shard.ledger.append(older, [row[1]], chain(older.last_hash, row[1]))


@pytest.mark.parametrize("emptied", [False, True])
async def test_a_server_that_lost_a_step_is_not_opened(history: History, *, emptied: bool) -> None:
    """Where Redis came back without the last of what was put, the load does not end in an open gate."""
    await set_back(history.redis, {} if emptied else history.stages[1])
    gate = WatchedGate(history.redis)
    kept: list[dict[str, bytes]] = []

    async def keep(place: int) -> None:
        if gate.steps[place] == "put" and not kept:
            kept.append(await dumped(history.redis))

    async def lose(place: int) -> None:
        if gate.steps[place] == "put" and gate.steps.count("put") == 1:
            await set_back(history.redis, kept[0])

    gate.before, gate.after = keep, lose
    with pytest.raises(GateUnverified):
        await history.take_over(gate)
    assert gate.steps[-1] == "open"
    assert await epoch_of(gate) == 0
    await history.take_over()
    assert await everything(history.redis) == history.expected
