"""What people complained about elsewhere, each under the number of the complaint."""

import asyncio

from engine.shards import WHOLE
from engine.table import Shop
from one_redis import OneRedis
from redis.asyncio import Redis

from allocation.commands import Reserve, Wanted
from allocation.gate.redis_gate import RedisGate
from allocation.outcomes import Outcome


async def test_two_lines_of_one_sku_are_summed_medusa_16502(shop: Shop) -> None:
    """Two lines that share an item are checked together, not each against the same stock."""
    await shop.follow("""
    receive MUG LON 3
    reserve r1 web MUG:2 MUG:2   | insufficient stock
    stock MUG LON                | reserved 0 available 3
    reserve r2 web MUG:2 MUG:1   | held
    stock MUG LON                | reserved 3 available 0
    """)


async def test_the_same_variant_on_two_lines_is_counted_right_vendure_1028(shop: Shop) -> None:
    """Confirming and cancelling a cart with a repeated SKU moves the sum of its lines, once."""
    await shop.follow("""
    receive MUG LON 5
    reserve r1 web MUG:2 MUG:1   | held
    confirm r1                   | committed
    stock MUG LON                | reserved 0 committed 3
    ship MUG LON 3 for r1        | applied
    stock MUG LON                | on_hand 2 committed 0 available 2
    reservation r1               | found (shipped)
    """)


async def test_a_bundle_of_several_parts_is_held_as_one_medusa_12532_erpnext_51227(
    shop: Shop,
) -> None:
    """All parts of a bundle are held or none is, and their release frees all of them."""
    await shop.follow("""
    receive MUG LON 4
    receive CUP LON 1
    reserve r1 web MUG:2 CUP:1 MUG:2   | held
    reserve r2 web MUG:1 CUP:1         | insufficient stock
    release r1                         | released
    stock MUG LON                      | reserved 0 available 4
    stock CUP LON                      | reserved 0 available 1
    """)


async def test_racing_reservations_never_oversubscribe_medusa_16569(
    one_shard: Shop, redis: Redis
) -> None:
    """Ten units and forty shoppers at once over separate connections: ten are held, the counter says ten."""
    await one_shard.follow("receive MUG LON 10")
    gate = RedisGate(OneRedis(redis), 0, 1_000_000, 1_000_000)
    identity = await gate.prepare()

    async def shopper(number: int) -> Outcome:
        command = Reserve(f"r{number}", "", "web", 900_000, *WHOLE, (Wanted("MUG", 1),))
        return (await gate.decide(1, identity, [command], 0)).decisions[0].outcome

    outcomes = await asyncio.gather(*(shopper(number) for number in range(40)))
    assert outcomes.count(Outcome.HELD) == 10
    assert outcomes.count(Outcome.INSUFFICIENT_STOCK) == 30
    await one_shard.follow("stock MUG LON | on_hand 10 reserved 10 available 0")


async def test_the_last_unit_is_sold_once_vendure_3508_saleor_543_magento_28508(shop: Shop) -> None:
    """Many carts for one unit in a single batch: the first has it, every other is refused."""
    await shop.follow("receive MUG LON 1")
    carts = [
        Reserve(f"r{number}", "", "web", 900_000, *WHOLE, (Wanted("MUG", 1),))
        for number in range(100)
    ]
    outcomes = [decision.outcome for decision in await shop.decide(*carts)]
    assert outcomes == [Outcome.HELD] + [Outcome.INSUFFICIENT_STOCK] * 99


async def test_an_active_cart_keeps_nothing_it_does_not_hold_vendure_1738_1355(shop: Shop) -> None:
    """What sold out while in somebody's cart cannot be bought from there after the hold has ended."""
    await shop.follow("""
    receive MUG LON 1
    reserve r1 web MUG:1 ttl 60s  | held
    wait 61s
    reserve r2 web MUG:1          | held
    confirm r2                    | committed
    confirm r1                    | hold lost
    stock MUG LON                 | reserved 0 committed 1 available 0
    """)


async def test_payment_and_expiry_do_not_race_nextjs_starter_453(shop: Shop) -> None:
    """A confirmation sent with the competing sale in one batch: exactly one of them has the unit."""
    await shop.follow("""
    receive MUG LON 1
    reserve r1 web MUG:1 ttl 60s  | held
    wait 60s
    confirm r1                    | committed
    reserve r2 web MUG:1          | insufficient stock
    """)


async def test_a_line_is_taken_from_all_locations_together_medusa_14987_15132(shop: Shop) -> None:
    """What is checked as a sum is also reserved as a sum, not all of it from the first location."""
    await shop.follow("""
    receive MUG LON 1
    receive MUG PAR 2
    reserve r1 web MUG:3      | held MUG:1@LON MUG:2@PAR
    stock MUG LON             | reserved 1 available 0
    stock MUG PAR             | reserved 2 available 0
    """)


async def test_the_first_location_is_skipped_when_empty_medusa_10658_10561(shop: Shop) -> None:
    """Units come from where they are, not blindly from the first location in the list."""
    await shop.follow("""
    receive MUG PAR 2
    reserve r1 web MUG:2      | held MUG:2@PAR
    stock MUG LON             | reserved 0 available 0
    """)


async def test_no_location_gives_more_than_it_has_vendure_4030(shop: Shop) -> None:
    """Allocating 13 over locations with 10 and 13 takes 10 and 3, never 10 and 13."""
    await shop.follow("""
    receive MUG LON 10
    receive MUG PAR 13
    order o1 web MUG:13       | committed MUG:10@LON MUG:3@PAR
    stock MUG PAR             | committed 3 available 10
    """)


