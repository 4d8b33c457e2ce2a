"""The durable entries of one shard, in order and without a gap, for whoever follows them."""

import asyncio
from collections import deque
from collections.abc import Callable

from allocation.errors import Diverged, LedgerUnavailable
from allocation.ports import Ledger

PENDING_ENTRIES_MAX = 50_000
READ_ENTRIES = 1_000
RETRY_SECONDS = 0.2

Follower = Callable[[int, bytes], None]


class Feed:
    """Hands every durable entry to each follower once: from memory, or where some are missing from the ledger.

    Entries are missing where another process appended them, and where this one had too many pending.
    """

    def __init__(self) -> None:
        self._ledger: Ledger | None = None
        self._pending: deque[tuple[int, bytes]] = deque()
        self._followers: list[Follower] = []
        self._awake = asyncio.Event()
        self.sequence = 0
        self._durable_sequence = 0

    def begin(self, ledger: Ledger, sequence: int) -> None:
        """Start behind `sequence` of a ledger; before `run`."""
        self._ledger = ledger
        self.sequence = self._durable_sequence = sequence

    def follow(self, follower: Follower) -> None:
        """Call `follower` with sequence and body of every entry from now on. It must be quick."""
        self._followers.append(follower)

    def unfollow(self, follower: Follower) -> None:
        """Leave a follower alone."""
        self._followers.remove(follower)

    def note_durable(self, last_sequence: int, first_sequence: int, bodies: list[bytes]) -> None:
        """Learn that the ledger reaches to `last_sequence`, and perhaps what is in it."""
        self._durable_sequence = max(self._durable_sequence, last_sequence)
        if len(self._pending) < PENDING_ENTRIES_MAX:
            self._pending.extend(enumerate(bodies, first_sequence))
        self._awake.set()

    async def run(self) -> None:
        """Hand entries on, for ever.

        Raises Diverged where the ledger lacks an entry, and whatever a follower raises: whoever runs it must
        end the process, since what follows the feed would stay behind for ever.
        """
        while True:
            await self._awake.wait()
            self._awake.clear()
            try:
                await self._hand_on_all()
            except LedgerUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
                self._awake.set()

    async def _hand_on_all(self) -> None:
        while self.sequence < self._durable_sequence:
            self._hand_on_pending()
            if self.sequence < self._durable_sequence:
                await self._hand_on_stored()
            # Followers must not keep requests waiting.
            await asyncio.sleep(0)

    def _hand_on_pending(self) -> None:
        for _ in range(min(len(self._pending), READ_ENTRIES)):
            if self._pending[0][0] > self.sequence + 1:
                return
            self._hand_on(*self._pending.popleft())

    async def _hand_on_stored(self) -> None:
        assert self._ledger is not None, "Bug: a feed that runs before it begins"
        wanted = self.sequence + 1
        for sequence, body in await self._ledger.read(self.sequence, READ_ENTRIES):
            self._hand_on(sequence, body)
        if self.sequence < wanted:
            raise Diverged(f"The ledger has no entry {wanted} any more.")

    def _hand_on(self, sequence: int, body: bytes) -> None:
        if sequence != self.sequence + 1:
            return
        self.sequence = sequence
        for follower in self._followers:
            follower(sequence, body)
