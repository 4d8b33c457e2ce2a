"""Carts over several shards: whole or not at all, whoever stops in the middle, and finished by somebody else."""

import asyncio
import gc
from collections.abc import AsyncIterator

import msgspec
import pytest
from engine.many import SHARDS, Shards
from redis.asyncio import Redis

from allocation.commands import (
    CheckLines,
    Command,
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Confirm,
    Extend,
    Move,
    MovedLine,
    Movement,
    Order,
    ReadReservation,
    Release,
    Reserve,
    Wanted,
)
from allocation.errors import GateUnverified, LedgerUnavailable, OutcomeUnknown
from allocation.outcomes import Outcome, State
from allocation.shards.claims import Claim
from allocation.shards.postgres_claims import SETTLED_WRITE_SECONDS
from allocation.shards.routing import shard_of

UNITS = 5
# In the order of their shards.
FIRST, SECOND = "CUP", "MUG"
CATALOGUE: tuple[Command, ...] = (
    ConfigureLocation("LON", ""),
    ConfigureChannel("web", "", ("LON",)),
    ConfigureSku(FIRST, ()),
    ConfigureSku(SECOND, ()),
)


def cart(reservation_id: str, first: int = 1, second: int = 1, **others: object) -> Reserve:
    """Ask for units on two shards."""
    lines = (Wanted(FIRST, first), Wanted(SECOND, second))
    wish = {"ttl_ms": 900_000, "partial": False, "replaces": "", "fingerprint": "f"} | others
    return Reserve(reservation_id=reservation_id, channel="web", lines=lines, **wish)  # type: ignore[arg-type]


def sole(reservation_id: str, sku: str, quantity: int, **others: object) -> Reserve:
    """Ask for units of one SKU."""
    whole = cart(reservation_id, **others)  # type: ignore[arg-type]
    return msgspec.structs.replace(whole, lines=(Wanted(sku, quantity),))


def receipt(event: str, first: int, second: int) -> Move:
    """Receive units on two shards."""
    lines = (MovedLine(FIRST, "LON", first), MovedLine(SECOND, "LON", second))
    return Move(event, "f", int(Movement.RECEIPT), 0, "", lines)


@pytest.fixture
async def shards(redis: Redis, database_url: str) -> AsyncIterator[Shards]:
    """Give four shards, with five units of a SKU on each of two of them."""
    async with Shards.open(redis, database_url, settle_seconds=0.0) as opened:
        assert shard_of(FIRST, SHARDS) < shard_of(SECOND, SHARDS)
        await opened.do(*CATALOGUE)
        await opened.do(receipt("opening", UNITS, UNITS))
        yield opened


async def reserved(shards: Shards) -> tuple[int, int]:
    """Give how many units of each SKU are in live holds."""
    records = [await shards.stock(sku) for sku in (FIRST, SECOND)]
    first, second = (sum(pool.reserved for pool in record.pools) for record in records if record)
    return first, second


async def committed(shards: Shards) -> tuple[int, int]:
    """Give how many units of each SKU are committed."""
    records = [await shards.stock(sku) for sku in (FIRST, SECOND)]
    first, second = (sum(pool.committed for pool in record.pools) for record in records if record)
    return first, second


async def settled(shards: Shards) -> None:
    """Do what a worker does with what nobody has ended, until it finds nothing more to do."""
    for _ in range(3):
        await shards.many.settling.run_once()


async def outcome(shards: Shards, command: Command) -> Outcome:
    """Send a command."""
    return (await shards.do(command))[0].outcome


def cut_off(shards: Shards, sku: str, kind: type[Command] = Reserve) -> None:
    """Let the shard of a SKU refuse carts from now on, after it was asked whether it is open."""
    pipeline = shards.pipeline_of(sku)
    plain = pipeline.submit

    def refuse(command: Command) -> object:
        if isinstance(command, kind):
            raise GateUnverified
        return plain(command)

    pipeline.submit = refuse  # type: ignore[method-assign,assignment]


def mend(shards: Shards, sku: str) -> None:
    """Undo `cut_off`."""
    del shards.pipeline_of(sku).submit


async def test_a_cart_that_is_refused_on_one_shard_holds_nothing(shards: Shards) -> None:
    """What the other shard has given is given back before the answer, and the refusal is remembered."""
    (refused,) = await shards.do(cart("r1", second=UNITS + 1))
    assert refused.outcome is Outcome.INSUFFICIENT_STOCK
    assert refused.record is not None
    assert [lack.sku for lack in refused.record.shortages] == [SECOND]
    assert await reserved(shards) == (0, 0)
    await shards.do(receipt("more", 9, 9))
    assert await outcome(shards, cart("r1", second=UNITS + 1)) is Outcome.INSUFFICIENT_STOCK
    for command in (ReadReservation("r1"), Confirm("r1", ""), Release("r1"), Extend("r1", 1)):
        assert await outcome(shards, command) is Outcome.UNKNOWN_RESERVATION
    assert await reserved(shards) == (0, 0)


