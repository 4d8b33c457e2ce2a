"""A bug ends a loop of the pipeline: nobody is left waiting for an answer that cannot come."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from engine.shards import CATALOGUE, Shard, hold, until

from allocation.commands import ReadReservation
from allocation.errors import GateUnverified, OutcomeUnknown
from allocation.gate.redis_gate import RedisGate


@pytest.fixture
async def shard(gate: RedisGate, database_url: str) -> AsyncIterator[Shard]:
    """Give a running pipeline with a hundred mugs in London."""
    async with Shard.open(gate, database_url) as shard:
        await shard.do(*CATALOGUE)
        yield shard


async def test_everybody_who_waits_is_answered(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was decided or sent is not known, what only waited was not done, and nothing more is taken."""
    opened, sent = asyncio.Event(), asyncio.Event()

    async def hold_back() -> None:
        await opened.wait()

    async def break_down(*_: object) -> None:
        sent.set()
        await opened.wait()
        raise KeyError("a bug")

    shard.ledger.before = hold_back
    decided = shard.pipeline.submit(hold("decided"))
    await until(lambda: not shard.pipeline.waiting)
    monkeypatch.setattr(shard.gate, "decide", break_down)
    under_way = shard.pipeline.submit(hold("under way"))
    await sent.wait()
    waiting = shard.pipeline.submit(hold("waiting"))
    opened.set()
    answers = await asyncio.gather(decided, under_way, waiting, return_exceptions=True)
    assert isinstance(answers[1], OutcomeUnknown)
    assert isinstance(answers[2], GateUnverified)
    with pytest.raises(KeyError):
        await shard.pipeline.broken
    with pytest.raises(GateUnverified):
        shard.pipeline.submit(ReadReservation("decided"))
