"""Takes carts whose SKUs may lie on several shards: leg by leg, and held when every leg is.

There is no decision but the legs' own. A refusal is remembered by the shard that refused, so whoever looks at the
legs, now or after a crash, comes to the same end.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from msgspec import structs

from allocation.commands import CheckLines, Order, ReadConfiguration, Release, Reserve
from allocation.errors import NothingDone, OutcomeUnknown
from allocation.journal import decode_channel
from allocation.model import Reservation
from allocation.outcomes import Outcome, State
from allocation.ports import Decision
from allocation.shards.asking import Asking, Shard, ask_each
from allocation.shards.claims import RESERVATION, Claim, Claims
from allocation.shards.directory import Directory
from allocation.shards.legs import joined, least_far, legs_of, refused

TAKEN = frozenset({Outcome.HELD, Outcome.COMMITTED, Outcome.REPLAYED})
_PAST_HOLD = frozenset({State.COMMITTED, State.SHIPPED, State.RETURNED})
_encode = msgspec.msgpack.Encoder().encode
_decode_configuration = msgspec.msgpack.Decoder(list[tuple[str, msgspec.Raw]]).decode

# The legs of a reservation that there are, by shard.
Legs = Mapping[int, Reservation]


class Carts:
    """Holds carts and records orders."""

    def __init__(
        self,
        shards: Sequence[Shard],
        claims: Claims,
        directory: Directory,
        retention_ms: int,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._shards, self._claims, self._directory = shards, claims, directory
        self._retention_ms, self._now_ms = retention_ms, now_ms

    async def take(self, cart: Reserve | Order) -> Decision:
        """Hold a cart, or record a sale, as one shard would.

        Raises NothingDone, and OutcomeUnknown where some legs may have been taken: a repeat completes them.
        """
        legs = legs_of(cart, len(self._shards))
        for shard, leg in legs.items():
            self._shards[shard].require_open(leg)
        wanted = Claim(
            RESERVATION + cart.reservation_id,
            cart.fingerprint,
            tuple(legs),
            _encode(cart) if len(legs) > 1 else b"",
            self._now_ms(),
        )
        standing, is_own = await self._directory.claim(wanted)
        if standing.fingerprint != cart.fingerprint:
            return refused(Outcome.IDEMPOTENCY_MISMATCH, cart.reservation_id)
        if wanted.request and not is_own:
            if not standing.is_young(wanted.made_at_ms, self._retention_ms):
                # The shards may have forgotten what it was for: then this is a new cart, with no leg missing.
                await self._directory.put(wanted)
            # Whoever looked after the first attempt may have done so before there was anything to see.
            standing = await self._claims.expect(standing)
        decision = await self.take_legs(standing, cart, is_repeat=not is_own)
        if is_own and decision.record is None:
            # Nothing was decided that is remembered: the key is as free as before.
            await self._directory.drop(wanted)
        return decision

    async def take_legs(self, claim: Claim, cart: Reserve | Order, *, is_repeat: bool) -> Decision:
        """Take the legs that have not been taken, and give all back where one is refused."""
        legs = legs_of(cart, len(self._shards))
        replaced, earlier = await self._earlier(cart)
        asking = Asking(self._shards)
        refusal = await self._refusal(cart, legs, earlier)
        if refusal is not None:
            taken: Legs = await self._read(claim) if is_repeat else {}
            # What is complete stays so, whatever has become of the rest since.
            if len(taken) < len(claim.shards):
                await self._release(asking, cart.reservation_id, taken)
                self._claims.settled(claim)
                return refusal
        if replaced is not None and len(replaced.shards) > 1:
            # It gives way shard by shard: where this process ends between two, somebody else goes on.
            replaced = await self._claims.expect(replaced)
        decisions = await self._ask_each(asking, cart, legs, earlier)
        *_, last = decisions.values()
        held = {shard for shard, made in decisions.items() if made.outcome in TAKEN}
        if not _is_taken(cart, last):
            await self._give_back(asking, cart.reservation_id, decisions)
            held &= earlier.keys()
        if held and replaced is not None:
            # What has given way somewhere is lost everywhere.
            rest = {shard: leg for shard, leg in earlier.items() if shard not in held}
            await self._release(asking, replaced.subject, rest)
            self._claims.settled(replaced)
        if not _is_taken(cart, last):
            self._claims.settled(claim)
            return last
        return await self._taken(asking, claim, cart, decisions)

    async def _ask_each(
        self,
        asking: Asking,
        cart: Reserve | Order,
        legs: Mapping[int, Reserve | Order],
        earlier: Legs,
    ) -> dict[int, Decision]:
        """Ask one shard after the other for its leg, up to the first that refuses."""
        decisions: dict[int, Decision] = {}
        for shard in _in_order(legs, earlier):
            leg = legs[shard]
            if isinstance(leg, Reserve) and earlier and shard not in earlier:
                leg = structs.replace(leg, replaces="")
            decisions[shard] = await asking.change(shard, leg)
            if not _is_taken(cart, decisions[shard]):
                break
        return decisions

    async def _taken(
        self, asking: Asking, claim: Claim, cart: Reserve | Order, decisions: Mapping[int, Decision]
    ) -> Decision:
        legs = {shard: made.record for shard, made in sorted(decisions.items()) if made.record}
        held = tuple(shard for shard, leg in legs.items() if leg.state is not State.REFUSED)
        in_order = [decisions[shard] for shard in legs]
        if not held:
            self._claims.settled(claim)
            return joined(in_order, Outcome.INSUFFICIENT_STOCK, claim.request)
        if len(held) < len(legs):
            await _after_the_legs(self._directory.put(structs.replace(claim, shards=held)))
        fresh = {decisions[shard].outcome for shard in held} - {Outcome.REPLAYED}
        if any(leg.state in {State.RELEASED, State.EXPIRED} for leg in legs.values()):
            # It has ended before it was complete.
            await self._give_back(asking, cart.reservation_id, decisions)
            fresh = set[Outcome]()
        self._claims.settled(claim)
        return joined(in_order, fresh.pop() if fresh else Outcome.REPLAYED, claim.request)

    async def _give_back(
        self, asking: Asking, reservation_id: str, decisions: Mapping[int, Decision]
    ) -> None:
        for shard, decision in decisions.items():
            if decision.record is not None and decision.record.state is State.HELD:
                await asking.change(shard, Release(reservation_id, hold_only=True))

    async def _release(self, asking: Asking, reservation_id: str, legs: Legs) -> None:
        for shard, leg in legs.items():
            if leg.state in {State.HELD, State.EXPIRED}:
                await asking.change(shard, Release(reservation_id, hold_only=True))

    async def _refusal(
        self, cart: Reserve | Order, legs: Mapping[int, Reserve | Order], earlier: Legs
    ) -> Decision | None:
        """Say why no leg is asked for at all."""
        if earlier and least_far([*earlier.values()]) in _PAST_HOLD:
            return refused(Outcome.ALREADY_COMMITTED, _replaced_by(cart))
        return await self._check(cart, legs) if len(legs) > 1 else None

    async def _check(
        self, cart: Reserve | Order, legs: Mapping[int, Reserve | Order]
    ) -> Decision | None:
        """Refuse what names something unknown before any leg is taken: such a refusal is not remembered."""
        checks = [
            (shard, CheckLines(tuple(line.sku for line in leg.lines), ()))
            for shard, leg in legs.items()
        ]
        for decision in await ask_each(self._shards, checks):
            if decision.outcome is not Outcome.FOUND:
                return decision
        pins = {line.location for line in cart.lines} - {""}
        if not pins:
            return None
        decision = await self._shards[0].submit(ReadConfiguration())
        for key, record in _decode_configuration(decision.extra):
            if key == f"channel:{cart.channel}":
                unknown = pins.difference(decode_channel(record).locations)
                return refused(Outcome.UNKNOWN_LOCATION, min(unknown)) if unknown else None
        return refused(Outcome.UNKNOWN_CHANNEL, cart.channel)

    async def _earlier(self, cart: Reserve | Order) -> tuple[Claim | None, Legs]:
        """Find the hold that a cart replaces, and its legs; nothing where there is none."""
        name = _replaced_by(cart)
        claim = self._directory.known(name) or await self._directory.find(name) if name else None
        return claim, await self._read(claim) if claim is not None else {}

    async def _read(self, claim: Claim) -> Legs:
        asking = Asking(self._shards)
        legs = {shard: await asking.read(shard, claim.subject) for shard in claim.shards}
        return {shard: leg for shard, leg in legs.items() if leg is not None}


def _replaced_by(cart: Reserve | Order) -> str:
    return cart.replaces if isinstance(cart, Reserve) else ""


async def _after_the_legs(writing: Awaitable[None]) -> None:
    """Write down what the legs have come to. Raises OutcomeUnknown, since they have been taken by now."""
    try:
        await writing
    except NothingDone:
        raise OutcomeUnknown from None


def _is_taken(cart: Reserve | Order, decision: Decision) -> bool:
    """Say whether a cart goes on: a partial one does without what a shard has not."""
    may_lack = isinstance(cart, Reserve) and cart.partial
    return decision.outcome in TAKEN or (
        may_lack and decision.outcome is Outcome.INSUFFICIENT_STOCK
    )


def _in_order(legs: Mapping[int, Reserve | Order], earlier: Legs) -> list[int]:
    """Order the shards so that a refusal comes before the shopper's own earlier hold has given way anywhere.

    First where nothing gives way, then where more is wanted than gives way. Otherwise ascending, so that of two
    carts that want the last units of two shards one gets both.
    """

    def place(shard: int) -> tuple[bool, bool, int]:
        given = earlier.get(shard)
        return given is not None, given is not None and not _grows(legs[shard], given), shard

    return sorted(legs, key=place)


def _grows(leg: Reserve | Order, earlier: Reservation) -> bool:
    wanted, given = Counter[str](), Counter[str]()
    for line in leg.lines:
        wanted[line.sku] += line.quantity
    for line in earlier.lines if earlier.state is State.HELD else ():
        given[line.sku] += line.quantity
    return not wanted <= given