async def test_a_key_is_one_request_wherever_its_skus_lie(shards: Shards) -> None:
    """The same key for SKUs on other shards is refused, though those have never heard of it."""
    only_first = sole("r1", FIRST, 1)
    only_second = sole("r1", SECOND, 1, fingerprint="g")
    assert await outcome(shards, only_first) is Outcome.HELD
    assert await outcome(shards, only_second) is Outcome.IDEMPOTENCY_MISMATCH
    assert await outcome(shards, cart("r1", fingerprint="h")) is Outcome.IDEMPOTENCY_MISMATCH
    answers = await asyncio.gather(
        shards.many.submit(cart("r2", fingerprint="x")),
        shards.many.submit(sole("r2", SECOND, 1, fingerprint="y")),
    )
    assert sorted(answer.outcome for answer in answers) == [
        Outcome.HELD,
        Outcome.IDEMPOTENCY_MISMATCH,
    ]


async def test_a_key_that_was_refused_for_an_unknown_sku_is_free_again(shards: Shards) -> None:
    """Such a refusal is not remembered: the corrected request may use the key."""
    wrong = msgspec.structs.replace(cart("r1"), lines=(Wanted(FIRST, 1), Wanted("HUT", 1)))
    assert await outcome(shards, wrong) is Outcome.UNKNOWN_SKU
    assert await reserved(shards) == (0, 0)
    assert await outcome(shards, cart("r1", fingerprint="g")) is Outcome.HELD


async def test_a_cart_that_was_cut_off_is_completed_by_a_repeat(shards: Shards) -> None:
    """The caller hears that it may have been done, repeats, and has it."""
    cut_off(shards, SECOND)
    with pytest.raises(OutcomeUnknown):
        await shards.do(cart("r1"))
    mend(shards, SECOND)
    assert await reserved(shards) == (1, 0)
    assert await outcome(shards, cart("r1")) is Outcome.HELD
    assert await reserved(shards) == (1, 1)


async def begun(
    shards: Shards, command: Command, sku: str = SECOND, at: type[Command] | None = None
) -> None:
    """Let a process begin a work and end before it reaches the shard of a SKU, nobody being told."""
    pipeline = shards.pipeline_of(sku)
    plain, stopped = pipeline.submit, asyncio.Event()

    def stop(asked: Command) -> object:
        if isinstance(asked, at or type(command)):
            stopped.set()
            return asyncio.get_running_loop().create_future()
        return plain(asked)

    pipeline.submit = stop  # type: ignore[method-assign,assignment]
    answer = asyncio.ensure_future(shards.many.submit(command))
    await stopped.wait()
    answer.cancel()
    for task in [*shards.many._under_way]:
        task.cancel()
    mend(shards, sku)


async def test_a_reservation_that_nobody_ended_is_completed(shards: Shards) -> None:
    """Somebody else takes the missing leg; until then nobody is told that the reservation is there."""
    await begun(shards, cart("r1"))
    assert await reserved(shards) == (1, 0)
    assert await outcome(shards, ReadReservation("r1")) is Outcome.UNKNOWN_RESERVATION
    await settled(shards)
    assert await reserved(shards) == (1, 1)
    assert await outcome(shards, ReadReservation("r1")) is Outcome.FOUND


async def test_a_reservation_that_nobody_ended_is_given_back(shards: Shards) -> None:
    """Where the missing leg cannot be had any more, the other is given back."""
    await begun(shards, cart("r1"))
    await shards.do(sole("r2", SECOND, UNITS))
    await settled(shards)
    assert await reserved(shards) == (0, UNITS)
    assert await outcome(shards, cart("r1")) is Outcome.INSUFFICIENT_STOCK


async def test_a_confirmation_that_nobody_ended_is_completed(shards: Shards) -> None:
    """Half a commitment becomes a whole one, under the order that was named."""
    await shards.do(cart("r1"))
    await begun(shards, Confirm("r1", "O1"))
    assert await committed(shards) == (1, 0)
    await settled(shards)
    assert await committed(shards) == (1, 1)
    (read,) = await shards.do(ReadReservation("r1"))
    assert read.record is not None
    assert (read.record.state, read.record.order_id) == (State.COMMITTED, "O1")


