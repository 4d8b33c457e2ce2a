"""Asks shards, and says of a fault in the middle that more than nothing was done."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Protocol

from allocation.commands import Command, ReadReservation
from allocation.errors import NothingDone, OutcomeUnknown
from allocation.model import Reservation
from allocation.ports import Decision


class Shard(Protocol):
    """The pipeline of one shard."""

    def submit(self, command: Command) -> Awaitable[Decision]:
        """Ask for a decision. Raises NothingDone, at once or later, and OutcomeUnknown."""
        ...

    def require_open(self, command: Command) -> None:
        """Raise the NothingDone that a command would meet now."""
        ...


async def ask_each(
    shards: Sequence[Shard], commands: Iterable[tuple[int, Command]]
) -> list[Decision]:
    """Ask several shards at once, for what changes nothing. Raises the first fault, however soon it comes."""

    async def ask(shard: int, command: Command) -> Decision:
        return await shards[shard].submit(command)

    return await asyncio.gather(*[ask(shard, command) for shard, command in commands])


class Asking:
    """One work on several shards. After the first that may have changed something, a fault leaves the end open."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._something_done = False

    async def change(self, shard: int, command: Command) -> Decision:
        """Have one shard decide. Raises NothingDone for the first, and OutcomeUnknown."""
        try:
            return await self._shards[shard].submit(command)
        except NothingDone:
            if self._something_done:
                raise OutcomeUnknown from None
            raise
        finally:
            self._something_done = True

    async def read(self, shard: int, reservation_id: str) -> Reservation | None:
        """Read a leg; None where there is none, or was refused. Raises NothingDone and OutcomeUnknown."""
        try:
            return (await self._shards[shard].submit(ReadReservation(reservation_id))).record
        except NothingDone:
            if self._something_done:
                raise OutcomeUnknown from None
            raise
