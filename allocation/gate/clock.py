"""What time it should be at the gate: a clock that is set while the service runs must not end holds.

The clock of Redis is believed while it is within a tolerance of what this process expects from the time that
has passed. Outside, the edge of the tolerance counts, and the expectation follows by a tenth of the time that
passes: a wrong clock then makes holds a tenth shorter or longer, and one that was put right is met in the end.
"""

import time
from collections.abc import Callable

TOLERANCE_MS = 2_000
# How fast the expectation follows a clock that differs; also more than any clock drifts.
FOLLOWING_SHARE = 0.1


def _elapsed_seconds() -> float:
    # Time that the machine slept counts too.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class GateClock:
    """The time that this process expects at the gate, in ms since the epoch."""

    def __init__(self, elapsed_seconds: Callable[[], float] = _elapsed_seconds) -> None:
        self.offset_ms = 0
        self._elapsed_seconds = elapsed_seconds
        self._expected_ms: float | None = None
        self._expected_at = 0.0

    def begin(self, clock_ms: int) -> None:
        """Believe the first clock that is seen; there is nothing to compare it with."""
        if self._expected_ms is None:
            self._expect(clock_ms)

    def bounds(self) -> tuple[int, int]:
        """Give the earliest and the latest time that it may be at the gate now."""
        expected_ms = self._expected_now()
        return round(expected_ms) - TOLERANCE_MS, round(expected_ms) + TOLERANCE_MS

    def note(self, clock_ms: int, now_ms: int) -> None:
        """Learn what the clock of Redis showed in a call, and what time the gate went by."""
        expected_ms = self._expected_now()
        if now_ms > expected_ms + 2 * TOLERANCE_MS:
            # The gate's time never runs backwards, and it was later here before: it goes on from there.
            self._expect(now_ms)
            return
        passed_ms = 1_000 * (self._elapsed_seconds() - self._expected_at)
        self.offset_ms = round(clock_ms - expected_ms)
        most_ms = FOLLOWING_SHARE * passed_ms
        self._expect(expected_ms + max(-most_ms, min(most_ms, self.offset_ms)))

    def _expected_now(self) -> float:
        assert self._expected_ms is not None, "Bug: the gate's clock is asked before it was read"
        return self._expected_ms + 1_000 * (self._elapsed_seconds() - self._expected_at)

    def _expect(self, at_ms: float) -> None:
        self._expected_ms, self._expected_at = at_ms, self._elapsed_seconds()
