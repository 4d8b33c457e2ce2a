"""`ringfence reopen`: lets a shard be taken over again that a verification has closed."""

import click

from allocation.ledger.postgres_findings import PostgresFindings
from service.commands.connections import database_url, read_settings, run
from service.engine import SHARD


@click.command()
def reopen() -> None:
    """Open a shard that was closed because its ledger was broken; mend the ledger first."""
    reason = run(_reopen())
    if reason is None:
        raise click.ClickException("The shard is not closed.")
    click.echo(f"Opened. It had been closed: {reason}")


async def _reopen() -> str | None:
    findings = PostgresFindings(database_url(read_settings()), SHARD)
    try:
        reason = await findings.closed_reason()
        return reason if await findings.reopen_shard() else None
    finally:
        await findings.close()
