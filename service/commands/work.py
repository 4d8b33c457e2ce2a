"""`ringfence work`: a process that answers nobody and does what waits."""

import asyncio

import click

from service.commands.connections import addresses, reached_engine, read_settings, run
from service.keys import KeyRing, KeyStore
from service.stopping import stop_wanted
from service.warehouses.inbox import Inbox
from service.warehouses.sources import SourceRing, SourceStore
from service.workers.credentials import LOOK_SECONDS, Credentials
from service.workers.inbound import Inbound
from service.workers.loop import IDLE_SECONDS, loops_of
from service.workers.server_look import SERVER_LOOK_SECONDS, ServerLook
from service.workers.settling import settling_duties


@click.command()
def work() -> None:
    """Apply what warehouses have delivered, until it is stopped; any number may run."""
    run(_work())


async def _work() -> None:
    stopping = stop_wanted()
    settings = read_settings()
    places = addresses(settings)
    async with reached_engine(settings, places) as engine:
        await engine.start()
        ring = SourceRing()
        credentials = Credentials(
            places.database_url,
            (KeyStore(engine.pool), KeyRing()),
            (SourceStore(engine.pool), ring),
        )
        await credentials.run_once()
        loops = loops_of(
            {
                "credentials": (credentials.run_once, LOOK_SECONDS),
                "inbound": (
                    Inbound(Inbox(engine.pool), ring, engine.decider).run_once,
                    IDLE_SECONDS,
                ),
                "server look": (
                    ServerLook(engine.pipelines, engine.shards[0].ledger).run_once,
                    SERVER_LOOK_SECONDS,
                ),
                **settling_duties(engine, settings),
            }
        )
        credentials.on_change = loops["credentials"].wake
        for loop in loops.values():
            loop.start()
        click.echo("Working; Ctrl-C stops it.", err=True)
        stopped, broken = asyncio.create_task(stopping.wait()), engine.broken
        await asyncio.wait({stopped, broken}, return_when=asyncio.FIRST_COMPLETED)
        for loop in loops.values():
            await loop.stop()
        credentials.close()
        if broken.done():
            # Nothing that is delivered would be applied by this process any more.
            await engine.stop()
            broken.result()
