"""Verifies a shard, records what was found, and mends it: by a rebuild, or by closing the shard for a person."""

import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from msgspec import Struct

from allocation.comparison import Drift
from allocation.errors import ChainBroken, Fenced, GateUnverified
from allocation.ports import Gate, Ledger
from allocation.takeover import take_over_and_rebuild
from allocation.verification import Round, Verification

ARM_ATTEMPTS = 5
# Where a rebuild did not help, the next one waits: each stops the sales, and what edits Redis will do so again.
PUT_OFF_SECONDS, PUT_OFF_SECONDS_MAX = 30.0, 600.0


class Findings(Protocol):
    """Where findings are kept. Raises LedgerUnavailable for every fault of the server."""

    async def take_turn(self) -> bool:
        """Say whether this process is the one that verifies the shard."""
        ...

    async def closed_reason(self) -> str | None:
        """Say why the shard was closed; None where it is open."""
        ...

    async def record(self, sequence: int, drifts: Sequence[Drift]) -> None:
        """Keep what was found at one entry."""
        ...

    async def close_shard(self, reason: str) -> int | None:
        """Fence every process; give an epoch for the gate that is nobody's."""
        ...


class Place(Enum):
    """What came of one look."""

    STANDING_BY = "another process verifies the shard"
    CLOSED = "the shard is closed"
    VERIFIED = "the gate has what the ledger tells"
    REBUILT = "the gate was made anew from the ledger"
    PUT_OFF = "the gate differs again after it was made anew, and waits to be made anew once more"


class Look(Struct, frozen=True):
    """What came of one look, with what was compared; no round where nothing was."""

    place: Place
    round: Round | None = None
    # Until it is rebuilt, where that was put off.
    wait_seconds: float = 0.0


class Finding(Struct, frozen=True):
    """Something that is not as it should be: differences of the gate, or why the ledger is broken."""

    sequence: int
    drifts: Sequence[Drift] = ()
    broken: str = ""


class Watch:
    """Looks after one shard, one process at a time."""

    def __init__(  # noqa: PLR0913 - what it joins, and what it goes by
        self,
        gate: Gate,
        ledger: Ledger,
        findings: Findings,
        verification: Verification,
        on_finding: Callable[[Finding], None],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gate, self._ledger, self._findings = gate, ledger, findings
        self._verification, self._on_finding = verification, on_finding
        self._now, self._rebuilds, self._next_rebuild_at = now, 0, 0.0

    async def run_once(self) -> Look:
        """Verify the shard once, if it is this process's turn, and mend what is found.

        Raises GateUnverified or LedgerUnavailable where that could not be done; do it again.
        """
        if not await self._findings.take_turn():
            return Look(Place.STANDING_BY)
        if await self._findings.closed_reason() is not None:
            # Whoever reopens it may have mended any entry.
            self._verification.forget()
            return Look(Place.CLOSED)
        try:
            found = await self._verification.run_round()
        except ChainBroken as broken:
            await self._close(broken)
            return Look(Place.CLOSED)
        if not found.drifts:
            self._rebuilds = 0
            return Look(Place.VERIFIED, found)
        wait_seconds = self._next_rebuild_at - self._now()
        if self._rebuilds > 0 and wait_seconds > 0:
            return Look(Place.PUT_OFF, found, wait_seconds)
        self._on_finding(Finding(found.sequence, found.drifts))
        await self._findings.record(found.sequence, found.drifts)
        await self._rebuild()
        return Look(Place.REBUILT, found)

    async def _rebuild(self) -> None:
        # Counted before it is tried: one that is cut off has stopped the sales too.
        pause = min(PUT_OFF_SECONDS_MAX, PUT_OFF_SECONDS * 2.0 ** min(self._rebuilds, 10))
        self._rebuilds, self._next_rebuild_at = self._rebuilds + 1, self._now() + pause
        try:
            await take_over_and_rebuild(
                self._gate,
                self._ledger,
                lambda _read, _through: None,
                accept_lost_entries=False,
            )
        except Fenced:
            # Another process has taken the shard over meanwhile; the next round looks at what it made.
            return

    async def _close(self, broken: ChainBroken) -> None:
        """Close the shard: a rebuild would only sell by what somebody wrote into the ledger."""
        self._on_finding(Finding(broken.sequence, broken=str(broken)))
        epoch = await self._findings.close_shard(str(broken))
        if epoch is None:
            return
        # From here on nothing can become durable. The gate is told too, so that it does not even decide.
        for _ in range(ARM_ATTEMPTS):
            try:
                state = await self._gate.present_state()
                if state is None or await self._gate.load_step("arm", epoch, *state[1:]):
                    return
            except GateUnverified:
                return
