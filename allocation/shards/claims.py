"""Claims: which shards have what one key asked for.

Where there are many shards, a key alone does not say who decides about it. A claim is made before anything is
decided, and is unique: the same key with another request, on other shards, cannot be decided beside it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

# Keys of reservations and of movements, as the gate's deadlines have them.
RESERVATION, MOVEMENT = "r", "e"


class Claim(Struct, frozen=True):
    """What a key stands for. `request` is the packed command where several shards have a part of it; or empty.

    `settle_at` is when somebody looks whether the shards agree, by the clock of Postgres; None for never.
    """

    key: str
    fingerprint: str
    shards: tuple[int, ...]
    request: bytes = b""
    made_at_ms: int = 0
    settle_at: datetime | None = None

    @property
    def subject(self) -> str:
        """The reservation or movement that it is for."""
        return self.key[1:]

    def is_young(self, now_ms: int, retention_ms: int) -> bool:
        """Say whether a leg that is not there was never taken; later it may have been forgotten."""
        return bool(self.request) and now_ms - self.made_at_ms < retention_ms


class Claims(Protocol):
    """Remembers claims. Raises LedgerUnavailable for every fault."""

    async def claim(self, wanted: Claim) -> tuple[Claim, bool]:
        """Make a claim; give the one that stands, and whether it is this one or an earlier one for the key."""
        ...

    async def find(self, key: str) -> Claim | None:
        """Give the claim for a key."""
        ...

    async def drop(self, claim: Claim) -> None:
        """Forget a claim that came to nothing."""
        ...

    async def put(self, claim: Claim) -> None:
        """Say that a key is on other shards than was claimed, or that its claim was lost."""
        ...

    async def expect(self, claim: Claim) -> Claim:
        """Have somebody look in a while whether all shards of a claim agree; give the claim with that time."""
        ...

    def settled(self, claim: Claim) -> None:
        """Say, at leisure, that they do. A look that others have asked for since is not called off."""
        ...

    async def take_unsettled(self, limit: int) -> Sequence[Claim]:
        """Give claims that nobody has settled in time; nobody else is given them for a while."""
        ...
