"""The stock that a replay opens with, by a rule that makes both sales and sell-outs certain."""

from collections.abc import Iterator, Mapping

from msgspec import Struct

LOCATIONS = ("main", "annex")
OPENING_PERCENT = 90
MAIN_PERCENT = 60

RULE = (
    f"Each SKU opens with {OPENING_PERCENT} % (rounded up) of the units that the replayed rows ask "
    f"for: {MAIN_PERCENT} % of them (rounded up) at `{LOCATIONS[0]}`, the rest at "
    f"`{LOCATIONS[1]}`. Channels source from both; every second channel, by code, "
    "begins with the other one."
)


class OpeningLine(Struct, frozen=True):
    """Units of one SKU that one location opens with."""

    sku: str
    location: str
    quantity: int


def opening_lines(units_wanted: Mapping[str, int]) -> Iterator[OpeningLine]:
    """Give the opening stock of SKUs by the units that will be asked for; see RULE."""
    for sku, wanted in sorted(units_wanted.items()):
        opening = _percent_rounded_up(wanted, OPENING_PERCENT)
        main = _percent_rounded_up(opening, MAIN_PERCENT)
        for location, quantity in zip(LOCATIONS, (main, opening - main), strict=True):
            if quantity > 0:
                yield OpeningLine(sku, location, quantity)


def sourcing_orders(channels: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Give each channel its order of locations; see RULE."""
    return {
        code: LOCATIONS if number % 2 == 0 else LOCATIONS[::-1]
        for number, code in enumerate(sorted(channels))
    }


def _percent_rounded_up(units: int, percent: int) -> int:
    return -(-units * percent // 100)
