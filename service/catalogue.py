"""A catalogue in a file: locations, channels, SKUs and the stock that they open with."""

import hashlib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import asyncpg
import msgspec
from msgspec import Meta, Struct, field

from allocation.commands import Command, ConfigureChannel, ConfigureLocation, ConfigureSku
from allocation.ledger.queries import named_queries
from allocation.outcomes import Outcome
from allocation.ports import Decider
from service.api.answers import problem_of_refusal
from service.api.identifiers import require_path_safe
from service.api.schemas import (
    MOVEMENT_LINES_MAX,
    QUANTITY_MAX,
    ChannelRequest,
    Code,
    LocationRequest,
    MovementLine,
    MovementRequest,
    Name,
    Quantity,
    Request,
    Sku,
)
from service.api.stock import apply_movement
from service.embedded.errors import StartError

SOURCE = "load"
COMMANDS_AT_ONCE = 1_000
SafetyUnits = Annotated[int, Meta(ge=0, le=QUANTITY_MAX)]


class SkuEntry(Request, frozen=True):
    """One SKU: units by location that it opens with, and that are withheld from every channel."""

    name: Name = ""
    stock: dict[Code, Quantity] = field(default_factory=dict[Code, Quantity])
    safety_stock: dict[Code, SafetyUnits] = field(default_factory=dict[Code, SafetyUnits])


class Catalogue(Request, frozen=True):
    """Everything in the file, by code."""

    locations: dict[Code, LocationRequest] = field(default_factory=dict[Code, LocationRequest])
    channels: dict[Code, ChannelRequest] = field(default_factory=dict[Code, ChannelRequest])
    skus: dict[Sku, SkuEntry] = field(default_factory=dict[Sku, SkuEntry])


class Opening(Struct, frozen=True):
    """The opening stock of a file. `event_id` is made of its bytes, so that it is received once."""

    event_id: str
    lines: tuple[MovementLine, ...]


def read_catalogue(path: Path) -> tuple[Catalogue, Opening]:
    """Read a file in TOML or JSON. Raises StartError, with a sentence, where it is not a catalogue."""
    try:
        packed = path.read_bytes()
        parsed = _parse(path, packed)
        catalogue = msgspec.convert(parsed, Catalogue)
    except OSError as error:
        raise StartError(f"The file {path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        # Every decoder's complaint is a ValueError: TOML's, JSON's, and that of the shape.
        raise StartError(f"The file {path} is not a catalogue: {error}.") from None
    for code in (*catalogue.locations, *catalogue.channels, *catalogue.skus):
        require_path_safe("A code", code)
    lines = [
        MovementLine(sku, location, units)
        for sku, entry in catalogue.skus.items()
        for location, units in entry.stock.items()
    ]
    return catalogue, Opening(hashlib.sha256(packed).hexdigest(), tuple(lines))


async def load_catalogue(
    pipeline: Decider, pool: asyncpg.Pool, catalogue: Catalogue, opening: Opening
) -> bool:
    """Configure everything and receive the opening stock; says whether that was new.

    What the file does not name stays as it is. Raises the problem where something is refused.
    """
    await _configure(
        pipeline,
        [ConfigureLocation(code, entry.name) for code, entry in catalogue.locations.items()],
    )
    await _configure(
        pipeline,
        [
            ConfigureChannel(code, entry.name, entry.locations)
            for code, entry in catalogue.channels.items()
        ],
    )
    await _configure(
        pipeline, [ConfigureSku(sku, _flat(entry)) for sku, entry in catalogue.skus.items()]
    )
    names = [(sku, entry.name) for sku, entry in catalogue.skus.items()]
    await pool.executemany(named_queries("service")["put_name"], names)
    applied = False
    for first in range(0, len(opening.lines), MOVEMENT_LINES_MAX):
        part = opening.lines[first : first + MOVEMENT_LINES_MAX]
        event_id = f"{opening.event_id}-{first // MOVEMENT_LINES_MAX}"
        receipt = MovementRequest(SOURCE, event_id, "receipt", part)
        applied |= (await apply_movement(pipeline, receipt)).applied
    return applied


def _parse(path: Path, packed: bytes) -> object:
    if path.suffix == ".json":
        return msgspec.json.decode(packed)
    return tomllib.loads(packed.decode())


def _flat(entry: SkuEntry) -> tuple[str | int, ...]:
    return tuple(part for pair in entry.safety_stock.items() for part in pair)


async def _configure(pipeline: Decider, commands: Sequence[Command]) -> None:
    for first in range(0, len(commands), COMMANDS_AT_ONCE):
        answers = [
            pipeline.submit(command) for command in commands[first : first + COMMANDS_AT_ONCE]
        ]
        decisions = [await answer for answer in answers]
        for decision in decisions:
            if decision.outcome not in {Outcome.CREATED, Outcome.REPLACED, Outcome.UNCHANGED}:
                raise problem_of_refusal(decision)
