"""A small catalogue to try the service with."""

from allocation.commands import (
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Move,
    MovedLine,
    Movement,
)
from allocation.ports import Decider

LOCATIONS = {"LONDON": "London warehouse", "LEEDS": "Leeds warehouse", "SOHO": "Soho store"}
CHANNELS = {
    "web": ("Web shop", ("LONDON", "LEEDS")),
    "market": ("Marketplace", ("LEEDS", "LONDON")),
    "store": ("Soho store", ("SOHO",)),
}
SKUS = ("TEE-BLACK-M", "TEE-WHITE-M", "MUG-BLUE", "POSTER-A2", "LAST-ONE")
OPENING_UNITS = {"LONDON": 100, "LEEDS": 40, "SOHO": 10}


async def load_demo(pipeline: Decider) -> None:
    """Load the catalogue; what is there already stays as it is."""
    configuration = [
        *(ConfigureLocation(code, name) for code, name in LOCATIONS.items()),
        *(ConfigureChannel(code, name, places) for code, (name, places) in CHANNELS.items()),
        *(ConfigureSku(sku, ()) for sku in SKUS),
    ]
    for answer in [pipeline.submit(command) for command in configuration]:
        await answer
    lines = tuple(
        MovedLine(sku, location, units)
        for sku in SKUS[:-1]
        for location, units in OPENING_UNITS.items()
    )
    last_one = MovedLine(SKUS[-1], "LONDON", 1)
    await pipeline.submit(
        Move("demo\x1fopening", "demo", int(Movement.RECEIPT), 0, "", (*lines, last_one))
    )
