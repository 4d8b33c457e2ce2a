"""The simulated Redis does what the real one does: the same commands, the same answers, entries and records."""

from collections.abc import Awaitable, Callable
from random import Random

import msgspec
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from simulation.clients import CATALOGUE, CHANNELS, SKUS, moved
from simulation.decisions import Call
from simulation.store import HASH_KEYS, JournalRefusedError, Store

from allocation.commands import Command, Confirm, Release, Reserve, Wanted
from allocation.folding import DEADLINES_KEY, EVENTS_KEY, MOVES_KEY, STOCK_KEY
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.packing import packed
from allocation.ports import Decision

META, *_ = KEYS = shard_keys(0)
Accept = Callable[[int, int], Awaitable[bool]]
pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode


class Both:
    """The real gate and the simulated one, with one clock."""

    def __init__(self, gate: RedisGate, redis: Redis) -> None:
        self.gate, self.redis, self.store = gate, redis, Store()
        self.now_ms = 4_000_000_000_000

    async def load_step(self, step: str, epoch: int, *arguments: str | bytes | int) -> bool:
        """Do one step of a load on both, and give what both said."""
        real = await self.gate.load_step(step, epoch, *arguments)
        assert self.store.load_step(step, epoch, arguments) is real, (step, epoch)
        return real

    async def decide(self, *commands: Command) -> list[str]:
        """Decide commands on both, compare everything, and give the outcomes."""
        # The gate's clock is the later of the server's and the last one it saw.
        await self.redis.hset(META, "last_ms", self.now_ms)
        identity = await self.gate.prepare()
        real = await self.gate.decide(1, identity, commands, 0)
        call = Call(self.store, self.now_ms, 128)
        decisions = call.decide([msgspec.Raw(pack(command)) for command in commands])
        if call.entries:
            first = call.sequence - len(call.entries) + 1
            self.store.add_to_journal(1, list(enumerate(call.entries, first)))
            self.store.sequence, self.store.last_ms = call.sequence, call.now_ms
            self.store.write(call.changed)
            self.store.moves |= {member for forget, member in call.moves if not forget}
        assert told(decisions) == told(real.decisions)
        assert entries(call.entries) == entries(real.entries)
        assert call.swept_all == real.head.swept_all
        assert self.store.sequence == real.head.last_sequence
        await self.compare_records()
        return [decision.outcome.name for decision in decisions]

    async def compare_records(self) -> None:
        """Compare everything that both hold."""
        for key in HASH_KEYS:
            held = await self.redis.hgetall(KEYS[key - 1])
            held.pop(b"", None)
            assert {field: unpack(record) for field, record in self.store.records[key].items()} == {
                field.decode(): unpack(record) for field, record in held.items()
            }
        scored = await self.redis.zrange(KEYS[DEADLINES_KEY - 1], 0, -1, withscores=True)
        assert self.store.deadlines == {
            member.decode(): score for member, score in scored if member
        }
        members = await self.redis.zrange(KEYS[MOVES_KEY - 1], 0, -1)
        assert self.store.moves == {member.decode() for member in members if member}


def told(decisions: list[Decision]) -> list[tuple[object, ...]]:
    """Give what callers are told, without what only explains a refusal."""
    return [(made.outcome, made.version, made.record) for made in decisions]


def entries(bodies: list[bytes]) -> list[object]:
    """Decode entries, whose bytes may differ where two encoders differ."""
    return [unpack(body) for body in bodies]


@pytest.fixture
async def both(gate: RedisGate, redis: Redis) -> Both:
    """Give two open gates without anything in them."""
    opened = Both(gate, redis)
    await gate.prepare()
    assert await opened.load_step("begin", 1)
    assert await opened.load_step("open", 1, 0, "", 0)
    return opened


def drawn(random: Random, number: int) -> Command:
    """Draw a command about few reservations, so that they meet."""
    reservation_id = f"r{random.randint(0, 30)}"
    match random.randint(0, 5):
        case 0:
            return Confirm(reservation_id, random.choice(("", "o1", f"o{number}")))
        case 1:
            return Release(reservation_id, hold_only=random.random() < 0.5)
        case 2:
            return moved(f"e{random.randint(0, 9)}", random.choice(SKUS), random.choice((-1, 3)))
    lines = tuple(Wanted(sku, random.randint(1, 3)) for sku in SKUS[: random.randint(1, 2)])
    channel = random.choice((*CHANNELS, "nowhere") if number % 9 == 0 else CHANNELS)
    ttl_ms = random.choice((100, 900_000))
    return Reserve(reservation_id, "", channel, ttl_ms, partial=False, replaces="", lines=lines)


@pytest.mark.parametrize("seed", range(6))
async def test_decisions_are_those_of_the_real_gate(both: Both, seed: int) -> None:
    """Batches of drawn commands, with time passing: every answer, entry, record and deadline is the same."""
    random = Random(seed)  # noqa: S311 - repeatable, not secret
    outcomes = await both.decide(*CATALOGUE, *(moved(f"opening {sku}", sku, 6) for sku in SKUS))
    for number in range(25):
        both.now_ms += random.choice((0, 40, 200))
        commands = [drawn(random, number) for _ in range(random.randint(1, 8))]
        outcomes += await both.decide(*commands)
    assert {"HELD", "COMMITTED", "RELEASED", "REPLAYED", "INSUFFICIENT_STOCK"} <= set(outcomes)


