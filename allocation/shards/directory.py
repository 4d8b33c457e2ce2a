"""Finds out which shards a key is on."""

from collections import OrderedDict
from collections.abc import Sequence

from allocation.commands import ReadReservation
from allocation.model import Reservation
from allocation.shards.asking import Shard, ask_each
from allocation.shards.claims import RESERVATION, Claim, Claims
from allocation.shards.legs import shards_named_by, whole_fingerprint

# Most ends of a hold come soon after it, and to the same process.
REMEMBERED_MAX = 100_000


class Directory:
    """The claims, with the newest of them in memory."""

    def __init__(self, shards: Sequence[Shard], claims: Claims) -> None:
        self._shards, self._claims = shards, claims
        self._known: OrderedDict[str, Claim] = OrderedDict()

    async def claim(self, wanted: Claim) -> tuple[Claim, bool]:
        """Make a claim; give the one that stands, and whether it is this one.

        Raises LedgerUnavailable: nothing was done.
        """
        known = self._known.get(wanted.key)
        if known is not None and known.fingerprint == wanted.fingerprint:
            return known, False
        standing, is_own = await self._claims.claim(wanted)
        return self._remember(standing), is_own

    async def drop(self, claim: Claim) -> None:
        """Forget a claim that came to nothing."""
        self._known.pop(claim.key, None)
        await self._claims.drop(claim)

    async def put(self, claim: Claim) -> None:
        """Say which shards have a part of it from now on."""
        await self._claims.put(claim)
        self._remember(claim)

    def known(self, reservation_id: str) -> Claim | None:
        """Give the claim as this process has it in memory; another may have made it anew or narrowed it."""
        return self._known.get(RESERVATION + reservation_id)

    async def find(self, reservation_id: str) -> Claim | None:
        """Look the claim for a reservation up, on the shards themselves where there is none any more.

        Raises NothingDone.
        """
        claim = await self._claims.find(RESERVATION + reservation_id)
        if claim is None:
            claim = await self._discover(reservation_id)
        return self._remember(claim) if claim is not None else None

    async def _discover(self, reservation_id: str) -> Claim | None:
        read = ReadReservation(reservation_id)
        decisions = await ask_each(
            self._shards, [(shard, read) for shard in range(len(self._shards))]
        )
        records = {shard: decision.record for shard, decision in enumerate(decisions)}
        found: dict[int, Reservation] = {
            shard: record for shard, record in records.items() if record is not None
        }
        if not found:
            return None
        fingerprint = next(iter(found.values())).fingerprint
        claim = Claim(
            RESERVATION + reservation_id,
            whole_fingerprint(fingerprint),
            shards_named_by(fingerprint) or tuple(found),
        )
        await self._claims.put(claim)
        return claim

    def _remember(self, claim: Claim) -> Claim:
        self._known[claim.key] = claim
        self._known.move_to_end(claim.key)
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return claim
