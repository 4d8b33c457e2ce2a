"""`ringfence load FILE`: configures what a file lists, and receives its opening stock once."""

from pathlib import Path

import click

from service.catalogue import Catalogue, Opening, load_catalogue, read_catalogue
from service.commands.connections import addresses, reached_engine, read_settings, run


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def load(file: Path) -> None:
    """Load locations, channels, SKUs and opening stock from FILE (.toml or .json).

    The same file again changes nothing. What it does not name stays as it is.
    """
    catalogue, opening = read_catalogue(file)
    applied = run(_load(catalogue, opening))
    click.echo(
        f"{len(catalogue.locations)} locations, {len(catalogue.channels)} channels and "
        f"{len(catalogue.skus)} SKUs are configured."
    )
    if opening.lines:
        now_or_before = "was received" if applied else "had been received before"
        click.echo(f"The opening stock, {len(opening.lines)} lines, {now_or_before}.")


async def _load(catalogue: Catalogue, opening: Opening) -> bool:
    settings = read_settings()
    async with reached_engine(settings, addresses(settings)) as engine:
        await engine.start()
        return await load_catalogue(engine.decider, engine.pool, catalogue, opening)
