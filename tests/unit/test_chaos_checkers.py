"""The checkers of the chaos runs: silent on a run that went well, and not on one that was spoiled."""

from collections.abc import Callable
from typing import Any

import pytest
from chaos.checkers import CHECKERS, verdicts
from chaos.handmade import SKU, Story, cart, sent
from chaos.history import judge
from chaos.logs import complaints_of
from chaos.record import Record, Row
from msgspec.structs import replace

from allocation.model import Stock
from allocation.outcomes import Kind


def _good() -> Story:
    story = Story(units=5)
    story.reserve("a")
    story.reserve("b", 3)
    story.refuse("c", 3)
    story.finish("confirm", "a")
    story.reserve("d", ttl_seconds=1)
    story.at_ms += 2_000
    story.finish("expire", "d")
    story.reserve("e")
    story.finish("release", "e")
    return story


def _red(record: Record) -> set[str]:
    return {name.split()[0] for name, complaints in verdicts(record).items() if complaints}


def _respoken(rows: list[Row], index: int, **changes: Any) -> list[Row]:
    return [*rows[:index], replace(rows[index], **changes), *rows[index + 1 :]]


def test_a_good_run_is_green() -> None:
    """No checker complains of a run in which everything went as it should."""
    assert verdicts(_good().record()) == {name: [] for name in CHECKERS}


def _oversell(story: Story) -> None:
    story.reserve("f", 4)


def _hold_for_nobody(story: Story) -> None:
    story.reserve("f")
    story.attempts.pop()


def _lose_a_hold(story: Story) -> None:
    story.reserve("f")
    story.entries.pop()
    story.epochs.pop()
    story.reserved -= 1


def _hold_twice(story: Story) -> None:
    story.reserve("f", 1)
    story.entries.append(story.entries[-1])
    story.epochs.append(1)


def _tell_twice_that_it_is_new(story: Story) -> None:
    first = story.reserve("f")
    again = story.ask("reserve", "f", first.operation.body)
    story.end(again, "ok", first.answer)
    again.status = 201


def _deny_what_was_done(story: Story) -> None:
    attempt = story.reserve("f")
    attempt.verdict, attempt.slug, attempt.told = "fail", "ledger-unavailable", b"null"


def _deny_what_is_a_repeat_to_the_next(story: Story) -> None:
    held = story.reserve("f")
    again = story.end(story.ask("reserve", "f", held.operation.body), "ok", held.answer)
    again.replayed = True
    held.verdict, held.slug, held.told = "fail", "gate-unverified", b"null"


def _hold_the_body_that_was_refused(story: Story) -> None:
    story.reserve("f")
    attempt = story.ask("reserve", "f", cart(2))
    story.end(attempt, "info")
    story.attempts[-2].verdict = "fail"
    story.attempts[-2].slug = "idempotency-mismatch"


def _leave_unresolved(story: Story) -> None:
    story.final["unresolved"] = [7]


def _hold_half_a_cart(story: Story) -> None:
    attempt = story.reserve("f")
    attempt.operation = replace(attempt.operation, sent=sent(cart(2)))


def _carry_another_figure(story: Story) -> None:
    story.reserve("f")
    story.entries[-1].stock[0] = (SKU, Stock(story.next - 1, ("NORTH", 9, 0, 0, 0, 0, 0, 0)))


def _refuse_what_was_there(story: Story) -> None:
    story.refuse("f", 1)


def _refuse_while_a_hold_is_overdue(story: Story) -> None:
    story.reserve("f", ttl_seconds=1)
    story.at_ms += 1_500
    story.refuse("g", 3)
    story.finish("expire", "f")


def _expire_early(story: Story) -> None:
    story.reserve("f")
    story.finish("expire", "f")


def _forget_to_expire(story: Story) -> None:
    story.reserve("f", ttl_seconds=1)
    story.at_ms += 60_000


def _go_back_in_time(story: Story) -> None:
    story.reserve("f")
    story.entries[-1] = replace(story.entries[-1], at_ms=story.entries[-1].at_ms - 500)


def _go_back_an_epoch(story: Story) -> None:
    story.epochs[2] = 2