def body(*values: bytes) -> bytes:
    """Pack values as a load step takes them."""
    (one,) = packed(values)
    return one


MUG = body(b"MUG", b"\x92\x07\x90")


async def test_load_steps_are_those_of_the_real_gate(both: Both) -> None:
    """Older epochs, other states and steps out of turn are refused by both alike."""
    said = [
        await both.load_step("arm", 2, 1, "another"),
        await both.load_step("arm", 2, 0, ""),
        await both.load_step("begin", 1),
        await both.load_step("put", 2, STOCK_KEY, MUG),
        await both.load_step("begin", 3),
        await both.load_step("arm", 3, 0, ""),
        await both.load_step("close", 3, 3, 0, ""),
        await both.load_step("put", 2, STOCK_KEY, MUG),
        await both.load_step("put", 3, STOCK_KEY, MUG),
        await both.load_step("open", 3, 5, "hash", 7, 1),
        await both.load_step("put", 3, STOCK_KEY, MUG),
        await both.load_step("open", 3, 5, "hash", 7, 0),
    ]
    expected = [False, True, False, False, True, False, False, False, True, True, False, False]
    assert said == expected
    assert await both.gate.present_state() == (3, both.store.sequence, both.store.hash)
    assert await both.gate.newest_epoch() == both.store.newest_epoch == 3
    await both.compare_records()


async def test_a_load_is_opened_by_the_number_of_its_steps(both: Both, redis: Redis) -> None:
    """Both refuse a number that is not theirs: where a step is missing, and where none is named."""
    await both.load_step("begin", 2)
    await both.load_step("put", 2, STOCK_KEY, MUG)
    await both.load_step("remove", 2, STOCK_KEY, body(b"CUP"))
    assert await both.gate.newest_epoch() == both.store.newest_epoch == 2
    assert [await both.load_step("open", 2, 5, "hash", 7, steps) for steps in (0, 1, 3)] == [
        False,
        False,
        False,
    ]
    assert not await both.load_step("open", 2, 5, "hash", 7)
    await redis.hset(META, "loaded", 1)
    both.store.loaded = 1
    assert not await both.load_step("open", 2, 5, "hash", 7, 2)
    assert await both.load_step("open", 2, 5, "hash", 7, 1)


async def test_a_gate_is_brought_forward_like_the_real_one(both: Both) -> None:
    """What is closed keeps what it has; then records, deadlines and moves come and go."""
    moves = [b"MUG\0LON\0%d" % number for number in range(6)]
    await both.load_step("begin", 2)
    await both.load_step("put", 2, STOCK_KEY, MUG)
    await both.load_step("put", 2, EVENTS_KEY, body(b"e1", b"\x93\xa0\x01\x02", b"e2", b"\x90"))
    await both.load_step("put", 2, DEADLINES_KEY, body(b"-2", b"ee1", b"7", b"rr1"))
    await both.load_step(
        "put", 2, MOVES_KEY, body(*(each for move in moves for each in (b"0", move)))
    )
    await both.load_step("open", 2, 5, "hash", 7, 4)
    await both.compare_records()
    closing = [(1, 5, "hash"), (2, 6, "hash"), (2, 5, "another"), (2, 5, "hash"), (2, 5, "hash")]
    said = [await both.load_step("close", 3, *expected) for expected in closing]
    assert said == [False, False, False, True, False]
    assert await both.gate.present_state() is None
    await both.compare_records()
    await both.load_step("remove", 3, EVENTS_KEY, body(b"e1"))
    await both.load_step("remove", 3, DEADLINES_KEY, body(b"ee1", b"never there"))
    await both.load_step("forget", 3, body(b"MUG\0LON\0", moves[3]))
    await both.load_step("put", 3, DEADLINES_KEY, body(b"9", b"rr1"))
    assert await both.load_step("open", 3, 8, "later", 9, 4)
    await both.compare_records()
    assert (len(both.store.moves), both.store.deadlines) == (3, {"rr1": 9})


async def test_the_journal_refuses_what_the_real_one_refuses(both: Both, redis: Redis) -> None:
    """An entry of an older epoch, or one that was written before, is never taken."""
    for item_id, taken in (((2, 5), True), ((2, 5), False), ((1, 99), False), ((3, 1), True)):
        epoch, sequence = item_id
        for accept in (_real_journal(redis), _simulated_journal(both.store)):
            assert await accept(epoch, sequence) is taken, item_id


def _real_journal(redis: Redis) -> Accept:
    async def accept(epoch: int, sequence: int) -> bool:
        try:
            await redis.xadd(KEYS[7], {str(sequence): b"body"}, id=f"{epoch}-{sequence}")
        except ResponseError:
            return False
        return True

    return accept


def _simulated_journal(store: Store) -> Accept:
    async def accept(epoch: int, sequence: int) -> bool:
        try:
            store.add_to_journal(epoch, [(sequence, b"body")])
        except JournalRefusedError:
            return False
        return True

    return accept
