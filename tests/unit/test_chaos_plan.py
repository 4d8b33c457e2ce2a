"""The plan of a chaos run: the same for the same seed, and never without a kind."""

from chaos.plan import KINDS, draw_plan


def test_a_seed_draws_one_plan() -> None:
    """The same seed plans the same faults; another seed others."""
    assert draw_plan(7, 1_000, 30) == draw_plan(7, 1_000, 30)
    assert draw_plan(7, 1_000, 30) != draw_plan(8, 1_000, 30)


def test_every_kind_comes_before_any_comes_again() -> None:
    """A plan that is long enough has every kind of fault."""
    for seed in range(20):
        plan = draw_plan(seed, 1_000, len(KINDS))
        assert sorted(fault.kind for fault in plan) == sorted(KINDS)


def test_faults_come_in_the_order_in_which_they_strike() -> None:
    """Each begins while there are operations left, no earlier than the one before."""
    for seed in range(20):
        moments = [fault.at_operation for fault in draw_plan(seed, 1_000, 40)]
        assert moments == sorted(moments)
        assert 0 < moments[0] <= moments[-1] < 1_000


def test_some_faults_strike_together() -> None:
    """Over many seeds a good part of the faults strikes together with another."""
    plans = [draw_plan(seed, 10_000, 40) for seed in range(20)]
    alone = sum(len({fault.at_operation for fault in plan}) for plan in plans)
    assert 0.5 < alone / sum(map(len, plans)) < 0.9


def test_what_is_wished_for_comes_alone() -> None:
    """A run may be narrowed to some kinds."""
    assert {fault.kind for fault in draw_plan(1, 1_000, 20, ("redis-kill",))} == {"redis-kill"}
