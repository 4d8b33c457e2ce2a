"""A ledger with something of everything in it, and a Redis that can be set back to where it was."""

from collections.abc import Awaitable, Callable, Sequence

from engine.shards import CATALOGUE, Shard, hold
from one_redis import OneRedis
from redis.asyncio import Redis

from allocation.commands import (
    Command,
    ConfigureLocation,
    ConfigureSku,
    Confirm,
    Extend,
    Move,
    MovedLine,
    Movement,
    Order,
    Release,
    Wanted,
)
from allocation.folding import FoldedState
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.ports import Gate

META, *KEPT, JOURNAL = shard_keys(0)
MINUTE_MS = 60_000
# Short, so that the history sees closed reservations and movements forgotten.
RESERVATION_RETENTION_MS, EVENT_RETENTION_MS = 10 * MINUTE_MS, 20 * MINUTE_MS
STAGES = 5


def moved(event: str, kind: Movement, quantity: int, at_ms: int = 0, to: str = "") -> Move:
    """Move mugs in London."""
    return Move(event, "", int(kind), at_ms, "", (MovedLine("MUG", "LON", quantity, "", to),))


async def pass_minutes(redis: Redis, minutes: int) -> int:
    """Set the gate's clock forward, and give it in ms."""
    last_ms = int(await redis.hget(META, "last_ms") or 0)
    await redis.hset(META, "last_ms", last_ms + minutes * MINUTE_MS)
    return last_ms + minutes * MINUTE_MS


async def go_through(shard: Shard, redis: Redis, stage: int) -> None:
    """Let one stage of the history happen: sales, ends of holds, expiry, forgetting, counts and movements."""
    now_ms = await pass_minutes(redis, 8 if stage else 0)
    if stage == 0:
        await _all(shard, (*CATALOGUE, ConfigureLocation("PAR", ""), ConfigureSku("CUP", ())))
    await _all(shard, [hold(f"long-{stage}-{number}", 1) for number in range(4)])
    await _all(
        shard,
        [
            hold(f"short-{stage}", 2, MINUTE_MS),
            hold(f"again-{stage % 2}", 1, MINUTE_MS),
            Confirm(f"long-{stage}-0", "O1"),
            Release(f"long-{stage}-1"),
            Extend(f"long-{stage}-2", 40 * MINUTE_MS),
            Order(f"order-{stage}", "", "web", "O2", (Wanted("MUG", 1),)),
            moved(f"receipt-{stage}", Movement.RECEIPT, 10),
            moved(f"late-{stage}", Movement.ADJUSTMENT, -1, now_ms - 12 * MINUTE_MS),
            moved(f"transfer-{stage}", Movement.TRANSFER, 3, 0, "PAR"),
            moved(f"status-{stage}", Movement.STATUS, 1, 0, "damaged"),
            moved(f"shipment-{stage}", Movement.SHIPMENT, 1),
        ],
    )
    if stage:
        # Held before, and waiting for nothing from now on.
        await _all(shard, [Confirm(f"long-{stage - 1}-2", "O3")])
    if stage % 2:
        await _all(shard, [moved(f"count-{stage}", Movement.COUNT, 90, now_ms - 9 * MINUTE_MS)])
    await _all(shard, [moved(f"after-{stage}", Movement.RECEIPT, 2)])


async def _all(shard: Shard, commands: Sequence[Command]) -> None:
    for command in commands:
        await shard.do(command)


class WatchedGate(RedisGate):
    """A real gate; tests see the steps of a load, and act before and after each."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(OneRedis(redis), 0, RESERVATION_RETENTION_MS, EVENT_RETENTION_MS)
        self.steps: list[str] = []
        self.before: Callable[[int], Awaitable[None]] = _nothing
        self.after: Callable[[int], Awaitable[None]] = _nothing

    async def load_step(self, step: str, epoch: int, *arguments: str | bytes | int) -> bool:
        """Do a step as ever, between what the test wants done before and after."""
        self.steps.append(step)
        place = len(self.steps) - 1
        await self.before(place)
        done = await super().load_step(step, epoch, *arguments)
        await self.after(place)
        return done


async def _nothing(_place: int) -> None:
    return


async def dumped(redis: Redis) -> dict[str, bytes]:
    """Take a copy of the shard as Redis has it on its disk."""
    found = {key: await redis.dump(key) for key in (META, *KEPT, JOURNAL)}
    return {key: dump for key, dump in found.items() if dump is not None}


async def set_back(redis: Redis, dumps: dict[str, bytes]) -> None:
    """Let Redis be as it was, as after a restart with an older file."""
    await redis.delete(META, *KEPT, JOURNAL)
    for key, dump in dumps.items():
        await redis.restore(key, 0, dump, replace=True)


async def everything(redis: Redis) -> dict[str, object]:
    """Read all keys of the shard, byte for byte, but the journal, and without the epoch."""
    stock, reservations, events, configuration, deadlines, moves = KEPT
    hashes = {key: await redis.hgetall(key) for key in (stock, reservations, events, configuration)}
    sets = {key: await redis.zrange(key, 0, -1, withscores=True) for key in (deadlines, moves)}
    meta: dict[bytes, bytes] = await redis.hgetall(META)
    meta.pop(b"epoch", None)
    return {**hashes, **sets, META: meta}


def told(state: FoldedState) -> dict[str, object]:
    """Give all that a folded state has, field by field."""
    return {
        "records": state.records,
        "deadlines": dict(state.deadlines()),
        "moves": {prefix: members for prefix, members in state.moves.items() if members},
        "last_ms": state.last_ms,
    }


async def epoch_of(gate: Gate) -> int:
    """Give the epoch that the gate is open under; 0 where it is closed."""
    state = await gate.present_state()
    return state[0] if state else 0