async def test_a_shipment_ends_the_commitment_where_it_was_made_medusa_16338(shop: Shop) -> None:
    """Shipping from another location than planned corrupts neither: one loses goods, one its promise."""
    await shop.follow("""
    receive MUG LON 2
    receive MUG PAR 2
    reserve r1 web MUG:2          | held MUG:2@LON
    confirm r1                    | committed
    ship MUG PAR 2 for r1         | applied
    stock MUG LON                 | on_hand 2 committed 0 available 2
    stock MUG PAR                 | on_hand 0 committed 0 available 0
    reservation r1                | found (shipped)
    """)


async def test_another_channels_stock_is_not_sold_vendure_2356(shop: Shop) -> None:
    """A channel sells from the locations that it sources from, and sees no others."""
    await shop.follow("""
    receive MUG LON 5
    available pos MUG         | 0
    available web MUG         | 5
    reserve r1 pos MUG:1      | insufficient stock
    """)


async def test_two_channels_on_one_source_do_not_sell_it_twice_magento_2727(shop: Shop) -> None:
    """Channels that share a location share its units."""
    await shop.follow("""
    receive MUG PAR 1
    available web MUG         | 1
    available pos MUG         | 1
    reserve r1 pos MUG:1      | held MUG:1@PAR
    available web MUG         | 0
    reserve r2 web MUG:1      | insufficient stock
    """)


async def test_a_negative_location_does_not_drag_others_down_saleor_17170(shop: Shop) -> None:
    """A location that owes units takes none away from what another has."""
    await shop.follow("""
    receive MUG LON 1
    order o1 web MUG:4        | committed
    stock MUG LON             | available -3
    receive MUG PAR 2
    available web MUG         | 2
    reserve r1 web MUG:2      | held MUG:2@PAR
    """)


async def test_reserved_never_falls_below_zero_medusa_12401_11131_saleor_6897(shop: Shop) -> None:
    """Every end of a hold, repeated and mixed, gives its units back exactly once."""
    await shop.follow("""
    receive MUG LON 2
    reserve r1 web MUG:2 ttl 60s  | held
    release r1                    | released
    release r1                    | replayed
    wait 61s
    release r1                    | replayed
    confirm r1                    | hold lost
    reserve r2 web MUG:2 ttl 60s  | held
    wait 61s
    release r2                    | released
    release r2                    | replayed
    stock MUG LON                 | on_hand 2 reserved 0 committed 0 available 2
    """)


async def test_more_can_be_released_than_is_in_stock_odoo_62139(shop: Shop) -> None:
    """A hold can be released also when its goods have been counted away."""
    await shop.follow("""
    receive MUG LON 5
    reserve r1 web MUG:5      | held
    count MUG LON 0           | applied
    release r1                | released
    stock MUG LON             | on_hand 0 reserved 0 available 0
    """)


async def test_no_reserved_units_are_left_behind_erpnext_44227_magento_3373(shop: Shop) -> None:
    """After everything has ended, nothing is reserved or committed at any location."""
    await shop.follow("""
    receive MUG LON 2
    receive MUG PAR 2
    reserve r1 web MUG:3 ttl 60s            | held
    reserve r2 web MUG:1                    | held
    reserve r3 web MUG:4 replaces r2        | insufficient stock
    wait 61s
    reserve r4 web MUG:4 replaces r2        | held
    confirm r4                              | committed
    release r4                              | released
    stock MUG LON                           | reserved 0 committed 0 shipped 0 available 2
    stock MUG PAR                           | reserved 0 committed 0 shipped 0 available 2
    """)


async def test_a_shoppers_own_hold_does_not_block_them_woocommerce_67354(shop: Shop) -> None:
    """A changed cart takes over the units of the one that it replaces."""
    await shop.follow("""
    receive MUG LON 2
    reserve r1 web MUG:2               | held
    reserve r2 web MUG:2 replaces r1   | held
    reservation r1                     | found (released)
    stock MUG LON                      | reserved 2 available 0
    """)


async def test_two_payable_orders_never_share_a_unit_woocommerce_67931(shop: Shop) -> None:
    """After a swap only the newer hold can be paid for, whichever payment arrives first."""
    await shop.follow("""
    receive MUG LON 1
    reserve r1 web MUG:1               | held
    reserve r2 web MUG:1 replaces r1   | held
    confirm r1                         | hold lost
    confirm r2                         | committed
    reserve r3 web MUG:1 replaces r2   | already committed
    stock MUG LON                      | reserved 0 committed 1 available 0
    """)


async def test_a_refused_swap_leaves_the_old_hold_woocommerce_67751(shop: Shop) -> None:
    """Asking for more than there is costs the shopper nothing that they already hold."""
    await shop.follow("""
    receive MUG LON 2
    reserve r1 web MUG:1               | held
    reserve r2 web MUG:3 replaces r1   | insufficient stock short MUG 2 of 3
    reservation r1                     | found (held)
    stock MUG LON                      | reserved 1 available 1
    confirm r1                         | committed
    """)


async def test_what_was_oversold_is_told_by_line_monei_233(shop: Shop) -> None:
    """A recorded order says for each SKU how many of its units were not there."""
    await shop.follow("""
    receive MUG LON 3
    order o1 web MUG:5 CUP:2   | committed MUG:5@LON CUP:2@LON short MUG 3 of 5 on_hand short CUP 0 of 2
    """)


async def test_an_entry_told_twice_is_applied_once_commercetools_301(shop: Shop) -> None:
    """A duplicate stock event neither doubles the stock nor blocks the ones behind it."""
    await shop.follow("""
    receive MUG LON 5 event e1   | applied
    receive MUG LON 5 event e1   | duplicate
    receive MUG LON 1 event e2   | applied
    stock MUG LON                | on_hand 6
    """)
