"""The ledger as far as it was read: folded, with every link of its chain of hashes checked."""

import asyncio
import time
from typing import Protocol

import msgspec

from allocation.checkpoints import read_state
from allocation.comparison import ComparedState
from allocation.errors import ChainBroken, CheckpointDamaged, LedgerUnavailable
from allocation.folding import FoldedState
from allocation.journal import GENESIS_HASH, chain
from allocation.ports import Head, Ledger

PAGE_ENTRIES = 1_000
# What the gate has decided is in the ledger within milliseconds, unless nobody can append.
FOLLOW_SECONDS_MAX = 10.0
LOOK_SECONDS = 0.01


class ReadLedger(Protocol):
    """What is read of the ledger. Raises LedgerUnavailable for every fault of the server."""

    async def head(self) -> Head:
        """Read where the ledger ends."""
        ...

    async def read_with_hash(self, after_sequence: int, limit: int) -> list[tuple[int, str, bytes]]:
        """Read entries in order: sequence, hash and body."""
        ...

    async def hash_at(self, sequence: int) -> str | None:
        """Give the hash of one entry."""
        ...


class CheckpointedLedger(ReadLedger, Ledger, Protocol):
    """A ledger that has checkpoints beside it."""


class History:
    """One shard's ledger up to `sequence`: the state that it tells there, and the hash of its last entry."""

    def __init__(
        self,
        ledger: ReadLedger,
        state: ComparedState | None = None,
        sequence: int = 0,
        last_hash: str = GENESIS_HASH,
    ) -> None:
        self.state = state or ComparedState()
        self.sequence, self.last_hash = sequence, last_hash
        # What the reading has taken of this process, which grows with the sales and with nothing else.
        self.cpu_seconds = 0.0
        self._ledger = ledger
        self._again: int = 0
        self._again_through: int = 0
        self._again_hash = self._again_through_hash = GENESIS_HASH

    async def follow(self, through_sequence: int) -> None:
        """Read on, exactly through one entry; wait a little for what is being appended.

        Raises ChainBroken where an entry is missing or altered, and LedgerUnavailable where it does not come.
        """
        give_up_at = time.monotonic() + FOLLOW_SECONDS_MAX
        while self.sequence < through_sequence:
            rows = await self._rows_after(self.sequence, through_sequence - self.sequence)
            started = time.process_time()
            for sequence, stored_hash, body in rows:
                _require_link(self.sequence, self.last_hash, (sequence, stored_hash, body))
                self._fold(sequence, body)
                self.sequence, self.last_hash = sequence, stored_hash
            self.cpu_seconds += time.process_time() - started
            if not rows:
                if time.monotonic() > give_up_at:
                    raise LedgerUnavailable
                await asyncio.sleep(LOOK_SECONDS)

    async def read_again(self, entries_max: int) -> None:
        """Check some of what was read before once more, from the first entry to the last and round again.

        Raises ChainBroken where an entry has been altered since.
        """
        if self._again == self._again_through:
            self._again, self._again_hash = 0, GENESIS_HASH
            self._again_through, self._again_through_hash = self.sequence, self.last_hash
        left = self._again_through - self._again
        if left == 0:
            return
        rows = await self._rows_after(self._again, min(entries_max, left))
        for row in rows:
            _require_link(self._again, self._again_hash, row)
            self._again, self._again_hash = row[0], row[1]
        if self._again == self._again_through and self._again_hash != self._again_through_hash:
            raise ChainBroken(self._again, "has another hash than it had")

    async def is_still_told(self) -> bool:
        """Say whether the ledger still has the last entry that was read, as it was."""
        if self.sequence == 0:
            return True
        return await self._ledger.hash_at(self.sequence) == self.last_hash

    async def _rows_after(self, sequence: int, count: int) -> list[tuple[int, str, bytes]]:
        """Read a page. Raises ChainBroken where there is none though the ledger goes on."""
        limit = min(PAGE_ENTRIES, count)
        rows = await self._ledger.read_with_hash(sequence, limit)
        if rows or (await self._ledger.head()).last_sequence <= sequence:
            return rows
        # They came between the two looks, or they are missing.
        rows = await self._ledger.read_with_hash(sequence, limit)
        if not rows:
            raise ChainBroken(sequence + 1, "is missing")
        return rows

    def _fold(self, sequence: int, body: bytes) -> None:
        try:
            self.state.apply(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ChainBroken(sequence, "is no journal entry") from None


async def history_from_checkpoint(ledger: CheckpointedLedger) -> History:
    """Give the ledger as the newest usable checkpoint has it, so that only the entries after it need to be read.

    What was before it, `read_again` checks little by little. Raises LedgerUnavailable.
    """
    head = await ledger.head()
    for checkpoint in await ledger.checkpoints(head.last_sequence):
        try:
            state = ComparedState.of(await read_state(ledger, checkpoint))
        except CheckpointDamaged:
            continue
        return History(ledger, state, checkpoint.sequence, checkpoint.last_hash)
    return History(ledger)


async def is_broken_at(ledger: ReadLedger, sequence: int) -> bool:
    """Look once more whether an entry does not continue the one before it.

    A ledger whose server was replaced by a standby may tell another history than was read, and a sound one.
    """
    if (await ledger.head()).last_sequence < sequence:
        return False
    rows = {row[0]: row for row in await ledger.read_with_hash(max(0, sequence - 2), 2)}
    before = (
        GENESIS_HASH if sequence == 1 else rows[sequence - 1][1] if sequence - 1 in rows else ""
    )
    try:
        if sequence not in rows:
            return True
        _require_link(sequence - 1, before, rows[sequence])
        FoldedState().apply(rows[sequence][2])
    except (ChainBroken, msgspec.MsgspecError, UnicodeDecodeError):
        return True
    return False


def _require_link(before: int, hash_before: str, row: tuple[int, str, bytes]) -> None:
    sequence, stored_hash, body = row
    if sequence != before + 1:
        raise ChainBroken(before + 1, "is missing")
    if chain(hash_before, body) != stored_hash:
        raise ChainBroken(sequence, "does not have its hash")
