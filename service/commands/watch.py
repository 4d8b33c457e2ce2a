"""`ringfence watch`: a process that compares the gate with the ledger while the shard goes on selling."""

import asyncio
import logging
import os

import click

from allocation.checkpoints import write_checkpoint
from allocation.folding import FoldedState
from allocation.history import ReadLedger, history_from_checkpoint
from allocation.ledger.postgres_findings import PostgresFindings
from allocation.verification import CPU_SHARE_MAX, Checkpoints, Verification
from allocation.watch import Watch
from service.commands.connections import addresses, reached_engine, read_settings, run
from service.engine import ShardEngine
from service.settings import SettingsError
from service.stopping import stop_wanted
from service.watching import Watching

# Whoever sells goes first.
NICENESS = 10
STOP_LOOK_SECONDS = 0.1


@click.command("watch")
@click.option("--quiet", is_flag=True, help="Say only what is wrong, not each round.")
def watch_command(*, quiet: bool) -> None:
    """Compare Redis with the ledger round after round, and rebuild what differs; one process at a time does."""
    run(_watch(logging.WARNING if quiet else logging.INFO))


async def _watch(level: int) -> None:
    stopping = stop_wanted()
    watching = asyncio.create_task(_look_for_ever(level))
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({watching, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if watching.done():
        # Only a fault of the start, or a bug, ends it; whoever started this process starts it again.
        return watching.result()
    # A rebuild that is cut off leaves the gate closed, and whoever serves takes the shard over.
    while not watching.done():
        # Once is not enough: the Redis client can lose a cancellation.
        watching.cancel()
        await asyncio.wait({watching}, timeout=STOP_LOOK_SECONDS)
    return None


async def _look_for_ever(level: int) -> None:
    settings = read_settings()
    if settings.verify_seconds == 0:
        raise SettingsError("RINGFENCE_VERIFY_SECONDS is 0, which turns the verification off.")
    places = addresses(settings)
    async with reached_engine(settings, places) as engine:
        logging.basicConfig(level=level, format="ringfence: %(levelname)s: %(message)s")
        os.nice(NICENESS)
        await engine.create()
        rounds = [
            _look_at(shard, places.database_url, settings.verify_seconds, len(engine.shards))
            for shard in engine.shards
        ]
        await asyncio.gather(*rounds)


async def _look_at(
    shard: ShardEngine, database_url: str, verify_seconds: float, shards: int
) -> None:
    async def keep_checkpoint(
        _ledger: ReadLedger, state: FoldedState, sequence: int, last_hash: str
    ) -> None:
        await write_checkpoint(shard.ledger, state, sequence, last_hash)

    findings = PostgresFindings(database_url, shard.number)
    watching = Watching(shard.number, verify_seconds)
    verification = Verification(
        shard.reads,
        shard.ledger,
        checkpoints=Checkpoints(
            begin=lambda: history_from_checkpoint(shard.ledger), keep=keep_checkpoint
        ),
        cpu_share_max=CPU_SHARE_MAX / shards,
    )
    watch = Watch(shard.gate, shard.ledger, findings, verification, watching.note_finding)
    try:
        await watching.run(watch.run_once)
    finally:
        await findings.close()
