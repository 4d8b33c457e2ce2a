"""Sales that a marketplace made without asking, as tables."""

from engine.table import Shop


async def test_an_order_takes_what_there_is(shop: Shop) -> None:
    """A recorded sale is committed at once, split over the channel's locations."""
    await shop.follow("""
    receive MUG LON 2
    receive MUG PAR 2
    order o1 web MUG:3        | committed MUG:2@LON MUG:1@PAR
    stock MUG LON             | on_hand 2 committed 2 available 0
    order o1 web MUG:3        | replayed
    order o1 web MUG:4 request changed | idempotency mismatch
    """)


async def test_an_order_beyond_the_stock_is_recorded_and_reported(shop: Shop) -> None:
    """What was oversold elsewhere is owed by the first location, and never hidden."""
    await shop.follow("""
    receive MUG LON 1
    receive MUG PAR 1
    order o1 web MUG:5        | committed MUG:4@LON MUG:1@PAR short MUG 2 of 5 on_hand
    stock MUG LON             | on_hand 1 committed 4 available -3
    available web MUG         | 0
    receive MUG LON 3
    reserve r1 web MUG:1      | insufficient stock
    receive MUG LON 1
    reserve r2 web MUG:1      | held
    """)


async def test_an_order_never_takes_from_a_hold(shop: Shop) -> None:
    """A shopper at the till keeps their unit; the marketplace's sale is the one that is short."""
    await shop.follow("""
    receive MUG LON 1
    reserve r1 web MUG:1      | held
    order o1 web MUG:1        | committed MUG:1@LON short MUG 0 of 1 reserved
    confirm r1                | committed
    stock MUG LON             | on_hand 1 committed 2 available -1
    """)


async def test_an_order_ships_is_cancelled_and_returned_like_any_commitment(shop: Shop) -> None:
    """After it is recorded, an order lives on as a confirmed reservation does."""
    await shop.follow("""
    receive MUG LON 4
    order o1 web MUG:2        | committed
    confirm o1                | replayed
    ship MUG LON 2 for o1     | applied
    reservation o1            | found (shipped)
    return MUG LON 2 for o1   | applied
    reservation o1            | found (returned)
    order o2 web MUG:2        | committed
    release o2                | released
    stock MUG LON             | on_hand 4 committed 0 available 4
    """)


async def test_an_order_of_a_channel_without_locations_is_refused(shop: Shop) -> None:
    """Somebody must owe the units; where no location is sourced there is nobody."""
    await shop.follow("""
    channel app
    order o1 app MUG:1        | unknown channel
    order o1 web HAT:1        | unknown sku
    """)
