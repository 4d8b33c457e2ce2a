"""One seed of the trade over several shards of a Redis Cluster, with every kind of fault, and its checkers."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chaos.record import Row
from cluster_chaos.checkers import CHECKERS, verdicts
from cluster_chaos.plan import KINDS, SHARDS, draw_plan
from cluster_chaos.record import FINAL_NAME, Whole, read_whole, shards_of
from cluster_chaos.shoppers import CLIENTS
from msgspec import structs

from allocation.outcomes import Kind, State

SEED, OPERATIONS, FAULTS = 1, 800, len(KINDS)
# Limits of time are for a machine of one's own; here only endless waiting is a failure.
ROOM = 6.0
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Run the seed, once."""
    out = tmp_path_factory.mktemp("cluster-chaos") / str(SEED)
    amounts = f"--operations={OPERATIONS}", f"--faults={FAULTS}", f"--room={ROOM}"
    done = subprocess.run(
        [sys.executable, "-m", "cluster_chaos", "run", f"--seed={SEED}", *amounts, f"--out={out}"],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        check=False,
        text=True,
    )
    assert (out / FINAL_NAME).exists(), done.stdout + done.stderr
    return read_whole(out)


@pytest.mark.timeout(400)
def test_carts_over_several_shards_stay_whole_whatever_breaks(whole: Whole) -> None:
    """Under every kind of fault all checkers pass."""
    assert {name: found for name, found in verdicts(whole).items() if found} == {}


def test_the_run_has_tried_what_it_was_for(whole: Whole) -> None:
    """Every kind of fault struck, shards were taken over, and most carts lay on several of them."""
    assert {fault["kind"] for fault in whole.final["faults"]} == set(KINDS)
    assert sum(head["epoch"] - 1 for head in whole.final["heads"]) >= 4
    carts = [one.operation.body for one in whole.attempts if one.operation.kind == "reserve"]
    wide = [body for body in carts if len(shards_of(body)) > 1]
    assert len(wide) >= len(carts) / 2 >= CLIENTS
    assert all(record.rows for record in whole.shards)


def test_a_plan_is_drawn_from_its_seed() -> None:
    """The same seed has the same faults, each kind before any comes again."""
    plan = draw_plan(5, 1_000, 20, tuple(KINDS))
    assert plan == draw_plan(5, 1_000, 20, tuple(KINDS))
    assert plan != draw_plan(6, 1_000, 20, tuple(KINDS))
    assert {fault.kind for fault in plan[: len(KINDS)]} == set(KINDS)


# Each forges what was written down, so that one thing in it is wrong.


def _without(whole: Whole, is_lost: Callable[[int, Row], bool]) -> Whole:
    """Give the run with some rows of its ledgers lost."""
    ledgers = [
        [row for row in record.rows if not is_lost(shard, row)]
        for shard, record in enumerate(whole.shards)
    ]
    return Whole(whole.attempts, ledgers, whole.final, whole.logs)


def _wide(whole: Whole, operation: str, kind: Kind) -> tuple[str, int]:
    """Find something that was acknowledged and is on several shards, where the last word is; give one shard."""
    return next(
        (key, min(whole.took(key, kind)))
        for (of, key), attempts in whole.by_key.items()
        if of == operation
        and any(attempt.verdict == "ok" for attempt in attempts)
        and not attempts[0].operation.body.get("partial")
        and len(whole.took(key, kind)) > 1
        and set(whole.last(key).values()) <= {State.COMMITTED}
    )


def test_a_leg_that_is_lost_is_seen(whole: Whole) -> None:
    """What was acknowledged must be on every shard that has a part of it."""
    key, lost = _wide(whole, "order", Kind.ORDERED)
    forged = _without(whole, lambda shard, row: (shard, row.key) == (lost, key))
    assert CHECKERS["C2 no lost acknowledgement"](forged)
    assert CHECKERS["C8 the ledgers are whole"](forged)
    assert CHECKERS["C10 carts are whole over shards"](forged)


def test_half_a_confirmation_is_seen(whole: Whole) -> None:
    """A cart is committed on every shard, or on none."""
    key, lost = _wide(whole, "confirm", Kind.COMMITTED)
    forged = _without(
        whole, lambda shard, row: (shard, row.key, row.kind) == (lost, key, Kind.COMMITTED)
    )
    assert CHECKERS["C2 no lost acknowledgement"](forged)
    assert CHECKERS["C10 carts are whole over shards"](forged)


def test_half_a_movement_is_seen(whole: Whole) -> None:
    """Goods that came are counted on every shard."""
    key, lost = _wide(whole, "move", Kind.MOVED)
    forged = _without(whole, lambda shard, row: (shard, row.key) == (lost, key))
    assert CHECKERS["C2 no lost acknowledgement"](forged)


def test_a_leg_that_was_not_given_back_is_seen(whole: Whole) -> None:
    """A cart that was refused on one shard is held on none."""
    key = next(
        key
        for kind, key in whole.rows
        if kind is Kind.REFUSED
        and whole.took(key, Kind.HELD)
        and whole.took(key, Kind.RELEASED)
        and not whole.by_key["reserve", key][0].operation.body.get("partial")
    )
    ends = {Kind.RELEASED, Kind.EXPIRED}
    forged = _without(whole, lambda _, row: row.key == key and row.kind in ends)
    assert CHECKERS["C10 carts are whole over shards"](forged)


def test_what_was_done_though_it_was_denied_is_seen(whole: Whole) -> None:
    """An answer that says that nothing was done is held to it."""
    key, _ = _wide(whole, "move", Kind.MOVED)
    denied = [
        structs.replace(attempt, verdict="fail", slug="ledger-unavailable")
        if attempt.operation.key == key
        else attempt
        for attempt in whole.attempts
    ]
    forged = Whole(denied, [record.rows for record in whole.shards], whole.final, whole.logs)
    assert CHECKERS["C4 no effect without cause"](forged)


@pytest.mark.parametrize(
    ("checker", "forgery"),
    [
        ("C9 gate, ledger and HTTP agree", {"audits": [["a difference"], *[[]] * (SHARDS - 1)]}),
        ("C9 gate, ledger and HTTP agree", {"settled_seconds": None}),
        ("C13 every shard sells again", {"sold_again_seconds": [0.1] * (SHARDS - 1) + [None]}),
        ("C15 clean logs", {"exit_statuses": {"service-0": [1]}}),
    ],
)
def test_a_bad_end_is_seen(whole: Whole, checker: str, forgery: dict[str, Any]) -> None:
    """What the last look has found counts."""
    assert not CHECKERS[checker](whole)
    ledgers = [record.rows for record in whole.shards]
    assert CHECKERS[checker](Whole(whole.attempts, ledgers, whole.final | forgery, whole.logs))
