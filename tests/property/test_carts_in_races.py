"""Many shoppers, two processes and four shards, processes that forget what they were doing: carts stay whole."""

import asyncio
from collections.abc import Awaitable
from random import Random

import pytest
from cluster_chaos.mutants import MUTANTS
from engine.many import DAY_MS, SHARDS, Shards
from one_redis import OneRedis
from redis.asyncio import Redis

from allocation.audit import audit
from allocation.commands import (
    Command,
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Confirm,
    Extend,
    Move,
    MovedLine,
    Movement,
    ReadReservation,
    Release,
    Reserve,
    Wanted,
)
from allocation.errors import EngineError
from allocation.gate.redis_gate import RedisGate
from allocation.gate.redis_reads import RedisReads
from allocation.model import Reservation
from allocation.outcomes import Outcome, State
from allocation.pipeline import Limits, Pipeline
from allocation.ports import Decision
from allocation.shards.many import ManyShards
from allocation.shards.postgres_claims import SETTLED_WRITE_SECONDS
from allocation.shards.routing import shard_of

SKUS = ("MUG", "CUP", "JAR", "HAT", "PEN", "BAG")
UNITS, SHOPPERS, WISHES = 6, 10, 25
ENDS, PATIENCE_SECONDS, GOES_AWAY = 0.04, 0.5, 0.4
LIVE = {State.HELD, State.COMMITTED}
QUICK = Limits(early_batch_min=1, ledger_lag_seconds_max=60.0)


class Forgetful:
    """A shard as a process sees it that ends, now and then, while it waits for the answer."""

    def __init__(self, pipeline: Pipeline, random: Random) -> None:
        self._pipeline, self._random = pipeline, random

    def require_open(self, command: Command) -> None:
        """Raise what the shard would."""
        self._pipeline.require_open(command)

    def submit(self, command: Command) -> Awaitable[Decision]:
        """Ask the shard, but for the ends: before it is asked, and before it has answered."""
        end = self._random.random()
        if end < ENDS / 2:
            return asyncio.get_running_loop().create_future()
        answer = self._pipeline.submit(command)
        return asyncio.get_running_loop().create_future() if end < ENDS else answer


class Shopper:
    """Wants carts, and remembers what it was told for certain."""

    def __init__(self, name: str, seed: int, processes: list[ManyShards]) -> None:
        self.random = Random(f"{seed} {name}")  # noqa: S311 - chance, not a secret
        self.name, self.processes = name, processes
        # What is known of each reservation, and the carts that it may still want something of.
        self.told: dict[str, State] = {}
        # On how many shards each cart lies that must be held whole.
        self.whole: dict[str, int] = {}
        self.held: list[str] = []

    async def shop(self) -> None:
        """Go through all wishes."""
        for number in range(WISHES):
            if self.held and self.random.random() < 0.5:
                await self._end(self.held.pop(self.random.randrange(len(self.held))))
            else:
                await self._take(f"{self.name}-{number}")

    async def _take(self, reservation_id: str) -> None:
        lines = tuple(
            Wanted(sku, self.random.randint(1, 3))
            for sku in self.random.sample(SKUS, self.random.randint(1, 3))
        )
        replaces = self.random.choice(["", "", *self.held])
        partial = self.random.random() < 0.2
        if not partial:
            self.whole[reservation_id] = len({shard_of(line.sku, SHARDS) for line in lines})
        cart = Reserve(reservation_id, "f", "web", 900_000, partial, replaces, lines)
        outcome = await self._until_definite(cart)
        if outcome in {Outcome.HELD, Outcome.REPLAYED}:
            self.told[reservation_id] = State.HELD
            self.held.append(reservation_id)
        elif outcome is Outcome.INSUFFICIENT_STOCK:
            self.told[reservation_id] = State.REFUSED
        if replaces:
            # Whether it has given way is for the legs to say; it can only be whole or gone.
            self.held.remove(replaces)
            self.told.pop(replaces)

    async def _end(self, reservation_id: str) -> None:
        end = self.random.choice([Confirm(reservation_id, "O"), Release(reservation_id)])
        await self._until_definite(Extend(reservation_id, 800_000))
        outcome = await self._until_definite(end)
        if outcome is None:
            self.told.pop(reservation_id)
        elif outcome in {Outcome.COMMITTED, Outcome.REPLAYED} and isinstance(end, Confirm):
            self.told[reservation_id] = State.COMMITTED
        else:
            self.told[reservation_id] = State.RELEASED

    async def _until_definite(self, command: Command) -> Outcome | None:
        """Ask again and again; None where the shopper goes away, and others have to finish what was begun."""
        while True:
            answer = self.random.choice(self.processes).submit(command)
            try:
                return (await asyncio.wait_for(answer, PATIENCE_SECONDS)).outcome
            except (EngineError, TimeoutError):
                if self.random.random() < GOES_AWAY:
                    return None


