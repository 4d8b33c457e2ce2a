"""What follows a hold, where its legs may lie on several shards: confirm, release, extend, read.

A leg that has lost its units says so for good by being released. So a cart is confirmed when every leg is, and
lost when one is released, whoever asks and however many do.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from allocation.commands import Confirm, Extend, ReadReservation, Release
from allocation.outcomes import Outcome, State
from allocation.ports import Decision
from allocation.shards.asking import Asking, Shard
from allocation.shards.carts import Legs
from allocation.shards.claims import Claim, Claims
from allocation.shards.directory import Directory
from allocation.shards.legs import NOTHING, joined, joined_record, least_far, refused

OfOne = Confirm | Release | Extend | ReadReservation


class Ends:
    """What is asked of one reservation by its id."""

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

    async def ask(self, command: OfOne) -> Decision:
        """Decide about a reservation, as one shard would. Raises NothingDone and OutcomeUnknown."""
        claim = self._directory.known(command.reservation_id)
        decision = await self._ask(claim, command) if claim is not None else None
        if decision is None or decision.outcome is Outcome.UNKNOWN_RESERVATION:
            claim = await self._directory.find(command.reservation_id)
            if claim is None:
                return refused(Outcome.UNKNOWN_RESERVATION, command.reservation_id)
            decision = await self._ask(claim, command)
        return decision

    async def _ask(self, claim: Claim, command: OfOne) -> Decision:
        if len(claim.shards) == 1:
            return await self._shards[claim.shards[0]].submit(command)
        legs = await self.legs(claim)
        young = claim.is_young(self._now_ms(), self._retention_ms)
        if not legs or (young and len(legs) < len(claim.shards)):
            # Refused, or not complete yet: nobody has been told that it is there.
            return refused(Outcome.UNKNOWN_RESERVATION, command.reservation_id)
        return await self._ask_legs(claim, legs, command)

    async def _ask_legs(self, claim: Claim, legs: Legs, command: OfOne) -> Decision:
        match command:
            case Confirm():
                return await self._expecting(claim, lambda: self.confirm(claim, legs, command))
            case Release():
                return await self._expecting(claim, lambda: self.release(claim, legs))
            case Extend():
                return await self._extend(claim, legs, command)
            case ReadReservation():
                record = joined_record([*legs.values()], claim.request)
                return Decision(Outcome.FOUND, record.version, record, NOTHING)

    async def legs(self, claim: Claim) -> Legs:
        """Read the legs that there are and were not refused."""
        asking = Asking(self._shards)
        read = [asking.read(shard, claim.subject) for shard in claim.shards]
        records = await asyncio.gather(*read)
        found = zip(claim.shards, records, strict=True)
        return {shard: record for shard, record in found if record is not None}

    async def confirm(self, claim: Claim, legs: Legs, command: Confirm) -> Decision:
        """Commit every leg, or none where one has lost its units."""
        asking = Asking(self._shards)
        decisions: list[Decision] = []
        for shard in legs:
            decision = await asking.change(shard, command)
            if decision.outcome is Outcome.HOLD_LOST:
                # From here on nobody can confirm this leg; unless somebody just has.
                given_up = await asking.change(shard, Release(claim.subject, hold_only=True))
                if given_up.outcome is not Outcome.ALREADY_COMMITTED:
                    await self._release_legs(asking, claim, legs)
                    return decision
                decision = await asking.change(shard, command)
            if decision.record is None:
                return decision
            decisions.append(decision)
        fresh = any(decision.outcome is Outcome.COMMITTED for decision in decisions)
        return joined(decisions, Outcome.COMMITTED if fresh else Outcome.REPLAYED, claim.request)

    async def release(self, claim: Claim, legs: Legs) -> Decision:
        """Give back every leg, as far as it has not been shipped."""
        decisions = await self._release_legs(Asking(self._shards), claim, legs)
        known = [decision for decision in decisions if decision.record is not None]
        if not known:
            return decisions[0]
        fresh = any(decision.outcome is Outcome.RELEASED for decision in known)
        return joined(known, Outcome.RELEASED if fresh else Outcome.REPLAYED, claim.request)

    async def _release_legs(self, asking: Asking, claim: Claim, legs: Legs) -> list[Decision]:
        return [await asking.change(shard, Release(claim.subject)) for shard in legs]

    async def _extend(self, claim: Claim, legs: Legs, command: Extend) -> Decision:
        """Let every leg end later; of a cart that has ended in one place nothing is kept longer."""
        if least_far([*legs.values()]) in {State.RELEASED, State.EXPIRED}:
            return refused(Outcome.HOLD_LOST, command.reservation_id)
        asking = Asking(self._shards)
        decisions: list[Decision] = []
        for shard in legs:
            decision = await asking.change(shard, command)
            if decision.record is None:
                return decision
            decisions.append(decision)
        return joined(decisions, Outcome.EXTENDED, claim.request)

    async def _expecting(self, claim: Claim, work: Callable[[], Awaitable[Decision]]) -> Decision:
        """Do a work that somebody finishes where this process does not."""
        expected = await self._claims.expect(claim)
        decision = await work()
        self._claims.settled(expected)
        return decision
