"""`ringfence migrate`: brings the database to this version's tables."""

import click

from service.commands.connections import database_url, read_settings, run
from service.preparation import migrate_database
from service.suitability import require_suitable_postgres


@click.command()
def migrate() -> None:
    """Bring the database to this version's tables; does nothing where they are there."""
    run(_migrate(database_url(read_settings())))
    click.echo("The database has this version's tables.")


async def _migrate(url: str) -> None:
    await require_suitable_postgres(url)
    await migrate_database(url)