async def test_a_release_that_nobody_ended_is_completed(shards: Shards) -> None:
    """Half a cart is no cart."""
    await shards.do(cart("r1"))
    await begun(shards, Release("r1"))
    assert await reserved(shards) == (0, 1)
    await settled(shards)
    assert await reserved(shards) == (0, 0)


async def test_an_order_and_a_movement_that_nobody_ended_are_completed(shards: Shards) -> None:
    """A sale that has been made is recorded whole, and goods that came are counted everywhere, once."""
    sale = Order("o1", "f", "web", "O1", (Wanted(FIRST, 1), Wanted(SECOND, UNITS + 2)))
    await begun(shards, sale)
    await begun(shards, receipt("late", 2, 3))
    await settled(shards)
    assert await committed(shards) == (1, UNITS + 2)
    assert await outcome(shards, sale) is Outcome.REPLAYED
    assert await outcome(shards, receipt("late", 2, 3)) is Outcome.DUPLICATE
    records = [await shards.stock(sku) for sku in (FIRST, SECOND)]
    assert [record.pools[0].on_hand for record in records if record] == [UNITS + 2, UNITS + 3]


async def test_a_late_confirmation_that_one_shard_refuses_is_lost_for_good(shards: Shards) -> None:
    """A leg that has no units any more is released, so that no later look comes to another end."""
    await shards.do(cart("r1", second=UNITS, ttl_ms=1))
    await asyncio.sleep(0.01)
    await shards.do(sole("r2", SECOND, 1))
    assert await outcome(shards, Confirm("r1", "")) is Outcome.HOLD_LOST
    await shards.do(Release("r2"))
    assert await outcome(shards, Confirm("r1", "")) is Outcome.HOLD_LOST
    assert await committed(shards) == (0, 0)
    assert await reserved(shards) == (0, 0)


async def test_a_cart_that_replaces_another_never_loses_to_it(shards: Shards) -> None:
    """The shopper's own units count on every shard, and a refusal leaves the earlier hold whole."""
    await shards.do(cart("r1", UNITS, UNITS - 1))
    assert (
        await outcome(shards, cart("r2", UNITS, UNITS + 1, replaces="r1"))
        is Outcome.INSUFFICIENT_STOCK
    )
    assert await reserved(shards) == (UNITS, UNITS - 1)
    assert await outcome(shards, cart("r3", UNITS, UNITS, replaces="r1")) is Outcome.HELD
    assert await reserved(shards) == (UNITS, UNITS)
    only_first = sole("r4", FIRST, 2, replaces="r3")
    assert await outcome(shards, only_first) is Outcome.HELD
    assert await reserved(shards) == (2, 0)
    assert await outcome(shards, Confirm("r3", "")) is Outcome.HOLD_LOST


async def test_a_partial_cart_that_gets_nothing_replaces_nothing(shards: Shards) -> None:
    """The earlier hold stays where it is, on the shards that the new cart touches and on the others."""
    await shards.do(sole("r0", FIRST, UNITS))
    await shards.do(sole("r1", SECOND, 2))
    wish = sole("r2", FIRST, 1, partial=True, replaces="r1")
    assert await outcome(shards, wish) is Outcome.INSUFFICIENT_STOCK
    assert await reserved(shards) == (UNITS, 2)
    assert await outcome(shards, Confirm("r1", "")) is Outcome.COMMITTED


async def test_what_a_partial_cart_has_is_a_reservation_like_any(shards: Shards) -> None:
    """A shard that had nothing is no part of it, then or later."""
    await shards.do(sole("r0", FIRST, UNITS))
    (held,) = await shards.do(cart("r1", partial=True))
    assert held.outcome is Outcome.HELD
    assert held.record is not None
    assert [line.sku for line in held.record.lines] == [SECOND]
    assert [lack.sku for lack in held.record.shortages] == [FIRST]
    assert await outcome(shards, cart("r1", partial=True)) is Outcome.REPLAYED
    assert await outcome(shards, Confirm("r1", "O1")) is Outcome.COMMITTED
    assert await committed(shards) == (0, 1)


async def test_a_movement_keeps_its_meaning_on_every_shard(shards: Shards) -> None:
    """The same event with other lines is refused, though the shard of those lines has never heard of it."""
    first = Move("e1", "f", int(Movement.RECEIPT), 0, "", (MovedLine(FIRST, "LON", 1),))
    second = Move("e1", "g", int(Movement.RECEIPT), 0, "", (MovedLine(SECOND, "LON", 1),))
    assert await outcome(shards, first) is Outcome.APPLIED
    assert await outcome(shards, second) is Outcome.IDEMPOTENCY_MISMATCH
    assert await outcome(shards, first) is Outcome.DUPLICATE