def _read_the_past(story: Story) -> None:
    held = story.reserve("f")
    story.finish("release", "f")
    story.end(story.ask("read", "f"), "ok", held.answer)


def _read_the_future(story: Story) -> None:
    early = story.end(story.ask("read", "f"), "ok")
    story.reserve("f")
    early.told = story.finish("release", "f").told


def _deny_what_was_told(story: Story) -> None:
    story.reserve("f")
    story.end(story.ask("read", "f"), "fail", slug="unknown-reservation")


def _decide_before_it_was_asked(story: Story) -> None:
    story.reserve("f")
    story.reserve("g")
    first, second = story.entries[-2:]
    story.entries[-2:] = [replace(second, at_ms=first.at_ms), replace(first, at_ms=second.at_ms)]


def _lose_a_unit_in_a_figure(story: Story) -> None:
    told = story.told_stock()
    told["version"] = story.figures()[SKU]["version"]
    told["locations"][0]["available"] -= 1
    story.end(story.ask("stock", SKU), "ok", told)


def _promise_too_much(story: Story) -> None:
    item = {"sku": SKU, "available": 2, "version": story.figures()[SKU]["version"]}
    story.end(story.ask("availability", SKU), "ok", {"items": [item]})


def _never_sell_again(story: Story) -> None:
    story.final["faults"] = [{"ended": 10_000.0}]


def _never_be_ready(story: Story) -> None:
    story.final["ready_seconds"] = None


def _end_badly(story: Story) -> None:
    story.final["exit_statuses"] = {"service-0": [0, 1]}


def _end_while_serving(story: Story) -> None:
    last = story.attempts[-1].completed_seconds
    ended = {"started": 0.0, "ended": last + 1.0, "status": 1}
    story.final["ended_by_themselves"] = {"service-0": [ended]}


SPOILED: dict[Callable[[Story], None], str] = {
    _oversell: "C1",
    _lose_a_hold: "C2",
    _hold_twice: "C3",
    _tell_twice_that_it_is_new: "C3",
    _hold_for_nobody: "C4",
    _deny_what_was_done: "C4",
    _deny_what_is_a_repeat_to_the_next: "C4",
    _hold_the_body_that_was_refused: "C4",
    _leave_unresolved: "C4",
    _carry_another_figure: "C5",
    _refuse_while_a_hold_is_overdue: "C5",
    _read_the_past: "C6",
    _read_the_future: "C6",
    _deny_what_was_told: "C6",
    _decide_before_it_was_asked: "C6",
    _go_back_in_time: "C8",
    _go_back_an_epoch: "C8",
    _never_be_ready: "C9",
    _hold_half_a_cart: "C10",
    _lose_a_unit_in_a_figure: "C11",
    _promise_too_much: "C11",
    _expire_early: "C12",
    _forget_to_expire: "C12",
    _never_sell_again: "C13",
    _end_badly: "C15",
    _end_while_serving: "C15",
}


@pytest.mark.parametrize(("spoil", "checker"), SPOILED.items())
def test_a_spoiled_run_is_red(spoil: Callable[[Story], None], checker: str) -> None:
    """Each way of going wrong is found by the checker that is there for it."""
    story = _good()
    spoil(story)
    assert checker in _red(story.record())


def test_a_refusal_of_what_is_there_is_red() -> None:
    """The model finds a refusal though the units were there."""
    story = _good()
    story.refuse("f", 1)
    assert "C5" in _red(story.record())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows[:3] + rows[4:],
        lambda rows: _respoken(rows, 4, body=rows[5].body),
        lambda rows: _respoken(rows, 4, hash="0" * 40),
        lambda rows: _respoken(rows, 4, kind=int(Kind.RELEASED)),
    ],
    ids=["gap", "other body", "other hash", "other column"],
)
def test_a_broken_ledger_is_red(spoil: Callable[[list[Row]], list[Row]]) -> None:
    """A missing row, and one that was changed by hand, break the chain."""
    story = _good()
    assert "C8" in _red(story.record(spoil(story.rows())))


def test_a_head_that_is_not_the_end_is_red() -> None:
    """The head names the last row and its hash."""
    record = _good().record()
    record.final["head"] = record.final["head"] | {"last_sequence": 3}
    assert "C8" in _red(record)


