"""`ringfence verify`: audits the ledger and the gate against a recount of every change."""

import click

from allocation.audit import Audit, audit
from service.commands.connections import addresses, reached_engine, read_settings, run
from service.commands.progress import Progress
from service.commands.tables import print_table

SHOWN_MAX = 1_000


@click.command()
def verify() -> None:
    """Recount every unit from the ledger and compare; exit status 0 means that all of it holds."""
    found = run(_verify())
    click.echo(f"{found.entries:,} entries, {len(found.figures):,} SKUs.")
    for broken in found.breaks[:SHOWN_MAX]:
        click.echo(f"Entry {broken.sequence}: {broken.reason}.")
    for over in found.oversold[:SHOWN_MAX]:
        click.echo(f"Entry {over.sequence} ({over.subject}): {over.units} of {over.sku} oversold.")
    if found.differences:
        print_table(
            ("SKU OR FIELD", "STORE", "FIGURE", "COUNTED", "FOUND"),
            [
                (each.sku, each.store, each.figure, each.counted, each.found)
                for each in found.differences[:SHOWN_MAX]
            ],
        )
    if not found.holds:
        raise click.ClickException(
            f"The audit does not hold: {len(found.breaks):,} breaks, {len(found.oversold):,} oversold, "
            f"{len(found.differences):,} differences."
        )
    click.echo("The audit holds: ledger, gate and recount agree, and nothing is oversold.")


async def _verify() -> Audit:
    settings = read_settings()
    async with reached_engine(settings, addresses(settings)) as engine:
        with Progress("Reading the ledger") as progress:
            return await audit(engine.gate, engine.ledger, progress.show, engine.reads)
