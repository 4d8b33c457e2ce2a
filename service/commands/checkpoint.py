"""`ringfence checkpoint`: folds the ledger and keeps the state, so that the next rebuild begins there."""

import click

from allocation.checkpoints import write_checkpoint
from allocation.ports import Head
from allocation.rebuild import fold
from service.commands.connections import addresses, reached_engine, read_settings, run
from service.commands.progress import Progress
from service.engine import ShardEngine


@click.command()
def checkpoint() -> None:
    """Keep the state as of now in PostgreSQL; a rebuild reads only what comes after it."""
    run(_checkpoint())


async def _checkpoint() -> None:
    settings = read_settings()
    async with reached_engine(settings, addresses(settings)) as engine:
        await engine.create()
        for shard in engine.shards:
            head = await shard.ledger.head()
            if head.last_sequence == 0:
                click.echo(
                    f"The ledger of {engine.named(shard)} has no entries yet; there is nothing to keep."
                )
                continue
            await _keep(shard, head)
            click.echo(f"Kept the state of {engine.named(shard)} at entry {head.last_sequence:,}.")


async def _keep(shard: ShardEngine, head: Head) -> None:
    with Progress(f"Folding shard {shard.number}") as progress:
        state = await fold(shard.ledger, head.last_sequence, progress.show)
    await write_checkpoint(shard.ledger, state, head.last_sequence, head.last_hash)
