"""The life of a reservation, as tables."""

from engine.table import Shop


async def test_a_hold_takes_units_and_a_release_gives_them_back(shop: Shop) -> None:
    """A held unit is reserved until it is released, and then sellable again."""
    await shop.follow("""
    receive MUG LON 5
    reserve r1 web MUG:2  | held MUG:2@LON
    stock MUG LON         | on_hand 5 reserved 2 committed 0 available 3
    release r1            | released
    stock MUG LON         | on_hand 5 reserved 0 committed 0 available 5
    release r1            | replayed
    """)


async def test_a_confirmed_hold_is_committed_until_it_is_shipped(shop: Shop) -> None:
    """Units go from reserved to committed to gone, and are never counted twice."""
    await shop.follow("""
    receive MUG LON 5
    reserve r1 web MUG:2          | held
    confirm r1 order O1           | committed
    stock MUG LON                 | on_hand 5 reserved 0 committed 2 available 3
    ship MUG LON 1 for r1         | applied
    stock MUG LON                 | on_hand 4 committed 1 available 3
    reservation r1                | found (committed)
    ship MUG LON 1 for r1         | applied
    stock MUG LON                 | on_hand 3 committed 0 available 3
    reservation r1                | found (shipped)
    release r1                    | already shipped
    return MUG LON 2 for r1       | applied
    reservation r1                | found (returned)
    stock MUG LON                 | on_hand 5 committed 0 available 5
    """)


async def test_a_release_of_holds_only_cancels_no_commitment(shop: Shop) -> None:
    """Whoever gives up a cart must not undo what somebody else has confirmed meanwhile."""
    await shop.follow("""
    receive MUG LON 5
    reserve r1 web MUG:2     | held
    reserve r2 web MUG:2     | held
    confirm r1               | committed
    release r1 if held       | already committed
    release r2 if held       | released
    release r2 if held       | replayed
    stock MUG LON            | on_hand 5 reserved 0 committed 2 available 3
    """)


async def test_a_cancelled_commitment_gives_back_what_was_not_shipped(shop: Shop) -> None:
    """Cancelling a half-shipped order frees the other half, and no more."""
    await shop.follow("""
    receive MUG LON 5
    reserve r1 web MUG:4          | held
    confirm r1                    | committed
    ship MUG LON 1 for r1         | applied
    release r1                    | released
    stock MUG LON                 | on_hand 4 reserved 0 committed 0 available 4
    confirm r1                    | hold lost
    """)


async def test_a_confirmation_repeated_is_answered_alike(shop: Shop) -> None:
    """A second confirmation changes nothing, unless it names another order."""
    await shop.follow("""
    receive MUG LON 5
    reserve r1 web MUG:2          | held
    confirm r1 order O1           | committed
    confirm r1 order O1           | replayed (committed) MUG:2@LON
    confirm r1                    | replayed
    confirm r1 order O2           | idempotency mismatch
    extend r1 60s                 | already committed
    stock MUG LON                 | reserved 0 committed 2
    """)


async def test_a_confirmation_may_name_its_order_later(shop: Shop) -> None:
    """An order id that the first confirmation left out is taken from the next that has one, then kept."""
    await shop.follow("""
    receive MUG LON 5
    reserve r1 web MUG:2          | held
    confirm r1                    | committed
    confirm r1 order O1           | committed (committed) MUG:2@LON
    confirm r1 order O1           | replayed
    confirm r1                    | replayed
    confirm r1 order O2           | idempotency mismatch
    stock MUG LON                 | reserved 0 committed 2
    ship MUG LON 2 for r1         | applied
    confirm r1 order O2           | idempotency mismatch
    reserve r2 web MUG:2          | held
    ship MUG LON 2 for r2         | applied
    confirm r2 order O3           | committed (shipped) MUG:2@LON
    confirm r2 order O3           | replayed (shipped)
    """)


