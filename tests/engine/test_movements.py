"""What warehouses tell, as tables."""

import itertools

from engine.table import Shop


async def test_every_kind_of_movement_changes_its_bucket(shop: Shop) -> None:
    """Receipt, adjustment, count, shipment, return, transfer and status each do what their name says."""
    await shop.follow("""
    receive MUG LON 10                    | applied
    adjust MUG LON -1                     | applied
    stock MUG LON                         | on_hand 9 available 9
    ship MUG LON 2                        | applied
    stock MUG LON                         | on_hand 7
    return MUG LON 1                      | applied
    return MUG LON 1 as damaged           | applied
    stock MUG LON                         | on_hand 9 damaged 1 available 8
    status MUG LON 3 sellable quality_control | applied
    stock MUG LON                         | on_hand 9 damaged 1 quality_control 3 available 5
    status MUG LON 2 quality_control damaged  | applied
    stock MUG LON                         | damaged 3 quality_control 1 available 5
    status MUG LON 3 damaged sellable     | applied
    stock MUG LON                         | damaged 0 quality_control 1 available 8
    transfer MUG LON PAR 4                | applied
    stock MUG LON                         | on_hand 5
    stock MUG PAR                         | on_hand 4
    receive MUG PAR 2 as quality_control  | applied
    stock MUG PAR                         | on_hand 6 quality_control 2 available 4
    count MUG PAR 3                       | applied
    stock MUG PAR                         | on_hand 3 quality_control 2 available 1
    """)


async def test_a_movement_is_applied_once(shop: Shop) -> None:
    """The same event again is a duplicate, another movement under its name is refused."""
    await shop.follow("""
    receive MUG LON 5 event e1 request a  | applied
    receive MUG LON 5 event e1 request a  | duplicate
    receive MUG LON 9 event e1 request b  | idempotency mismatch
    stock MUG LON                         | on_hand 5
    wait 15d
    receive MUG LON 5 event e1 request a  | applied
    """)


async def test_a_movement_that_names_the_unknown_changes_nothing(shop: Shop) -> None:
    """Unknown SKUs and places refuse the whole movement, which may come again later."""
    await shop.follow("""
    receive HAT LON 5 event e1            | unknown sku
    receive MUG OSLO 5 event e1           | unknown location
    transfer MUG LON OSLO 5 event e1      | unknown location
    stock MUG LON                         | on_hand 0
    receive MUG LON 5 event e1            | applied
    """)


async def test_goods_that_leave_for_a_forgotten_order_are_gone_and_end_no_other_order(
    shop: Shop,
) -> None:
    """A shipment under an unknown name lowers what is on hand, and frees nothing of anybody's."""
    await shop.follow("""
    receive MUG LON 10
    reserve r1 web MUG:4                  | held
    confirm r1                            | committed
    ship MUG LON 3 for r9                 | applied
    stock MUG LON                         | on_hand 7 committed 4 available 3
    return MUG LON 1 for r9               | applied
    stock MUG LON                         | on_hand 8 committed 4 available 4
    """)


async def test_goods_that_leave_for_a_hold_are_sold(shop: Shop) -> None:
    """A shipment of a hold that nobody confirmed commits it first, and leaves nothing stuck."""
    await shop.follow("""
    receive MUG LON 10
    reserve r1 web MUG:4                  | held
    ship MUG LON 4 for r1                 | applied
    stock MUG LON                         | on_hand 6 reserved 0 committed 0 available 6
    confirm r1                            | replayed
    """)


async def test_a_clock_that_runs_ahead_does_not_outlive_a_count(shop: Shop) -> None:
    """A movement dated later than now counts as happening now, so that the next count covers it."""
    await shop.follow("""
    receive MUG LON 10 1h ahead           | applied
    count MUG LON 4                       | applied
    stock MUG LON                         | on_hand 4
    """)


async def test_a_count_does_not_undo_later_movements(shop: Shop) -> None:
    """A count that arrives late keeps what happened after it was taken."""
    await shop.follow("""
    receive MUG LON 10 1h ago             | applied
    ship MUG LON 3 5m ago                 | applied
    count MUG LON 10 as of 10m ago        | applied
    stock MUG LON                         | on_hand 7
    ship MUG LON 1 20m ago                | applied
    stock MUG LON                         | on_hand 7
    count MUG LON 99 as of 15m ago        | applied
    stock MUG LON                         | on_hand 7
    count MUG LON 4                       | applied
    receive MUG LON 2 1m ago              | applied
    stock MUG LON                         | on_hand 4
    receive MUG LON 2                     | applied
    stock MUG LON                         | on_hand 6
    """)


async def test_a_count_from_before_all_memory_is_refused(shop: Shop) -> None:
    """Movements are kept for 30 days; an older count cannot be set against them."""
    await shop.follow("""
    receive MUG LON 5
    count MUG LON 9 as of 31d ago   | count too old
    count MUG LON 9 as of 29d ago   | applied
    stock MUG LON                   | on_hand 14
    """)


async def test_movements_give_the_same_stock_in_any_order(shop: Shop) -> None:
    """Deltas and a count, shuffled in every way, come to one figure."""
    rows = [
        "receive MUG {0} 9 40m ago",
        "ship MUG {0} 2 30m ago",
        "count MUG {0} 6 as of 20m ago",
        "adjust MUG {0} -1 10m ago",
    ]
    for number, order in enumerate(itertools.permutations(rows)):
        place = f"P{number}"
        await shop.follow(f"location {place}")
        for row in order:
            await shop.follow(row.format(place))
        assert (await shop.pool("MUG", place)).on_hand == 5, order


async def test_an_unnamed_shipment_ends_somebodys_commitment(shop: Shop) -> None:
    """Goods that leave without an order's name weigh once, not as gone and as committed too."""
    await shop.follow("""
    receive MUG LON 10
    reserve r1 web MUG:4            | held
    confirm r1                      | committed
    ship MUG LON 3                  | applied
    stock MUG LON                   | on_hand 7 committed 1 available 6
    ship MUG LON 3                  | applied
    stock MUG LON                   | on_hand 4 committed 0 available 4
    release r1                      | released
    stock MUG LON                   | on_hand 4 committed 0 available 4
    """)


async def test_a_count_below_what_is_promised_sells_nothing_more(shop: Shop) -> None:
    """A shortfall is visible as less than nothing available, and no promise is broken by it."""
    await shop.follow("""
    receive MUG LON 5
    reserve r1 web MUG:4      | held
    count MUG LON 1           | applied
    stock MUG LON             | on_hand 1 reserved 4 available -3
    available web MUG         | 0
    reserve r2 web MUG:1      | insufficient stock short MUG 0 of 1
    confirm r1                | committed
    """)


async def test_a_repair_told_before_the_damage_sells_nothing_that_is_not_there(shop: Shop) -> None:
    """Status changes may arrive in any order; in between no more can be sold than is on hand."""
    await shop.follow("""
    receive MUG LON 5
    status MUG LON 3 damaged sellable   | applied
    stock MUG LON                       | on_hand 5 available 5
    reserve r1 web MUG:6                | insufficient stock short MUG 5 of 6
    status MUG LON 3 sellable damaged   | applied
    stock MUG LON                       | on_hand 5 damaged 0 available 5
    """)


async def test_a_status_change_to_the_same_status_changes_nothing(shop: Shop) -> None:
    """Units that are damaged and become damaged are the same units."""
    await shop.follow("""
    receive MUG LON 5 as damaged
    status MUG LON 2 damaged damaged    | applied
    stock MUG LON                       | on_hand 5 damaged 5 available 0
    """)
