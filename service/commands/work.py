"""`ringfence work`: a process that answers nobody and does what waits."""

import asyncio

import click

from service.bootstrap import migrate_database
from service.commands.connections import addresses, reached_engine, read_settings, run
from service.keys import KeyRing, KeyStore
from service.stopping import stop_wanted
from service.warehouses.inbox import Inbox
from service.warehouses.sources import SourceRing, SourceStore
from service.workers.credentials import LOOK_SECONDS, Credentials
from service.workers.inbound import Inbound
from service.workers.loop import Loop
from service.workers.outages import Outages


@click.command()
def work() -> None:
    """Apply what warehouses have delivered, until it is stopped; any number may run."""
    run(_work())


async def _work() -> None:
    stopping = stop_wanted()
    settings = read_settings()
    places = addresses(settings)
    async with reached_engine(settings, places) as engine:
        await migrate_database(places.database_url)
        await engine.ledger.create()
        await engine.pipeline.start()
        ring = SourceRing()
        credentials = Credentials(
            places.database_url,
            (KeyStore(engine.pool), KeyRing()),
            (SourceStore(engine.pool), ring),
        )
        outages = Outages()
        reading = Loop(
            "credentials", credentials.run_once, idle_seconds=LOOK_SECONDS, outages=outages
        )
        credentials.on_change = reading.wake
        await credentials.run_once()
        loops = (
            reading,
            Loop(
                "inbound",
                Inbound(Inbox(engine.pool), ring, engine.pipeline).run_once,
                outages=outages,
            ),
        )
        for loop in loops:
            loop.start()
        click.echo("Working; Ctrl-C stops it.", err=True)
        stopped, broken = asyncio.create_task(stopping.wait()), engine.pipeline.broken
        await asyncio.wait({stopped, broken}, return_when=asyncio.FIRST_COMPLETED)
        for loop in loops:
            await loop.stop()
        credentials.close()
        if broken.done():
            # Nothing that is delivered would be applied by this process any more.
            await engine.pipeline.stop()
            broken.result()
