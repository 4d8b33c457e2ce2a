"""What time the gate may believe it is, when clocks are set or drift."""

from allocation.gate.clock import TOLERANCE_MS, GateClock

NOON_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


class Elapsed:
    """The time that has passed, as the test says."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def begun() -> tuple[GateClock, Elapsed]:
    """Give a clock that was read at noon."""
    elapsed = Elapsed()
    clock = GateClock(elapsed)
    clock.begin(NOON_MS)
    return clock, elapsed


def test_time_that_passes_moves_the_bounds() -> None:
    """What is expected goes on by itself, also while nobody calls."""
    clock, elapsed = begun()
    elapsed.seconds = 60
    assert clock.bounds() == (NOON_MS + 60_000 - TOLERANCE_MS, NOON_MS + 60_000 + TOLERANCE_MS)


def test_only_the_first_clock_is_believed_blindly() -> None:
    """A promoted replica, whose clock is another, is read within the bounds of the first."""
    clock, _ = begun()
    clock.begin(NOON_MS + HOUR_MS)
    assert clock.bounds() == (NOON_MS - TOLERANCE_MS, NOON_MS + TOLERANCE_MS)


def test_a_clock_that_drifts_is_followed() -> None:
    """One part in a hundred, for an hour, is never outside the bounds."""
    clock, elapsed = begun()
    for second in range(1, 3_600):
        elapsed.seconds = second
        shown_ms = round(NOON_MS + second * 1_010)
        earliest_ms, latest_ms = clock.bounds()
        assert earliest_ms < shown_ms < latest_ms
        clock.note(shown_ms, shown_ms)


def test_a_clock_that_was_set_is_met_slowly() -> None:
    """After a jump of a minute the expectation follows by a tenth of the time that passes, then stays."""
    for jump_ms in (60_000, -60_000):
        clock, elapsed = begun()
        for second in range(1, 301):
            elapsed.seconds = second
            earliest_ms, latest_ms = clock.bounds()
            shown_ms = NOON_MS + second * 1_000 + jump_ms
            clock.note(shown_ms, max(earliest_ms, min(shown_ms, latest_ms)))
        assert abs(clock.offset_ms - jump_ms // 2) <= 200
        for second in range(301, 1_000):
            elapsed.seconds = second
            shown_ms = NOON_MS + second * 1_000 + jump_ms
            clock.note(shown_ms, shown_ms if jump_ms < 0 else NOON_MS)
        assert clock.offset_ms == 0


def test_many_calls_at_the_edge_do_not_add_up() -> None:
    """A wrong clock gains a tolerance once, not with every call."""
    clock, elapsed = begun()
    for call in range(10_000):
        elapsed.seconds = call / 1_000
        _, latest_ms = clock.bounds()
        clock.note(NOON_MS + HOUR_MS, latest_ms)
    assert clock.bounds()[1] <= NOON_MS + 10_000 + 1_000 + TOLERANCE_MS


def test_a_gate_that_was_ahead_already_is_gone_on_from() -> None:
    """Its time cannot run backwards, so it goes on from where it was, and does not stand still."""
    clock, elapsed = begun()
    clock.note(NOON_MS, NOON_MS + HOUR_MS)
    elapsed.seconds = 30
    earliest_ms, _ = clock.bounds()
    assert earliest_ms == NOON_MS + HOUR_MS + 30_000 - TOLERANCE_MS
