"""`ringfence rebuild`: throws the gate's state away and makes it anew from the ledger."""

import click

from allocation.errors import Fenced
from allocation.takeover import Verified, take_over_and_rebuild
from service.bootstrap import migrate_database
from service.commands.connections import addresses, reached_engine, read_settings, run
from service.commands.progress import Progress
from service.engine import SHARD


@click.command()
def rebuild() -> None:
    """Make the gate's state anew from the ledger; processes that serve go on as soon as it is there."""
    verified = run(_rebuild())
    click.echo(f"Rebuilt to entry {verified.gate_sequence:,}, under epoch {verified.head.epoch}.")


async def _rebuild() -> Verified:
    settings = read_settings()
    places = addresses(settings)
    async with reached_engine(settings, places) as engine:
        await migrate_database(places.database_url)
        await engine.ledger.create()
        with Progress(f"Folding shard {SHARD}") as progress:
            try:
                return await take_over_and_rebuild(engine.gate, engine.ledger, progress.show)
            except Fenced:
                raise click.ClickException(
                    "Another process has taken the shard over meanwhile, which is as good."
                ) from None
