"""`ringfence serve`: answers HTTP on servers that are there already, with one process or several."""

import asyncio
import signal
import socket
from collections.abc import Sequence

import click

from service.commands.connections import Addresses, named_addresses, read_settings, run
from service.embedded.ports import listening_sockets, require_free
from service.http_server import BACKLOG
from service.main import serve as answer
from service.preparation import prepare
from service.processes.child import Child
from service.processes.supervisor import Supervisor
from service.settings import Settings

WORKERS_MAX = 64
_WORKER = ("-m", "service.processes.worker")
_MIGRATE = ("-c", "from service.cli import main; main()", "migrate")


@click.command()
@click.option(
    "--workers",
    type=click.IntRange(1, WORKERS_MAX),
    default=1,
    show_default=True,
    help="Processes that share the port; with more than one, SIGHUP replaces them one by one.",
)
@click.pass_context
def serve(context: click.Context, workers: int) -> None:
    """Serve on the Redis and PostgreSQL that the settings name; keys come from `ringfence keys`."""
    settings = read_settings()
    places = named_addresses(settings)
    if workers == 1:
        _serve_alone(settings, places)
        return
    sockets = listening_sockets(settings.host, settings.port, BACKLOG)
    if not run(_supervise(workers, places, sockets)):
        # The worker has said what stopped it.
        context.exit(1)


def _serve_alone(settings: Settings, places: Addresses) -> None:
    require_free(settings.host, settings.port)
    run(
        answer(
            settings,
            redis_url=places.redis_url,
            database_url=places.database_url,
            development_key=None,
            demo=False,
        )
    )


async def _supervise(count: int, places: Addresses, sockets: Sequence[socket.socket]) -> bool:
    await prepare(places.redis_url, places.database_url)
    descriptors = [listening.fileno() for listening in sockets]
    supervisor = Supervisor(
        count,
        start=lambda: Child(_WORKER, descriptors),
        # By the new code, which may need tables that this process knows nothing of.
        prepare=lambda: Child(_MIGRATE),
        on_stop=lambda: _close(sockets),
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, supervisor.stop)
    loop.add_signal_handler(signal.SIGHUP, supervisor.replace)
    return await supervisor.run()


def _close(sockets: Sequence[socket.socket]) -> None:
    # Or clients would still be let in, to wait for an answer that nobody will give.
    for listening in sockets:
        listening.close()
