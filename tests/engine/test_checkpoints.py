"""Checkpoints: believed where the ledger agrees and every byte is as written, passed over otherwise."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from engine.histories import (
    KEPT,
    STAGES,
    WatchedGate,
    everything,
    go_through,
    told,
)
from engine.shards import Shard
from redis.asyncio import Redis

from allocation import packing
from allocation.checkpoints import latest_checkpoint, write_checkpoint
from allocation.errors import Diverged
from allocation.folding import FoldedState
from allocation.gate.keys import shard_keys
from allocation.packing import state_parts, take_part
from allocation.ports import Head
from allocation.rebuild import fold, load
from allocation.takeover import take_over_and_rebuild

LENGTHS = (0, 1, 31, 32, 255, 256, 65_535, 65_536)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PART_VALUES", 8)


class Kept:
    """A ledger in stages, the state at the end of each as folded from the start, and its hash."""

    def __init__(self, shard: Shard, redis: Redis, database_url: str) -> None:
        self.shard, self.ledger, self.redis = shard, shard.ledger, redis
        self.database_url = database_url
        self.ends: list[int] = []

    async def keep(self, stage: int) -> None:
        """Write the checkpoint of a stage."""
        end = self.ends[stage]
        last_hash = await self.ledger.hash_at(end) or ""
        await write_checkpoint(self.ledger, await self.from_the_start(end), end, last_hash)

    async def from_the_start(self, through: int) -> FoldedState:
        """Fold the entries one by one, and nothing else."""
        state = FoldedState()
        for _, body in await self.ledger.read(0, through):
            state.apply(body)
        return state

    async def started_from(self) -> int:
        """Fold to the end, require the right state, and give where the fold began."""
        heard: list[int] = []
        state = await fold(self.ledger, self.ends[-1], lambda read, _through: heard.append(read))
        assert told(state) == told(await self.from_the_start(self.ends[-1]))
        assert heard[-1] == self.ends[-1]
        return heard[0]

    async def rebuilt(self) -> dict[str, object]:
        """Rebuild the gate, and read all that it has then."""
        await take_over_and_rebuild(WatchedGate(self.redis), self.ledger, lambda *_: None)
        return await everything(self.redis)

    async def execute(self, statement: str, *arguments: object) -> None:
        """Change what is kept."""
        connection = await asyncpg.connect(self.database_url)
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()

    async def sequences(self) -> list[int]:
        """Name the checkpoints for which anything at all is in the database."""
        connection = await asyncpg.connect(self.database_url)
        try:
            rows = await connection.fetch(
                "SELECT sequence FROM checkpoint UNION SELECT sequence FROM checkpoint_part"
            )
        finally:
            await connection.close()
        return sorted(row[0] for row in rows)


@pytest.fixture
async def kept(redis: Redis, database_url: str) -> AsyncIterator[Kept]:
    """Give a history whose pipeline has stopped, without a checkpoint."""
    async with Shard.open(WatchedGate(redis), database_url) as shard:
        made = Kept(shard, redis, database_url)
        for stage in range(STAGES):
            await go_through(shard, redis, stage)
            made.ends.append((await shard.ledger.head()).last_sequence)
        await shard.pipeline.stop()
        made.ends[-1] = (await shard.ledger.head()).last_sequence
        yield made


@pytest.mark.parametrize("stage", range(STAGES))
async def test_a_fold_begins_at_the_checkpoint(kept: Kept, stage: int) -> None:
    """Its state is the one folded from the start, field by field, deadlines and moves too."""
    await kept.keep(stage)
    assert await kept.started_from() == kept.ends[stage]


async def test_a_fold_without_a_checkpoint_begins_at_the_start(kept: Kept) -> None:
    """Pages give what single entries give."""
    assert await kept.started_from() == 0


@pytest.mark.parametrize("stage", [0, 2, STAGES - 1])
async def test_a_rebuild_through_a_checkpoint_ends_as_one_without(kept: Kept, stage: int) -> None:
    """Redis has the same keys, fields and scores."""
    without = await kept.rebuilt()
    await kept.keep(stage)
    assert await kept.rebuilt() == without
    assert len(without) == len(KEPT) + 1


async def test_a_fold_to_an_earlier_entry_passes_later_checkpoints_over(kept: Kept) -> None:
    """No checkpoint tells of what came after the entry asked for."""
    await kept.keep(1)
    await kept.keep(3)
    state = await fold(kept.ledger, kept.ends[2])
    assert told(state) == told(await kept.from_the_start(kept.ends[2]))


DAMAGE = {
    "body": "UPDATE checkpoint_part SET body = set_byte(body, length(body) - 1, 0) "
    "WHERE sequence = $1 AND part = 3",
    "first part": "UPDATE checkpoint_part SET body = '\\x00' WHERE sequence = $1 AND part = 0",
    "cut body": "UPDATE checkpoint_part SET body = substr(body, 1, length(body) - 1) "
    "WHERE sequence = $1 AND part = 2",
    "key": "UPDATE checkpoint_part SET key = key + 1 WHERE sequence = $1 AND part = 3",
    "part missing": "DELETE FROM checkpoint_part WHERE sequence = $1 AND part = 3",
    "parts exchanged": "UPDATE checkpoint_part AS one SET key = other.key, body = other.body "
    "FROM checkpoint_part AS other WHERE one.sequence = $1 AND other.sequence = $1 "
    "AND one.part IN (2, 3) AND other.part = 5 - one.part",
    "cut short": "UPDATE checkpoint SET digests = trim_array(digests, 1) WHERE sequence = $1",
    "cut short with its parts": "WITH cut AS (DELETE FROM checkpoint_part WHERE sequence = $1) "
    "UPDATE checkpoint SET digests = '{}' WHERE sequence = $1",
    "hash": "UPDATE checkpoint SET hash = 'another' WHERE sequence = $1",
    "another entry's": "WITH moved AS (UPDATE checkpoint_part SET sequence = sequence - 1 "
    "WHERE sequence = $1) UPDATE checkpoint SET sequence = sequence - 1, hash = "
    "(SELECT hash FROM ledger WHERE ledger.sequence = $1 - 1) WHERE sequence = $1",
    "later format": "UPDATE checkpoint_part SET body = set_byte(body, 1, 2) "
    "WHERE sequence = $1 AND part = 0",
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_checkpoint_is_passed_over(kept: Kept, damage: str) -> None:
    """The fold begins at the one before; where that is damaged too, at the start."""
    without = await kept.rebuilt()
    await kept.keep(1)
    await kept.keep(3)
    await kept.execute(DAMAGE[damage], kept.ends[3])
    assert await kept.started_from() == kept.ends[1]
    assert await kept.rebuilt() == without
    await kept.execute(DAMAGE[damage], kept.ends[1])
    assert await kept.started_from() == 0
    assert await kept.rebuilt() == without


async def test_a_damaged_checkpoint_is_mended_by_writing_it_again(kept: Kept) -> None:
    """It is in nobody's way."""
    await kept.keep(3)
    await kept.execute(DAMAGE["body"], kept.ends[3])
    await kept.keep(3)
    assert await kept.started_from() == kept.ends[3]