async def test_a_cart_is_held_whole_or_not_at_all(shop: Shop) -> None:
    """One short line refuses the cart; what its other lines took is free at once."""
    await shop.follow("""
    receive MUG LON 5
    receive CUP LON 1
    reserve r1 web MUG:2 CUP:2    | insufficient stock (refused) short CUP 1 of 2
    stock MUG LON                 | reserved 0 available 5
    stock CUP LON                 | reserved 0 available 1
    reservation r1                | unknown reservation
    """)


async def test_a_partial_cart_holds_what_there_is(shop: Shop) -> None:
    """A partial reservation takes what it can get, says what it lacked, and is refused if that is nothing."""
    await shop.follow("""
    receive MUG LON 5
    receive CUP LON 1
    reserve r1 web MUG:2 CUP:2 partial | held MUG:2@LON CUP:1@LON short CUP 1 of 2
    reserve r2 web CUP:1 partial       | insufficient stock
    stock CUP LON                      | reserved 1 available 0
    """)


async def test_the_same_key_with_the_same_request_is_held_once(shop: Shop) -> None:
    """A repeated request is answered from its record; a changed one is refused."""
    await shop.follow("""
    receive MUG LON 5
    reserve r1 web MUG:2 request a | held
    reserve r1 web MUG:2 request a | replayed (held) MUG:2@LON
    reserve r1 web MUG:3 request b | idempotency mismatch
    release r1                     | released
    reserve r1 web MUG:2 request a | replayed (released)
    stock MUG LON                  | reserved 0
    """)


async def test_a_refusal_is_remembered_under_its_key(shop: Shop) -> None:
    """A refused request stays refused when repeated, even if goods have come; a new key gets them."""
    await shop.follow("""
    reserve r1 web MUG:2  | insufficient stock
    receive MUG LON 5
    reserve r1 web MUG:2  | insufficient stock short MUG 0 of 2
    confirm r1            | unknown reservation
    reserve r2 web MUG:2  | held
    """)


async def test_a_hold_ends_at_its_deadline(shop: Shop) -> None:
    """A sale is never refused because of a hold that is overdue, swept or not."""
    await shop.follow("""
    receive MUG LON 2
    reserve r1 web MUG:2 ttl 60s  | held
    wait 59s
    reserve r2 web MUG:1          | insufficient stock
    wait 1s
    reserve r3 web MUG:2          | held
    reservation r1                | found (expired)
    extend r1 60s                 | hold lost
    stock MUG LON                 | reserved 2 available 0
    """)


async def test_an_extended_hold_lives_longer(shop: Shop) -> None:
    """The new deadline counts from the moment of the extension, also where that is sooner."""
    await shop.follow("""
    receive MUG LON 2
    reserve r1 web MUG:2 ttl 60s  | held
    wait 30s
    extend r1 60s                 | extended
    wait 59s
    stock MUG LON                 | reserved 2
    extend r1 1s                  | extended
    wait 1s
    stock MUG LON                 | reserved 0 available 2
    """)


async def test_a_late_confirmation_takes_the_units_again_if_they_are_there(shop: Shop) -> None:
    """Payment after expiry still gets the goods, from another location if need be."""
    await shop.follow("""
    receive MUG LON 2
    receive MUG PAR 2
    reserve r1 web MUG:2 ttl 60s  | held MUG:2@LON
    wait 60s
    reserve r2 web MUG:1          | held MUG:1@LON
    confirm r1 order O1           | committed MUG:1@LON MUG:1@PAR
    stock MUG LON                 | reserved 1 committed 1 available 0
    stock MUG PAR                 | reserved 0 committed 1 available 1
    """)


async def test_a_late_confirmation_without_stock_is_lost_and_takes_nothing(shop: Shop) -> None:
    """What another shopper holds by now is theirs, and what of the cart is still there stays for all."""
    await shop.follow("""
    receive MUG LON 2
    receive CUP LON 1
    reserve r1 web CUP:1 MUG:2 ttl 60s | held
    wait 60s
    reserve r2 web MUG:1          | held
    confirm r1                    | hold lost
    stock CUP LON                 | reserved 0 committed 0 available 1
    stock MUG LON                 | reserved 1 committed 0 available 1
    """)


