"""Runs the verification of the shard round after round, and says what it finds."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from allocation.errors import EngineError
from allocation.watch import Finding, Look, Place

_LOGGER = logging.getLogger(__name__)

# How soon another process takes the turn over from one that has ended, and a reopened shard is looked at.
STAND_BY_SECONDS_MAX = 5.0
RETRY_SECONDS, RETRY_SECONDS_MAX = 0.2, 15.0
# A line of the log names so many; the table has them all.
NAMED_MAX = 3


class Watching:
    """The rounds of one process, `verify_seconds` from one start to the next."""

    def __init__(self, shard: int, verify_seconds: float) -> None:
        self.findings = 0
        self._shard, self._verify_seconds = shard, verify_seconds
        self._place: Place | None = None

    async def run(self, run_once: Callable[[], Awaitable[Look]]) -> None:
        """Look for ever."""
        pause = RETRY_SECONDS
        while True:
            started = time.monotonic()
            try:
                look = await run_once()
            except EngineError as fault:
                # A server that is away for an hour is one line, and not thousands.
                if pause == RETRY_SECONDS:
                    _LOGGER.warning("Shard %d could not be verified: %r.", self._shard, fault)
                await asyncio.sleep(pause)
                pause = min(RETRY_SECONDS_MAX, 2 * pause)
                continue
            pause = RETRY_SECONDS
            self._tell(look, time.monotonic() - started)
            await asyncio.sleep(self._wait_seconds(look, time.monotonic() - started))

    def note_finding(self, finding: Finding) -> None:
        """Say what was found, in one line."""
        self.findings += 1
        if finding.broken:
            _LOGGER.error(
                "Shard %d is closed, finding %d: %s", self._shard, self.findings, finding.broken
            )
            return
        named = ", ".join(f"{drift.key} {drift.field}" for drift in finding.drifts[:NAMED_MAX])
        _LOGGER.error(
            "Shard %d differs from its ledger at entry %d and is rebuilt, finding %d: %d fields, as %s.",
            self._shard,
            finding.sequence,
            self.findings,
            len(finding.drifts),
            named,
        )

    def _tell(self, look: Look, seconds: float) -> None:
        if look.place is Place.PUT_OFF and look.round is not None:
            _LOGGER.warning(
                "Shard %d differs again at entry %d, in %d fields, and is rebuilt in %.0f s at the earliest: "
                "find out what changes Redis beside this service.",
                self._shard,
                look.round.sequence,
                len(look.round.drifts),
                look.wait_seconds,
            )
        elif look.round is not None:
            _LOGGER.info(
                "Shard %d: %d records through entry %d in %.1f s: %s.",
                self._shard,
                look.round.records,
                look.round.sequence,
                seconds,
                look.place.value,
            )
        elif look.place is not self._place:
            _LOGGER.info("Shard %d: %s.", self._shard, look.place.value)
        self._place = look.place

    def _wait_seconds(self, look: Look, taken_seconds: float) -> float:
        if look.round is None:
            return min(STAND_BY_SECONDS_MAX, self._verify_seconds)
        return max(0.0, self._verify_seconds - taken_seconds)
