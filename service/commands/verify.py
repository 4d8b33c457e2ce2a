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
    audits = run(_verify())
    for name, found in audits.items():
        _print(name, found)
    if not all(found.holds for found in audits.values()):
        breaks = sum(len(found.breaks) for found in audits.values())
        oversold = sum(len(found.oversold) for found in audits.values())
        differences = sum(len(found.differences) for found in audits.values())
        raise click.ClickException(
            f"The audit does not hold: {breaks:,} breaks, {oversold:,} oversold, {differences:,} differences."
        )
    click.echo("The audit holds: ledger, gate and recount agree, and nothing is oversold.")


def _print(name: str, found: Audit) -> None:
    shard = f" of {name}" if name else ""
    click.echo(f"{found.entries:,} entries{shard}, {len(found.figures):,} SKUs.")
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


async def _verify() -> dict[str, Audit]:
    """Give what was found, by the name of the shard; a single one needs none."""
    settings = read_settings()
    audits: dict[str, Audit] = {}
    async with reached_engine(settings, addresses(settings)) as engine:
        for shard in engine.shards:
            name = engine.named(shard) if len(engine.shards) > 1 else ""
            with Progress(f"Reading the ledger {name}".rstrip()) as progress:
                audits[name] = await audit(shard.gate, shard.ledger, progress.show, shard.reads)
    return audits