@pytest.mark.parametrize("seed", range(4))
async def test_carts_stay_whole(redis: Redis, database_url: str, seed: int) -> None:
    """What shoppers were told is so, no cart is half there, and every ledger stands up to its audit."""
    await race(redis, database_url, seed)


# Much is refused where there is little to sell, and much is confirmed where there is plenty.
@pytest.mark.parametrize(
    ("mutant", "units"),
    [("give-back-left-out", 6), ("settling-off", 60), ("ends-not-expected", 60)],
)
async def test_a_safeguard_that_is_missing_is_seen(
    redis: Redis, database_url: str, monkeypatch: pytest.MonkeyPatch, mutant: str, units: int
) -> None:
    """Without it a cart is left half there, where processes end often and nobody asks again."""
    monkeypatch.setitem(globals(), "UNITS", units)
    monkeypatch.setitem(globals(), "ENDS", 0.15)
    monkeypatch.setitem(globals(), "GOES_AWAY", 1.0)
    MUTANTS[mutant](monkeypatch.setattr)
    with pytest.raises(AssertionError):
        await race(redis, database_url, 0)


async def race(redis: Redis, database_url: str, seed: int) -> None:
    """Let all shoppers go through their wishes, finish what was cut off, and check all there is."""
    async with (
        Shards.open(redis, database_url, limits=QUICK, settle_seconds=0.0) as first,
        Shards.open(redis, database_url, limits=QUICK, settle_seconds=0.0) as second,
    ):
        await first.do(ConfigureLocation("LON", ""), ConfigureChannel("web", "", ("LON",)))
        await first.do(*[ConfigureSku(sku, ()) for sku in SKUS])
        goods = tuple(MovedLine(sku, "LON", UNITS) for sku in SKUS)
        await first.do(Move("opening", "f", int(Movement.RECEIPT), 0, "", goods))
        processes = [forgetful(shards, seed) for shards in (first, second)]
        shoppers = [Shopper(f"s{number}", seed, processes) for number in range(SHOPPERS)]
        await asyncio.gather(*[shopper.shop() for shopper in shoppers])
        while await first.many.settling.run_once():  # noqa: ASYNC110 - it ends when nothing is left
            # Until what was settled has been written down.
            await asyncio.sleep(2 * SETTLED_WRITE_SECONDS)
        await check_legs(first, shoppers)
        for number in range(SHARDS):
            gate, reads = (
                RedisGate(OneRedis(redis), number, 1, 1),
                RedisReads(OneRedis(redis), number),
            )
            found = await audit(gate, first.ledgers[number], lambda _read, _all: None, reads)
            await reads.close()
            assert found.holds, (found.breaks, found.oversold, found.differences)


def forgetful(shards: Shards, seed: int) -> ManyShards:
    """Give a process that begins much and does not end all of it."""
    random = Random(seed)  # noqa: S311 - chance, not a secret
    pipelines = [Forgetful(pipeline, random) for pipeline in shards.pipelines]
    return ManyShards(pipelines, shards.claims, DAY_MS)


async def check_legs(shards: Shards, shoppers: list[Shopper]) -> None:
    """Read every leg, and compare it with its cart's other legs, with what was told, and with the stock."""
    promised: dict[str, int] = dict.fromkeys(SKUS, 0)
    told = {name: state for shopper in shoppers for name, state in shopper.told.items()}
    whole = {name: legs for shopper in shoppers for name, legs in shopper.whole.items()}
    names = {f"{shopper.name}-{number}" for shopper in shoppers for number in range(WISHES)}
    for name in sorted(names):
        legs = await read_legs(shards, name)
        states = {leg.state for leg in legs}
        assert not (states & LIVE and states & {State.RELEASED, State.EXPIRED}), (name, legs)
        assert len(states & LIVE) <= 1, (name, legs)
        if states & LIVE and name in whole:
            assert len(legs) == whole[name], (name, legs)
        if name in told:
            assert_as_told(name, told[name], states)
        for leg in legs:
            for line in leg.lines if leg.state in LIVE else ():
                promised[line.sku] += line.quantity
    for sku in SKUS:
        record = await shards.stock(sku)
        assert record is not None
        pool = record.pools[0]
        assert pool.reserved + pool.committed == promised[sku] <= UNITS, sku


def assert_as_told(name: str, told: State, states: set[State]) -> None:
    """Check that a shopper was told what the legs say."""
    if told in LIVE:
        assert states == {told}, (name, told, states)
    else:
        assert not states & LIVE, (name, told, states)


async def read_legs(shards: Shards, name: str) -> list[Reservation]:
    """Give what each shard has of a reservation; what it refused is not shown."""
    decisions = [await shard.submit(ReadReservation(name)) for shard in shards.pipelines]
    return [decision.record for decision in decisions if decision.record is not None]


def test_the_skus_lie_on_several_shards() -> None:
    """Else nothing above would be about carts over several."""
    assert len({shard_of(sku, SHARDS) for sku in SKUS}) >= 3
