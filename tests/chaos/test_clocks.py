"""Sales go on while the clock of Redis is set and runs fast, and holds last as long as they were given for."""

from pathlib import Path

import pytest
from chaos.handmade import Story
from chaos.lasting import holds_last
from chaos.record import read_record
from chaos.summary import check
from chaos.test_chaos import ROOM, run_chaos

from allocation.outcomes import Kind

OPERATIONS, FAULTS, SEED = 300, 8, 11
CLOCK_SET = {"kind": "redis-clock", "began": 1.0, "ended": 1_000.0}


@pytest.mark.timeout(400)
def test_a_clock_that_is_set_ends_no_hold_and_keeps_none(tmp_path: Path) -> None:
    """With steps of a second to an hour, both ways, all checkers pass, and holds have expired meanwhile."""
    amounts = f"--operations={OPERATIONS}", f"--faults={FAULTS}", f"--room={ROOM}"
    out = tmp_path / "run"
    done = run_chaos("run", f"--seed={SEED}", *amounts, "--only=redis-clock", f"--out={out}")
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_record(out)
    assert any(row.kind == Kind.EXPIRED for row in record.rows)
    assert len({fault["note"] for fault in record.final["faults"]}) > 2
    assert check(out).holds


def _story() -> Story:
    story = Story(units=5)
    story.final["faults"] = [CLOCK_SET]
    return story


def _end_early(story: Story) -> None:
    story.reserve("f", ttl_seconds=60)
    story.at_ms += 60_000
    story.finish("expire", "f")
    # Only what is told later shows that it had ended by then.
    story.reserve("g")


def test_a_hold_that_lasts_is_no_complaint() -> None:
    """A hold that ends after its time, by any clock, is as it should be."""
    story = _story()
    story.reserve("f", ttl_seconds=2)
    story.at_ms += 2_000
    story.finish("expire", "f")
    assert holds_last(story.record()) == []


def test_a_hold_that_ends_early_by_the_clock_on_the_wall_is_red() -> None:
    """The ledger says that a minute has passed, and everybody else that it were seconds."""
    story = _story()
    _end_early(story)
    assert len(holds_last(story.record())) == 1


def test_a_hold_that_ends_late_by_the_clock_on_the_wall_is_red() -> None:
    """The ledger says that a second has passed, and everybody else that it was a minute."""
    story = _story()
    story.reserve("f", ttl_seconds=1)
    story._line += 60
    story.reserve("g")
    story.at_ms += 1_000
    story.finish("expire", "f")
    assert len(holds_last(story.record())) == 1


@pytest.mark.parametrize(("started", "promised"), [(0.5, False), (2_000.0, True)])
def test_who_starts_with_a_wrong_clock_believes_it(started: float, *, promised: bool) -> None:
    """Where a process began while a clock was wrong, nothing is promised; where later, all is."""
    story = _story()
    story.final["starts"] = {"service-0": [started]}
    _end_early(story)
    assert bool(holds_last(story.record())) is promised
