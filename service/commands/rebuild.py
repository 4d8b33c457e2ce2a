"""`ringfence rebuild`: throws the gate's state away and makes it anew from the ledger."""

import click

from allocation.errors import Fenced
from allocation.takeover import Verified, take_over_and_rebuild
from service.commands.connections import addresses, reached_engine, read_settings, run
from service.commands.progress import Progress
from service.engine import ShardEngine


@click.command()
@click.option("--shard", type=click.IntRange(0), help="Only this one; without it, all of them.")
def rebuild(shard: int | None) -> None:
    """Make the gate's state anew from the ledger; processes that serve go on as soon as it is there."""
    run(_rebuild(shard))


async def _rebuild(wanted: int | None) -> None:
    settings = read_settings()
    async with reached_engine(settings, addresses(settings)) as engine:
        if wanted is not None and wanted >= len(engine.shards):
            raise click.ClickException(f"There are {len(engine.shards)} shards, from 0 on.")
        await engine.create()
        for shard in engine.shards if wanted is None else [engine.shards[wanted]]:
            verified = await _rebuild_one(shard)
            click.echo(
                f"Rebuilt {engine.named(shard)} to entry {verified.gate_sequence:,}, "
                f"under epoch {verified.head.epoch}."
            )


async def _rebuild_one(shard: ShardEngine) -> Verified:
    with Progress(f"Folding shard {shard.number}") as progress:
        try:
            return await take_over_and_rebuild(shard.gate, shard.ledger, progress.show)
        except Fenced:
            raise click.ClickException(
                "Another process has taken the shard over meanwhile, which is as good."
            ) from None
