"""`ringfence reopen`: lets shards be taken over again that a verification has closed."""

import click

from service.commands.closed import closed_shards, reopen_shard
from service.commands.connections import database_url, read_settings, run


@click.command()
def reopen() -> None:
    """Open what was closed because its ledger was broken; mend the ledger first."""
    reasons = run(_reopen())
    if not reasons:
        raise click.ClickException("The shard is not closed.")
    for reason in reasons:
        click.echo(f"Opened. It had been closed: {reason}")


async def _reopen() -> list[str]:
    url = database_url(read_settings())
    closed = await closed_shards(url)
    return [reason for shard, reason in closed.items() if await reopen_shard(url, shard)]
