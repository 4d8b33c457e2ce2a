"""`ringfence checkpoint`: folds the ledger and keeps the state, so that the next rebuild begins there."""

import click

from allocation.checkpoints import write_checkpoint
from allocation.ports import Head
from allocation.rebuild import fold
from service.bootstrap import migrate_database
from service.commands.connections import addresses, reached_engine, read_settings, run
from service.commands.progress import Progress
from service.engine import SHARD


@click.command()
def checkpoint() -> None:
    """Keep the state as of now in PostgreSQL; a rebuild reads only what comes after it."""
    head = run(_checkpoint())
    if head.last_sequence == 0:
        click.echo("The ledger has no entries yet; there is nothing to keep.")
        return
    click.echo(f"Kept the state at entry {head.last_sequence:,}.")


async def _checkpoint() -> Head:
    settings = read_settings()
    places = addresses(settings)
    async with reached_engine(settings, places) as engine:
        await migrate_database(places.database_url)
        await engine.ledger.create()
        head = await engine.ledger.head()
        if head.last_sequence:
            with Progress(f"Folding shard {SHARD}") as progress:
                state = await fold(engine.ledger, head.last_sequence, progress.show)
            await write_checkpoint(engine.ledger, state, head.last_sequence, head.last_hash)
        return head
