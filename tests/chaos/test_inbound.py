"""The checker of deliveries: silent where each had its one effect, and not on a run that was spoiled."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from chaos.handmade import PLACE, SKU, Story
from chaos.inbound import deliveries_have_one_effect
from chaos.warehouse import SOURCE, UNKNOWN_SKU

from allocation.outcomes import Kind

Inbox = list[dict[str, Any]]


def _body(units: int, sku: str = SKU) -> dict[str, Any]:
    return {"kind": "receipt", "lines": [{"sku": sku, "location": PLACE, "quantity": units}]}


def _store(story: Story, delivery_id: str, body: dict[str, Any], state: str) -> dict[str, Any]:
    story.end(story.ask("deliver", delivery_id, body), "ok", {"duplicate": False})
    row = {
        "webhook_id": delivery_id,
        "body": msgspec.json.encode(body).decode(),
        "state": state,
        "reason": None,
        "is_other_body": False,
    }
    story.final["inbox"].append(row)
    return row


def _apply(story: Story, delivery_id: str) -> None:
    story.write(Kind.MOVED, f"{SOURCE}\x1f{delivery_id}", stock=[story.stock()])


def _good() -> Story:
    story = Story(units=5)
    story.final["inbox"] = []
    _store(story, "a", _body(1), "applied")
    _apply(story, "a")
    story.end(story.ask("deliver", "a", _body(1)), "ok", {"duplicate": True})
    _store(story, "b", _body(1, UNKNOWN_SKU), "dead")
    _store(story, "a", _body(2), "dead")["is_other_body"] = True
    story.end(story.ask("deliver", "c", _body(1)), "info")
    return story


def test_one_effect_each_is_green() -> None:
    """Repeats, dead letters and what was never taken are as they should be."""
    assert deliveries_have_one_effect(_good().record()) == []


def _lose(story: Story) -> None:
    story.end(story.ask("deliver", "d", _body(1)), "ok", {"duplicate": False})


def _apply_twice(story: Story) -> None:
    _apply(story, "a")


def _never_apply(story: Story) -> None:
    _store(story, "d", _body(1), "applied")


def _leave_waiting(story: Story) -> None:
    _store(story, "d", _body(1), "received")


def _give_up_what_was_good(story: Story) -> None:
    _store(story, "d", _body(1), "dead")


def _apply_a_dead_letter(story: Story) -> None:
    _apply(story, "b")


def _apply_what_was_not_taken(story: Story) -> None:
    _apply(story, "c")


def _store_what_nobody_sent(story: Story) -> None:
    story.final["inbox"][0]["body"] = msgspec.json.encode(_body(7)).decode()


def _store_twice(story: Story) -> None:
    story.final["inbox"].append(story.final["inbox"][0])


def _apply_the_other_body(story: Story) -> None:
    story.final["inbox"][2]["state"] = "applied"


def _forget_the_other_body(story: Story) -> None:
    del story.final["inbox"][2]


@pytest.mark.parametrize(
    "spoil",
    [
        _lose,
        _apply_twice,
        _never_apply,
        _leave_waiting,
        _give_up_what_was_good,
        _apply_a_dead_letter,
        _apply_what_was_not_taken,
        _store_what_nobody_sent,
        _store_twice,
        _apply_the_other_body,
        _forget_the_other_body,
    ],
)
def test_a_spoiled_inbox_is_red(spoil: Callable[[Story], None]) -> None:
    """Whatever else became of a delivery is a complaint."""
    story = _good()
    spoil(story)
    assert deliveries_have_one_effect(story.record()) != []
