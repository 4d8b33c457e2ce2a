"""Movements whose lines lie on several shards: each shard applies its own, once."""

import time
from collections.abc import Callable, Sequence

import msgspec
from msgspec import structs

from allocation.commands import CheckLines, Move, Movement
from allocation.errors import NothingDone, OutcomeUnknown
from allocation.outcomes import Outcome
from allocation.ports import Decision
from allocation.shards.asking import Asking, Shard
from allocation.shards.claims import MOVEMENT, Claim, Claims
from allocation.shards.legs import refused
from allocation.shards.routing import lines_by_shard

_encode = msgspec.msgpack.Encoder().encode
_DONE = frozenset({Outcome.APPLIED, Outcome.DUPLICATE})


class Movements:
    """Applies movements."""

    def __init__(
        self,
        shards: Sequence[Shard],
        claims: Claims,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._shards, self._claims, self._now_ms = shards, claims, now_ms

    async def move(self, movement: Move) -> Decision:
        """Apply a movement once on every shard that it touches.

        Raises NothingDone, and OutcomeUnknown where some shards may have applied it: a repeat completes it.
        """
        parts = self._parts(movement)
        for shard, part in parts.items():
            self._shards[shard].require_open(part)
        if len(parts) == 1:
            return await self._move(movement, b"")
        if not movement.occurred_at_ms:
            # It happened once, however late its last part is applied.
            movement = structs.replace(movement, occurred_at_ms=self._now_ms())
        try:
            return await self._move(movement, _encode(movement))
        except NothingDone:
            # Once it is claimed somebody applies it, sooner or later; and a claim may be made and not be answered.
            raise OutcomeUnknown from None

    async def _move(self, movement: Move, request: bytes) -> Decision:
        parts = tuple(self._parts(movement))
        key, fingerprint = MOVEMENT + movement.event_key, movement.fingerprint
        wanted = Claim(key, fingerprint, parts, request, self._now_ms())
        standing, is_own = await self._claims.claim(wanted)
        if standing.fingerprint != fingerprint:
            return refused(Outcome.IDEMPOTENCY_MISMATCH, movement.event_key)
        refusal = await self._check(movement) if request else None
        decision = refusal or await self.apply(movement)
        if decision.outcome in _DONE:
            self._claims.settled(standing)
        elif is_own:
            await self._claims.drop(wanted)
        return decision

    async def apply(self, movement: Move) -> Decision:
        """Apply the parts that have not been applied."""
        asking = Asking(self._shards)
        applied: Decision | None = None
        decision: Decision | None = None
        for shard, part in self._parts(movement).items():
            decision = await asking.change(shard, part)
            if decision.outcome not in _DONE:
                return decision
            if decision.outcome is Outcome.APPLIED:
                applied = decision
        assert decision is not None, "Bug: a movement without lines"
        return applied or decision

    async def _check(self, movement: Move) -> Decision | None:
        """Refuse as a whole what names something unknown."""
        for shard, part in self._parts(movement).items():
            locations = {line.location for line in part.lines}
            if movement.kind == Movement.TRANSFER:
                locations |= {line.to for line in part.lines}
            skus = tuple(line.sku for line in part.lines)
            check = CheckLines(skus, tuple(sorted(locations)))
            decision = await self._shards[shard].submit(check)
            if decision.outcome is not Outcome.FOUND:
                return decision
        return None

    def _parts(self, movement: Move) -> dict[int, Move]:
        lines = lines_by_shard(movement.lines, len(self._shards))
        return {shard: structs.replace(movement, lines=part) for shard, part in lines.items()}
