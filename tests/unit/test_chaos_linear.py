"""The search for an order of events: it finds one where there is one, and says so where there is none."""

from collections.abc import Callable
from typing import Any

import pytest
from chaos import linear
from chaos.handmade import sent, told
from chaos.history import Attempt, Operation
from chaos.linear import GateClock, search

SKU = "SAMPLED-0"
SECOND_MS = 1_000


class Talk:
    """What customers ask and hear of one SKU, of which there are some units in NORTH; each line takes 10 ms."""

    def __init__(self, units: int = 2) -> None:
        self.attempts: list[Attempt] = []
        self.line, self.seconds = 0, 0.0
        # By how much the gate's clock is ahead of the customers'.
        self.ahead_ms = 0
        self.move("opening", "receipt", units)

    def ask(self, kind: str, key: str, body: Any = None) -> Attempt:
        operation = Operation(len(self.attempts) + 1, "client", kind, key, sent(body))
        attempt = Attempt(operation, "service-0", self.line, self.seconds)
        self.attempts.append(attempt)
        self._pass()
        return attempt

    def end(
        self, attempt: Attempt, verdict: str, answer: Any = None, slug: str = "", **more: Any
    ) -> None:
        attempt.completed_at, attempt.completed_seconds = self.line, self.seconds
        attempt.verdict, attempt.told, attempt.slug = verdict, told(answer), slug
        attempt.replayed = more.get("replayed", False)
        self._pass()

    def _pass(self) -> None:
        self.line += 1
        self.seconds += 0.01

    # Whole exchanges.

    def move(self, event: str, kind: str, units: int, names: str = "") -> None:
        lines = [{"sku": SKU, "quantity": units, "location": "NORTH"}]
        body = {"kind": kind, "lines": lines} | ({"reservation_id": names} if names else {})
        self.end(self.ask("move", event, body), "ok", {"applied": True})

    def ask_for(self, key: str, units: int, *others: str, ttl_seconds: int = 60) -> Attempt:
        lines = [{"sku": sku, "quantity": units} for sku in (SKU, *others)]
        return self.ask("reserve", key, {"lines": lines, "ttl_seconds": ttl_seconds})

    def hold(self, key: str, units: int, ttl_seconds: int = 60) -> None:
        self.grant(self.ask_for(key, units, ttl_seconds=ttl_seconds), units, ttl_seconds)

    def grant(self, attempt: Attempt, units: int, ttl_seconds: int = 60, **more: Any) -> None:
        now_ms = round(attempt.invoked_seconds * 1000) + self.ahead_ms
        ends_at_ms = now_ms + ttl_seconds * SECOND_MS
        self.end(attempt, "ok", _shown("held", units, ends_at_ms), **more)

    def refuse(self, attempt: Attempt, units: int, available: int) -> None:
        lines = [{"sku": SKU, "requested": units, "available": available}]
        self.end(attempt, "fail", {"lines": lines}, "insufficient-stock")

    def finish(self, kind: str, key: str, units: int) -> None:
        state = {"release": "released", "confirm": "committed"}[kind]
        self.end(self.ask(kind, key), "ok", _shown(state, units))

    def is_explained(self) -> bool:
        return search(SKU, self.attempts, GateClock(self.attempts)).complaint == ""


def _shown(state: str, units: int, ends_at_ms: int = 0) -> dict[str, Any]:
    shown = {"state": state, "lines": [{"sku": SKU, "quantity": units, "location": "NORTH"}]}
    if state != "held":
        return shown
    minutes, ms = divmod(ends_at_ms, 60 * SECOND_MS)
    moment = f"1970-01-01T00:{minutes:02}:{ms // 1000:02}.{ms % 1000:03}Z"
    return shown | {"expires_at": moment}


# What may be.


def _sell_one_after_the_other(talk: Talk) -> None:
    talk.hold("a", 2)
    talk.refuse(talk.ask_for("b", 1), 1, 0)
    talk.finish("release", "a", 2)
    talk.hold("c", 1)


def _answer_in_another_order(talk: Talk) -> None:
    talk.hold("a", 2)
    release, again = talk.ask("release", "a"), talk.ask_for("b", 2)
    talk.grant(again, 2)
    talk.end(release, "ok", _shown("released", 2))


def _do_what_nobody_heard_of(talk: Talk) -> None:
    talk.ask_for("a", 2)
    talk.refuse(talk.ask_for("b", 1), 1, 0)


def _do_it_late(talk: Talk) -> None:
    first = talk.ask_for("a", 2)
    talk.hold("b", 1)
    talk.finish("release", "b", 1)
    again = talk.ask("reserve", "a", first.operation.body)
    talk.grant(again, 2, replayed=True)


def _never_do_it(talk: Talk) -> None:
    talk.ask_for("a", 2)
    talk.hold("b", 2)


def _end_by_itself(talk: Talk) -> None:
    talk.hold("a", 2, ttl_seconds=1)
    talk.seconds += 2
    talk.hold("b", 2)


def _end_by_a_clock_that_is_ahead(talk: Talk) -> None:
    talk.hold("a", 2)
    talk.ahead_ms = 60 * SECOND_MS
    talk.hold("b", 2)


