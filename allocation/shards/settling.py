"""Finishes what somebody began over several shards and did not end, and forgets claims that nothing needs."""

from collections.abc import Sequence

import msgspec

from allocation.commands import Confirm, Move, Order, Release, Reserve
from allocation.errors import EngineError
from allocation.outcomes import State
from allocation.shards.asking import Asking, Shard
from allocation.shards.carts import Carts, Legs
from allocation.shards.claims import Claim
from allocation.shards.ends import Ends
from allocation.shards.movements import Movements
from allocation.shards.postgres_claims import PostgresClaims

CLAIMS_PER_LOOK = 100
_ENDED = frozenset({State.RELEASED, State.EXPIRED})
_COMMITTED = frozenset({State.COMMITTED, State.SHIPPED, State.RETURNED})
_decode_request = msgspec.msgpack.Decoder(Reserve | Order | Move).decode


class Settling:
    """The duty of a worker. Several processes may do it at once: every step can be repeated."""

    def __init__(
        self,
        shards: Sequence[Shard],
        claims: PostgresClaims,
        carts: Carts,
        ends: Ends,
        movements: Movements,
    ) -> None:
        self._shards, self._claims = shards, claims
        self._carts, self._ends, self._movements = carts, ends, movements

    async def run_once(self) -> int:
        """Settle some claims, and say how many. What meets a fault is looked at again later."""
        settled = 0
        for claim in await self._claims.take_unsettled(CLAIMS_PER_LOOK):
            try:
                await self._settle(claim)
            except EngineError:
                continue
            settled += 1
        return settled

    async def forget(self, retention_ms: int) -> int:
        """Forget some claims whose reservation or movement the shards have forgotten, and say how many."""
        forgotten = 0
        for claim in await self._claims.take_unseen(CLAIMS_PER_LOOK, retention_ms / 1000):
            # A movement is remembered for so long and no longer; a reservation until it has ended for so long.
            if claim.key.startswith("e") or not await self._ends.legs(claim):
                await self._claims.drop(claim)
                forgotten += 1
        return forgotten

    async def _settle(self, claim: Claim) -> None:
        request = _decode_request(claim.request) if claim.request else None
        if isinstance(request, Move):
            await self._movements.apply(request)
            self._claims.settled(claim)
            return
        legs = await self._ends.legs(claim)
        states = {leg.state for leg in legs.values()}
        if request is not None and legs and not states & _ENDED and len(legs) < len(claim.shards):
            await self._carts.take_legs(claim, request, is_repeat=True)
        elif State.RELEASED in states or (len(legs) < len(claim.shards) and states & _ENDED):
            await self._release(claim, legs)
        elif states & _COMMITTED and states & {State.HELD, State.EXPIRED}:
            order_id = next((leg.order_id for leg in legs.values() if leg.order_id), "")
            await self._ends.confirm(claim, legs, Confirm(claim.subject, order_id))
        self._claims.settled(claim)

    async def _release(self, claim: Claim, legs: Legs) -> None:
        asking = Asking(self._shards)
        for shard, leg in legs.items():
            if leg.state in {State.HELD, State.COMMITTED}:
                await asking.change(shard, Release(claim.subject))