@pytest.mark.parametrize("part", ["stock", "reservations", "events", "configuration"])
def test_a_gate_that_lacks_a_record_is_red(part: str) -> None:
    """The gate holds, byte for byte, what the ledger folds to."""
    record = _good().record()
    record.final["gate"][part].popitem()
    assert "C9" in _red(record)


@pytest.mark.parametrize("part", ["deadlines", "moves"])
def test_a_gate_that_waits_for_something_else_is_red(part: str) -> None:
    """So do the deadlines and the movements that it remembers."""
    record = _good().record()
    record.final["gate"][part] = [("x", 1)] if part == "deadlines" else ["x"]
    assert "C9" in _red(record)


def test_a_service_with_another_figure_is_red() -> None:
    """Every service says in the end what the ledger says."""
    record = _good().record()
    record.final["figures"]["service-0"][SKU]["locations"][0]["reserved"] += 1
    assert "C9" in _red(record)


def test_a_hold_may_end_after_the_figures_were_read() -> None:
    """Figures are compared at their version; one that was old when it was read is red all the same."""
    story = _good()
    story.reserve("f", ttl_seconds=1)
    figures, read_ms = story.figures(), story.at_ms
    story.at_ms += 2_000
    story.finish("expire", "f")
    record = story.record()
    record.final |= {"figures": {"service-0": figures}, "figures_read_ms": read_ms}
    assert _red(record) == set()
    record.final["figures_read_ms"] = read_ms + 60_000
    assert _red(record) == {"C9"}


def test_a_start_that_meets_an_outage_is_no_complaint() -> None:
    """A service may end before it has answered anybody: its stores were away, and it is started again."""
    story = _good()
    ended = {"started": 1_000.0, "ended": 1_001.0, "status": 1}
    story.final["ended_by_themselves"] = {"service-0": [ended]}
    assert _red(story.record()) == set()


def test_a_first_success_that_comes_late_is_red() -> None:
    """Five seconds after the last fault somebody has succeeded."""
    story = _good()
    last = story.attempts[-1]
    story.final["faults"] = [{"ended": last.completed_seconds - 0.5}]
    assert "C13" not in _red(story.record())
    last.completed_seconds += 6.0
    assert "C13" in _red(story.record())


@pytest.mark.parametrize(
    ("status", "found", "verdict"),
    [
        (201, {}, "ok"),
        (409, {"type": "/problems/insufficient-stock", "done": "nothing"}, "fail"),
        (503, {"type": "/problems/ledger-unavailable", "done": "nothing"}, "fail"),
        (503, {"type": "/problems/outcome-unknown", "done": "unknown"}, "info"),
        (500, {"type": "/problems/internal-error", "done": "unknown"}, "info"),
        (503, {"type": "/problems/outcome-unknown", "done": "nothing"}, "info"),
        (409, {"type": "/problems/insufficient-stock", "done": "unknown"}, "info"),
        (502, "Bad gateway", "info"),
    ],
)
def test_only_a_promise_that_nothing_was_done_is_a_failure(
    status: int, found: object, verdict: str
) -> None:
    """Whatever an answer does not promise is not known."""
    assert judge(status, found)[0] == verdict


OUTAGE = """The worker inbound met a fault and goes on.
Traceback (most recent call last):
  File "loop.py", line 66, in _run
    done = await self._run_once()
ConnectionResetError: [Errno 104] Connection reset by peer
"""


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("", True),
        (OUTAGE, True),
        (OUTAGE.replace("ConnectionResetError", "asyncpg.exceptions.QueryCanceledError"), True),
        (OUTAGE.replace("ConnectionResetError", "asyncpg.exceptions.UndefinedTableError"), False),
        (OUTAGE.replace("ConnectionResetError", "KeyError"), False),
        (OUTAGE.replace("The worker inbound met a fault and goes on.", "Oh."), False),
        ("Task exception was never retrieved", False),
        ("AssertionError: Bug: decisions of two epochs at once", False),
    ],
)
def test_only_an_outage_explains_a_traceback(text: str, clean: bool) -> None:
    """A worker may say that a server is away; everything else in a log is a bug."""
    assert (complaints_of(text) == []) is clean