async def test_the_newest_two_are_kept(kept: Kept) -> None:
    """Those of another history go first, whatever sequence they claim."""
    await kept.keep(0)
    await kept.execute("UPDATE checkpoint SET hash = 'another'")
    for stage in (1, 2, 3):
        await kept.keep(stage)
    assert await kept.sequences() == kept.ends[2:4]
    found = await latest_checkpoint(kept.ledger, kept.ends[-1])
    assert found is not None
    assert (found.sequence, found.last_hash) == (
        kept.ends[3],
        await kept.ledger.hash_at(kept.ends[3]),
    )
    assert await latest_checkpoint(kept.ledger, kept.ends[1]) is None


async def test_a_checkpoint_is_there_whole_or_not_at_all(kept: Kept) -> None:
    """A writer that breaks leaves nothing of its own, and what was there before."""
    await kept.keep(1)
    state = await kept.from_the_start(kept.ends[2])
    state.moves["MUG\0LON\0"].append("\ud800")
    last_hash = await kept.ledger.hash_at(kept.ends[2]) or ""
    with pytest.raises(UnicodeEncodeError):
        await write_checkpoint(kept.ledger, state, kept.ends[2], last_hash)
    assert await kept.sequences() == [kept.ends[1]]
    assert await kept.started_from() == kept.ends[1]


async def test_a_state_of_another_history_is_not_kept(kept: Kept) -> None:
    """The hash at its sequence must be the ledger's; no entry at all has none."""
    state = await kept.from_the_start(kept.ends[0])
    for sequence, last_hash in ((kept.ends[0], "another"), (kept.ends[-1] + 1, ""), (0, "")):
        with pytest.raises(Diverged):
            await write_checkpoint(kept.ledger, state, sequence, last_hash)
    assert await kept.sequences() == []


async def test_records_of_every_length_arrive(redis: Redis) -> None:
    """Whatever the bytes of a record are, the gate has them, and so has who reads the parts back."""
    state = FoldedState()
    for key in state.records:
        state.records[key] = {f"{'f' * n}é": bytes([0xFF, n % 7]) * (n // 2) for n in LENGTHS}
    for key in (3, 4):
        state.records[key] = {}
    gate = WatchedGate(redis)
    await gate.prepare()
    await load(gate, state, Head(1, 7, "hash"))
    found: dict[bytes, bytes] = await redis.hgetall(shard_keys(0)[1])
    found.pop(b"")
    assert {name.decode(): packed for name, packed in found.items()} == state.records[2]
    again = FoldedState()
    for part in state_parts(state):
        take_part(again, part)
    assert again.records == state.records
