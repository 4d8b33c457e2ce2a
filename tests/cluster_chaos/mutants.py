"""Safeguards of carts over several shards, each of which can be taken away to see whether a checker notices."""

from collections.abc import Awaitable, Callable
from typing import Any

from allocation.commands import Confirm
from allocation.outcomes import Outcome
from allocation.ports import Decision
from allocation.shards.asking import Asking
from allocation.shards.carts import Carts, Legs
from allocation.shards.claims import Claim
from allocation.shards.ends import Ends
from allocation.shards.legs import joined
from allocation.shards.postgres_claims import PostgresClaims
from allocation.shards.settling import Settling

# Puts a function in the place of a method, as `setattr` does.
Replace = Callable[[type, str, Any], object]


def settling_off(replace: Replace) -> None:
    """Let nobody look after what was cut off."""

    async def settle_nothing(_self: Settling) -> int:
        return 0

    replace(Settling, "run_once", settle_nothing)


def give_back_left_out(replace: Replace) -> None:
    """Keep the legs of a cart that another shard has refused."""

    async def keep(_self: Carts, *_arguments: object) -> None:
        return

    replace(Carts, "_give_back", keep)


def lost_leg_ignored(replace: Replace) -> None:
    """Confirm what of a cart is left."""

    async def confirm(self: Ends, claim: Claim, legs: Legs, command: Confirm) -> Decision:
        asking = Asking(self._shards)
        decisions = [await asking.change(shard, command) for shard in legs]
        left = [decision for decision in decisions if decision.record is not None]
        return joined(left, Outcome.COMMITTED, claim.request) if left else decisions[0]

    replace(Ends, "confirm", confirm)


def claims_not_unique(replace: Replace) -> None:
    """Take the same key with another request for a new one."""
    plain = PostgresClaims.claim

    async def claim(self: PostgresClaims, wanted: Claim) -> tuple[Claim, bool]:
        _, is_own = await plain(self, wanted)
        return wanted, is_own

    replace(PostgresClaims, "claim", claim)


def ends_not_expected(replace: Replace) -> None:
    """Begin the end of a cart without a word to those who would finish it."""

    async def work_alone(
        _self: Ends, _claim: Claim, work: Callable[[], Awaitable[Decision]]
    ) -> Decision:
        return await work()

    replace(Ends, "_expecting", work_alone)


MUTANTS: dict[str, Callable[[Replace], None]] = {
    "settling-off": settling_off,
    "give-back-left-out": give_back_left_out,
    "lost-leg-ignored": lost_leg_ignored,
    "claims-not-unique": claims_not_unique,
    "ends-not-expected": ends_not_expected,
}