async def test_a_lost_claim_is_found_on_the_shards(
    shards: Shards, redis: Redis, database_url: str
) -> None:
    """Claims are no part of the ledger; where one is gone, the legs themselves say where they are."""
    await shards.do(cart("r1"))
    await shards.claims._pool.execute("DELETE FROM claim")
    async with Shards.open(redis, database_url) as other:
        assert await outcome(other, Confirm("r1", "O1")) is Outcome.COMMITTED
        assert await committed(other) == (1, 1)
        assert await outcome(other, ReadReservation("never")) is Outcome.UNKNOWN_RESERVATION


async def test_claims_are_forgotten_with_what_they_are_for(redis: Redis, database_url: str) -> None:
    """A claim goes when its reservation has gone, and not before."""
    async with Shards.open(redis, database_url, retention_ms=50) as shards:
        await shards.do(*CATALOGUE)
        await shards.do(receipt("opening", UNITS, UNITS))
        await shards.do(cart("kept"), cart("gone"))
        await shards.do(Release("gone"))
        await asyncio.sleep(0.3)
        await shards.do(ReadReservation("kept"))
        await asyncio.sleep(0.3)
        await shards.many.settling.forget(50)
        left = await shards.claims._pool.fetch("SELECT key FROM claim ORDER BY key")
        assert [row["key"] for row in left] == ["rkept"]


async def test_a_key_that_is_used_again_much_later_is_a_new_cart(
    redis: Redis, database_url: str
) -> None:
    """Its claim may outlive the first cart on the shards; a leg that is missing is missing then."""
    async with Shards.open(redis, database_url, retention_ms=1_000, settle_seconds=0.0) as shards:
        await shards.do(*CATALOGUE)
        await shards.do(receipt("opening", UNITS, UNITS))
        await shards.do(cart("r1"))
        await shards.do(Release("r1"))
        await asyncio.sleep(1.1)
        for _ in range(2):
            assert await outcome(shards, ReadReservation("r1")) is Outcome.UNKNOWN_RESERVATION
        await begun(shards, cart("r1"))
        assert await reserved(shards) == (1, 0)
        assert await outcome(shards, Confirm("r1", "")) is Outcome.UNKNOWN_RESERVATION
        await settled(shards)
        assert await outcome(shards, Confirm("r1", "")) is Outcome.COMMITTED
        assert await committed(shards) == (1, 1)


async def test_a_confirmation_is_finished_though_the_hold_has_just_been_settled(
    shards: Shards, redis: Redis, database_url: str
) -> None:
    """What another process writes late, of what it did before, calls no newer look off."""
    async with Shards.open(redis, database_url, settle_seconds=0.0) as other:
        await shards.do(cart("r1"))
        # The first process has not written yet that the hold is whole.
        await begun(other, Confirm("r1", "O1"))
        await asyncio.sleep(2 * SETTLED_WRITE_SECONDS)
        await settled(shards)
        assert await committed(shards) == (1, 1)


async def test_what_has_given_way_on_one_shard_is_lost_on_all(shards: Shards) -> None:
    """Whether the cart that wanted its place is refused later, or what it has is partial."""
    await shards.do(cart("r1"))
    too_much = cart("r2", 2, UNITS + 1, replaces="r1")
    assert await outcome(shards, too_much) is Outcome.INSUFFICIENT_STOCK
    assert await reserved(shards) == (0, 0)
    assert await outcome(shards, Confirm("r1", "")) is Outcome.HOLD_LOST
    await shards.do(cart("r3"))
    await shards.do(receipt("damage", -UNITS - 1, 0))
    partial = cart("r4", 2, 2, replaces="r3", partial=True)
    assert await outcome(shards, partial) is Outcome.HELD
    assert await reserved(shards) == (0, 2)


async def test_a_replacement_that_nobody_ended_is_completed(shards: Shards) -> None:
    """The earlier hold has given way on one shard, so it does on the other, which nobody asked yet."""
    await shards.do(cart("r1"))
    # Nobody looks after the earlier hold any more.
    await asyncio.sleep(2 * SETTLED_WRITE_SECONDS)
    await begun(shards, sole("r2", FIRST, 2, replaces="r1"), at=Release)
    assert await reserved(shards) == (2, 1)
    await settled(shards)
    assert await reserved(shards) == (2, 0)


