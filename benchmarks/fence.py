"""What the fence costs each batch: that this still is the server that was verified, and the epoch its own.

Workload design. The function that decides a batch, as it is and without its fence (it reads only where the gate
stands, which it needs in any case), is called in turns, A B B A, ten calls a turn, with a batch of one command and
of 64.
The commands are reservations that were made before: to answer them again writes nothing, so every call does what
the last one did. The time is what Redis itself has counted for the calls: no network is in it.
"""

import asyncio
from collections.abc import Sequence

import msgspec
import uvloop
from redis.asyncio import Redis

from allocation.commands import Reserve, Wanted
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import OVERDUE_PER_CALL_MAX, RedisGate
from allocation.gate.scripts import library, lua_source, version
from allocation.outcomes import Outcome
from benchmarks.engine_alone import SHARD, Addresses, Engine, running_engine
from benchmarks.figures import Figure, Settings, Target, figure
from benchmarks.load import LoadFailed
from benchmarks.long_ledger import FINGERPRINT
from benchmarks.running import UNITS_PLENTY

BATCHES = (1, 64)
# Short turns: what else the machine does falls into some of them, and the median passes those over.
CALLS_PER_TURN, PAIRS_PER_RUN = 10, 100
TARGET_MICROSECONDS = 10.0
TTL_MS, RETENTION_MS = 900_000, 604_800_000
LAST_MS = 2**52
UNFENCED = "unfenced"
# In place of the fence: where the gate stands, and nothing asked.
_WITHOUT = """
local function fence(meta_key)
  local meta = redis.call("HMGET", meta_key, "epoch", "sequence", "hash", "last_ms")
  return STATUS.DECIDED, tonumber(meta[2]), meta[3], tonumber(meta[4])
end
"""


def figures(settings: Settings, addresses: Addresses) -> list[Figure]:
    """Time the function with and without its fence."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(settings, addresses))


async def _measure(settings: Settings, addresses: Addresses) -> list[Figure]:
    skus = [f"SKU-{number:06d}" for number in range(max(BATCHES))]
    reserves = [
        Reserve(f"fence-{sku}", FINGERPRINT, "web", TTL_MS, False, "", (Wanted(sku, 1),))  # noqa: FBT003
        for sku in skus
    ]
    async with running_engine(addresses) as engine:
        await engine.load_catalogue(skus, UNITS_PLENTY)
        await engine.decide_all(reserves)
        redis = engine.redis
        await redis.function_load(_library_without(), replace=True)
        calls = await _Calls.on(engine)
        found: list[Figure] = []
        for size in BATCHES:
            found += await _of_batch(settings, calls, reserves[:size])
        return found


class _Calls:
    """Calls of the function under either name, each as the gate calls it."""

    def __init__(self, redis: Redis, arguments: tuple[str | int, ...]) -> None:
        self._redis, self._arguments = redis, arguments

    @classmethod
    async def on(cls, engine: Engine) -> "_Calls":
        gate = RedisGate(engine.servers, SHARD, RETENTION_MS, RETENTION_MS)
        identity, state = await gate.prepare(), await gate.present_state()
        assert state is not None, "Bug: the gate was opened before"
        return cls(engine.redis, (state[0], identity.run_id, identity.replication_id))

    async def microseconds(self, name: str, commands: Sequence[Reserve]) -> float:
        """Give what one call of a turn took."""
        packed = msgspec.msgpack.encode(commands)
        limits = (OVERDUE_PER_CALL_MAX, RETENTION_MS, RETENTION_MS, 0, LAST_MS)
        keys = shard_keys(SHARD)
        before = await self._counted()
        for _ in range(CALLS_PER_TURN):
            _, answers, entries = await self._redis.execute_command(
                "FCALL", name, len(keys), *keys, *self._arguments, packed, 0, *limits
            )
            if entries or any(outcome != Outcome.REPLAYED for outcome in _outcomes(answers)):
                raise LoadFailed("A reservation that was made before was not answered again.")
        after = await self._counted()
        return (after[1] - before[1]) / (after[0] - before[0])

    async def _counted(self) -> tuple[int, int]:
        counted = (await self._redis.info("commandstats"))["cmdstat_fcall"]
        return counted["calls"], counted["usec"]


async def _of_batch(settings: Settings, calls: _Calls, commands: Sequence[Reserve]) -> list[Figure]:
    fenced, unfenced = f"batch_{version()}", f"batch_{UNFENCED}"
    taken: dict[str, list[float]] = {fenced: [], unfenced: []}
    for pair in range(settings.runs * PAIRS_PER_RUN):
        for name in list(taken)[:: 1 if pair % 2 == 0 else -1]:
            taken[name].append(await calls.microseconds(name, commands))
    operations = len(taken[fenced]) * CALLS_PER_TURN
    question = f"batch of {len(commands)}"
    costs = [more - less for more, less in zip(taken[fenced], taken[unfenced], strict=True)]
    target = Target("at most", TARGET_MICROSECONDS)
    return [
        figure(f"{question}, with its fence", "us", taken[fenced], operations),
        figure(f"{question}, without", "us", taken[unfenced], operations),
        figure(f"{question}: what the fence costs", "us", costs, operations, target),
    ]


def _library_without() -> str:
    fence = lua_source("include/fence")
    text = library()
    if fence not in text:
        raise LoadFailed("The fence is not where it is taken out.")
    return text.replace(fence, _WITHOUT).replace(version(), UNFENCED)


def _outcomes(answers: bytes) -> list[int]:
    return [answer[0] for answer in msgspec.msgpack.decode(answers)]