async def test_a_late_confirmation_that_was_lost_may_be_tried_again(shop: Shop) -> None:
    """Once what it lacked is free again, it is committed after all."""
    await shop.follow("""
    receive MUG LON 2
    reserve r1 web MUG:2 ttl 60s  | held
    wait 60s
    reserve r2 web MUG:1          | held
    confirm r1                    | hold lost
    release r2                    | released
    confirm r1                    | committed MUG:2@LON
    """)


async def test_a_released_hold_cannot_be_confirmed_late(shop: Shop) -> None:
    """Who released, also after expiry, has given the units up for good."""
    await shop.follow("""
    receive MUG LON 2
    reserve r1 web MUG:2 ttl 60s  | held
    wait 60s
    release r1                    | released
    confirm r1                    | hold lost
    """)


async def test_a_line_is_split_over_locations_in_the_channels_order(shop: Shop) -> None:
    """First choice first; a pinned line takes from its own location only."""
    await shop.follow("""
    receive MUG LON 2
    receive MUG PAR 3
    reserve r1 web MUG:4          | held MUG:2@LON MUG:2@PAR
    reserve r2 web MUG:1@LON      | insufficient stock
    reserve r3 web MUG:1@PAR      | held MUG:1@PAR
    release r1                    | released
    reserve r4 pos MUG:3          | insufficient stock short MUG 2 of 3
    reserve r5 pos MUG:2          | held MUG:2@PAR
    """)


async def test_a_new_sourcing_order_counts_from_the_next_sale(shop: Shop) -> None:
    """A channel that is configured anew sources anew; holds stay where they are."""
    await shop.follow("""
    receive MUG LON 2
    receive MUG PAR 2
    reserve r1 web MUG:1     | held MUG:1@LON
    channel web PAR          | replaced
    channel web PAR          | unchanged
    reserve r2 web MUG:2     | held MUG:2@PAR
    available web MUG        | 0
    reserve r3 web MUG:1     | insufficient stock
    release r1               | released
    stock MUG LON            | reserved 0
    """)


async def test_unknown_names_are_refused_and_change_nothing(shop: Shop) -> None:
    """A SKU, channel, location or reservation that does not exist is named as such."""
    await shop.follow("""
    receive MUG LON 5
    reserve r1 web MUG:1 HAT:1   | unknown sku
    reserve r1 app MUG:1         | unknown channel
    reserve r1 web MUG:1@ROM     | unknown location
    reserve r1 web MUG:1@OSLO    | unknown location
    reserve r1 web MUG:1 replaces r0 | unknown reservation
    confirm r9                   | unknown reservation
    release r9                   | unknown reservation
    extend r9 60s                | unknown reservation
    channel app OSLO             | unknown location
    stock MUG LON                | reserved 0 available 5
    reserve r1 web MUG:1         | held
    """)


async def test_safety_stock_is_sold_to_nobody(shop: Shop) -> None:
    """Units withheld at a location are not available, and are again when the rule goes."""
    await shop.follow("""
    receive MUG LON 5
    safety MUG LON 3             | replaced
    stock MUG LON                | on_hand 5 safety_stock 3 available 2
    reserve r1 web MUG:3         | insufficient stock short MUG 2 of 3
    safety MUG LON 0             | replaced
    reserve r2 web MUG:3         | held
    """)


async def test_closed_reservations_are_forgotten_after_their_retention(shop: Shop) -> None:
    """A week after its end the key is free again; a commitment is kept however long it lasts."""
    await shop.follow("""
    receive MUG LON 5
    reserve r1 web MUG:1          | held
    release r1                    | released
    reserve r2 web MUG:1          | held
    confirm r2                    | committed
    wait 8d
    reservation r1                | unknown reservation
    reservation r2                | found (committed)
    """)


async def test_a_refusal_names_what_bound(shop: Shop) -> None:
    """Where nobody else holds anything, the goods themselves are what was short."""
    await shop.follow("""
    receive MUG LON 5
    reserve r1 web MUG:8   | insufficient stock short MUG 5 of 8 on_hand
    reserve r2 web MUG:4   | held
    reserve r3 web MUG:3   | insufficient stock short MUG 1 of 3 reserved
    """)