def _confirm_late(talk: Talk) -> None:
    talk.hold("a", 2, ttl_seconds=1)
    talk.seconds += 2
    talk.finish("confirm", "a", 2)
    talk.refuse(talk.ask_for("b", 1), 1, 0)


def _refuse_for_another_sku(talk: Talk) -> None:
    attempt = talk.ask_for("a", 1, "HOT-1")
    lines = [{"sku": "HOT-1", "requested": 1, "available": 0}]
    talk.end(attempt, "fail", {"lines": lines}, "insufficient-stock")
    talk.hold("b", 2)


def _send_off(talk: Talk) -> None:
    talk.hold("a", 2)
    talk.finish("confirm", "a", 2)
    talk.move("out", "shipment", 2, names="a")
    talk.refuse(talk.ask_for("b", 1), 1, 0)
    talk.move("in", "receipt", 1)
    talk.hold("c", 1)


@pytest.mark.parametrize(
    "tell",
    [
        _sell_one_after_the_other,
        _answer_in_another_order,
        _do_what_nobody_heard_of,
        _do_it_late,
        _never_do_it,
        _end_by_itself,
        _end_by_a_clock_that_is_ahead,
        _confirm_late,
        _refuse_for_another_sku,
        _send_off,
    ],
)
def test_what_may_be_is_explained(tell: Callable[[Talk], None]) -> None:
    """Answers that some order of events would give are no complaint."""
    talk = Talk()
    tell(talk)
    assert talk.is_explained()


# What may not.


def _sell_a_unit_twice(talk: Talk) -> None:
    talk.hold("a", 2)
    talk.hold("b", 1)


def _sell_a_unit_twice_at_once(talk: Talk) -> None:
    attempts = [talk.ask_for(key, 1) for key in "abc"]
    for attempt in attempts:
        talk.grant(attempt, 1)


def _refuse_though_units_are_free_throughout(talk: Talk) -> None:
    refused, held = talk.ask_for("a", 1), talk.ask_for("b", 1)
    talk.grant(held, 1)
    talk.refuse(refused, 1, 0)


def _refuse_by_another_figure(talk: Talk) -> None:
    talk.refuse(talk.ask_for("a", 5), 5, 1)


def _sell_before_it_was_given_back(talk: Talk) -> None:
    talk.hold("a", 2)
    talk.hold("b", 1)
    talk.finish("release", "a", 2)


def _give_back_twice(talk: Talk) -> None:
    talk.hold("a", 1)
    talk.hold("b", 1)
    talk.finish("release", "a", 1)
    talk.end(talk.ask("release", "a"), "ok", _shown("released", 1), replayed=True)
    talk.hold("c", 2)


def _end_before_the_deadline(talk: Talk) -> None:
    talk.hold("a", 2)
    talk.seconds += 30
    talk.hold("b", 1)


def _forget_a_hold(talk: Talk) -> None:
    talk.hold("a", 1)
    talk.end(talk.ask("read", "a"), "fail", slug="unknown-reservation")


def _do_twice_what_nobody_heard_of(talk: Talk) -> None:
    talk.ask_for("a", 1)
    talk.refuse(talk.ask_for("b", 1), 1, 0)


def _hold_again_what_was_released(talk: Talk) -> None:
    talk.hold("a", 1)
    talk.finish("release", "a", 1)
    talk.finish("confirm", "a", 1)


def _ship_and_keep(talk: Talk) -> None:
    talk.hold("a", 2)
    talk.finish("confirm", "a", 2)
    talk.move("out", "shipment", 2, names="a")
    talk.hold("b", 1)


def _count_goods_twice(talk: Talk) -> None:
    talk.move("in", "receipt", 1)
    lines = [{"sku": SKU, "quantity": 1, "location": "NORTH"}]
    again = talk.ask("move", "in", {"kind": "receipt", "lines": lines})
    talk.end(again, "ok", {"applied": True}, replayed=True)
    talk.hold("a", 4)


@pytest.mark.parametrize(
    "tell",
    [
        _sell_a_unit_twice,
        _sell_a_unit_twice_at_once,
        _refuse_though_units_are_free_throughout,
        _refuse_by_another_figure,
        _sell_before_it_was_given_back,
        _give_back_twice,
        _end_before_the_deadline,
        _forget_a_hold,
        _do_twice_what_nobody_heard_of,
        _hold_again_what_was_released,
        _ship_and_keep,
        _count_goods_twice,
    ],
)
def test_what_may_not_be_is_found(tell: Callable[[Talk], None]) -> None:
    """Answers that no order of events gives are a complaint that names a line."""
    talk = Talk()
    tell(talk)
    assert "no order of events" in search(SKU, talk.attempts, GateClock(talk.attempts)).complaint


def test_a_search_that_is_given_up_has_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many orders are never taken for a run that went well."""
    monkeypatch.setattr(linear, "TRIES", ((1_000_000, 2),))
    talk = Talk()
    _answer_in_another_order(talk)
    _sell_one_after_the_other(talk)
    assert search(SKU, talk.attempts, GateClock(talk.attempts)).complaint.startswith("unknown")