async def test_a_repeat_that_is_cut_off_is_finished_too(shards: Shards) -> None:
    """Though somebody has looked after the first attempt, and found nothing to do."""
    await begun(shards, cart("r1"), sku=FIRST)
    await settled(shards)
    await asyncio.sleep(2 * SETTLED_WRITE_SECONDS)
    await begun(shards, cart("r1"))
    assert await reserved(shards) == (1, 0)
    await settled(shards)
    assert await reserved(shards) == (1, 1)


async def test_a_cart_whose_place_was_confirmed_meanwhile_keeps_nothing(shards: Shards) -> None:
    """It was cut off before it reached the hold that it replaces, and that has become an order."""
    await shards.do(sole("r1", SECOND, 1))
    await begun(shards, cart("r2", replaces="r1"))
    assert await reserved(shards) == (1, 1)
    await shards.do(Confirm("r1", "O1"))
    await settled(shards)
    assert await reserved(shards) == (0, 0)
    assert await outcome(shards, cart("r2", replaces="r1")) is Outcome.ALREADY_COMMITTED


async def test_a_movement_that_is_claimed_is_never_said_to_be_undone(shards: Shards) -> None:
    """Somebody applies it later, so whoever asked hears that it may be done."""
    cut_off(shards, FIRST, Move)
    with pytest.raises(OutcomeUnknown):
        await shards.do(receipt("late", 2, 3))
    mend(shards, FIRST)
    plain = shards.claims.claim

    async def lose_the_answer(wanted: Claim) -> tuple[Claim, bool]:
        await plain(wanted)
        raise LedgerUnavailable

    shards.claims.claim = lose_the_answer  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown):
        await shards.do(receipt("later", 1, 1))
    with pytest.raises(LedgerUnavailable):
        await shards.do(cart("r1"))
    del shards.claims.claim
    await settled(shards)
    assert await outcome(shards, receipt("late", 2, 3)) is Outcome.DUPLICATE
    assert await outcome(shards, receipt("later", 1, 1)) is Outcome.DUPLICATE
    # Of a cart nobody begins anything for a caller who has gone.
    assert await reserved(shards) == (0, 0)


async def test_a_confirmation_that_nobody_can_look_after_is_not_begun(shards: Shards) -> None:
    """Without a word to those who would finish it, nothing is done, and nothing is left behind."""
    await shards.do(cart("r1"))

    async def refuse(_claim: Claim) -> Claim:
        raise LedgerUnavailable

    shards.claims.expect = refuse  # type: ignore[method-assign]
    with pytest.raises(LedgerUnavailable):
        await shards.do(Confirm("r1", "O1"))
    gc.collect()
    del shards.claims.expect
    assert await committed(shards) == (0, 0)


async def test_a_shard_that_refuses_at_once_leaves_no_answer_unheard(shards: Shards) -> None:
    """The fault of another shard, which comes later, is nobody's surprise."""
    unheard: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    late: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    pipeline = shards.pipeline_of(FIRST)
    pipeline.submit = lambda _command: late  # type: ignore[method-assign,assignment,return-value]
    cut_off(shards, SECOND, CheckLines)
    with pytest.raises(GateUnverified):
        await asyncio.wait_for(shards.many.submit(cart("r1")), 5)
    late.set_exception(GateUnverified())
    await asyncio.sleep(0.01)
    del pipeline.submit
    late = asyncio.get_running_loop().create_future()
    mend(shards, SECOND)
    gc.collect()
    assert unheard == []


async def test_a_partial_cart_whose_claim_cannot_be_written_may_have_been_taken(
    shards: Shards,
) -> None:
    """Its legs are held by then: whoever asked hears that, and a repeat has them."""
    await shards.do(sole("r0", FIRST, UNITS))

    async def refuse(_claim: Claim) -> None:
        raise LedgerUnavailable

    shards.claims.put = refuse  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown):
        await shards.do(cart("r1", partial=True))
    del shards.claims.put
    assert await reserved(shards) == (UNITS, 1)
    assert await outcome(shards, cart("r1", partial=True)) is Outcome.REPLAYED
    assert await outcome(shards, Confirm("r1", "O1")) is Outcome.COMMITTED


async def test_a_refused_replacement_calls_no_look_off(shards: Shards) -> None:
    """The earlier cart was cut off itself, and is completed as if nobody had wanted its place."""
    await begun(shards, cart("r1"))
    too_much = sole("r2", SECOND, UNITS + 1, replaces="r1")
    assert await outcome(shards, too_much) is Outcome.INSUFFICIENT_STOCK
    await asyncio.sleep(2 * SETTLED_WRITE_SECONDS)
    await settled(shards)
    assert await reserved(shards) == (1, 1)
