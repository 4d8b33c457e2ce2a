"""Commands as Hypothesis draws them: few names, so that they meet; few units, so that they run out."""

from hypothesis import strategies as st

from allocation.commands import (
    Command,
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Confirm,
    Extend,
    Move,
    MovedLine,
    Movement,
    Order,
    Release,
    Reserve,
    Wanted,
)

SKUS, LOCATIONS, CHANNELS = ("MUG", "CUP"), ("LON", "PAR", "ROM"), ("web", "pos")
MINUTE_MS, DAY_MS = 60_000, 86_400_000
# Zero: the movement happens as it arrives. The last lies before all movements that are kept.
AGES_MS = (None, None, 0, 1_000, 10 * MINUTE_MS, DAY_MS, 31 * DAY_MS)

skus = st.sampled_from((*SKUS, *SKUS, *SKUS, "UNKNOWN"))
locations = st.sampled_from((*LOCATIONS, *LOCATIONS, *LOCATIONS, "UNKNOWN"))
channels = st.sampled_from((*CHANNELS, *CHANNELS, *CHANNELS, "unknown"))
reservation_ids = st.sampled_from([f"r{number}" for number in range(8)])
event_keys = st.sampled_from([f"e{number}" for number in range(40)])
fingerprints = st.sampled_from(["as before"] * 9 + ["changed"])
units = st.integers(1, 9)
ttls_ms = st.sampled_from([1_000, 15 * MINUTE_MS, 2 * DAY_MS])
statuses = st.sampled_from(["", "damaged", "quality_control"])

wanted = st.builds(Wanted, skus, units, st.one_of(st.just(""), st.just(""), locations))
carts = st.lists(wanted, min_size=1, max_size=3).map(tuple)
reserves = st.builds(
    Reserve,
    reservation_ids,
    fingerprints,
    channels,
    ttls_ms,
    st.booleans(),
    st.one_of(st.just(""), st.just(""), reservation_ids),
    carts,
)
orders = st.builds(Order, reservation_ids, fingerprints, channels, st.just("O1"), carts)
confirms = st.builds(Confirm, reservation_ids, st.sampled_from(["", "O1", "O2"]))
releases = st.builds(Release, reservation_ids)
extensions = st.builds(Extend, reservation_ids, ttls_ms)


@st.composite
def movements(draw: st.DrawFn, now_ms: int) -> Move:
    """Draw a movement of any kind that happened now, lately or long ago."""
    kind = draw(st.sampled_from([*Movement, Movement.RECEIPT, Movement.SHIPMENT]))
    lines = st.builds(
        MovedLine,
        skus,
        locations,
        st.integers(-4, 20) if kind is Movement.ADJUSTMENT else st.integers(1, 20),
        statuses if kind is Movement.STATUS else st.just(""),
        locations if kind is Movement.TRANSFER else statuses,
    )
    age_ms = draw(st.sampled_from(AGES_MS))
    named = kind in {Movement.SHIPMENT, Movement.RETURN}
    return Move(
        draw(event_keys),
        draw(fingerprints),
        int(kind),
        0 if age_ms is None else now_ms - age_ms,
        draw(st.one_of(st.just(""), reservation_ids)) if named else "",
        tuple(draw(st.lists(lines, min_size=1, max_size=2))),
    )


@st.composite
def configurations(draw: st.DrawFn) -> Command:
    """Draw a change of a SKU's safety stock, a location's name, or a channel's sourcing order."""
    sourced = st.lists(locations, unique=True, max_size=3).map(tuple)
    safety_stock = draw(st.dictionaries(locations, st.integers(0, 3), max_size=2))
    return draw(
        st.one_of(
            st.builds(ConfigureLocation, st.sampled_from(LOCATIONS), st.sampled_from(["", "A"])),
            st.builds(ConfigureChannel, st.sampled_from(CHANNELS), st.just(""), sourced),
            st.builds(
                ConfigureSku,
                st.sampled_from(SKUS),
                st.just(tuple(part for pair in safety_stock.items() for part in pair)),
            ),
        )
    )


def commands(now_ms: int) -> st.SearchStrategy[Command]:
    """Draw any command that changes something, as it might arrive at `now_ms`."""
    ends = st.one_of(confirms, releases, extensions)
    return st.one_of(
        reserves,
        reserves,
        orders,
        ends,
        ends,
        movements(now_ms),
        movements(now_ms),
        configurations(),
    )
