"""Runs the service in this process until it is told to stop."""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Sequence

from service.bootstrap import Service, running_service
from service.demo import load_demo
from service.http_server import Server
from service.preparation import prepare
from service.settings import Settings
from service.stopping import stop_wanted

# How long an idle connection is kept by a process that ends while others go on.
LINGER_SECONDS = 1.0
_READY_LOOK_SECONDS = 0.02


async def serve(
    settings: Settings,
    *,
    redis_url: str,
    database_url: str,
    development_key: str | None,
    demo: bool,
) -> None:
    """Migrate, build everything, and answer HTTP until SIGINT or SIGTERM."""
    stopping = stop_wanted()
    await prepare(redis_url, database_url)
    async with running_service(settings, redis_url, database_url, development_key) as service:
        if demo:
            await load_demo(service.engine.decider)
        if development_key is not None:
            print(_welcome(settings, development_key), flush=True)  # noqa: T201 - for a person
        _spare_the_collector()
        server = Server(service.app, settings.host, settings.port)
        await _answer_until(stopping, service, server, asyncio.create_task(server.serve()))


async def serve_beside_others(
    settings: Settings,
    *,
    redis_url: str,
    database_url: str,
    sockets: Sequence[socket.socket],
    on_ready: Callable[[], None],
) -> None:
    """Answer HTTP on sockets that several processes share, until SIGINT or SIGTERM.

    Whoever opened them has prepared the servers; `on_ready` is called once requests are decided.
    """
    stopping = stop_wanted()
    # A wish to replace all processes is for the one that starts them.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    async with running_service(settings, redis_url, database_url, None) as service:
        _spare_the_collector()
        server = Server(service.app, settings.host, settings.port, LINGER_SECONDS)
        serving = asyncio.create_task(server.serve([*sockets]))
        telling = asyncio.create_task(_tell_when_ready(server, service, on_ready))
        try:
            await _answer_until(stopping, service, server, serving)
        finally:
            telling.cancel()


async def _tell_when_ready(server: Server, service: Service, on_ready: Callable[[], None]) -> None:
    while not server.started or not service.engine.open:  # noqa: ASYNC110 - neither is an event
        await asyncio.sleep(_READY_LOOK_SECONDS)
    on_ready()


def _spare_the_collector() -> None:
    # What was built until now stays. Requests leave few cycles behind, so looking for them seldom costs no
    # memory, and keeps pauses out of the answers.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _welcome(settings: Settings, key: str) -> str:
    address = f"http://{settings.host}:{settings.port}"
    return f"""
Ringfence answers on {address} (its API: {address}/docs). Ctrl-C stops everything.
Development key: {key}

Hold two units, then see what is left:

curl -X POST {address}/v1/reservations -H "Authorization: Bearer {key}" -H "Idempotency-Key: $(date +%s)" -H "Content-Type: application/json" -d '{{"channel":"web","lines":[{{"sku":"TEE-BLACK-M","quantity":2}}]}}'
curl "{address}/v1/availability?channel=web&sku=TEE-BLACK-M" -H "Authorization: Bearer {key}"
"""  # noqa: E501 - a line that is copied must not break


async def _answer_until(
    stopping: asyncio.Event, service: Service, server: Server, serving: asyncio.Task[None]
) -> None:
    stopped = asyncio.create_task(stopping.wait())
    broken = service.engine.broken
    await asyncio.wait({serving, stopped, broken}, return_when=asyncio.FIRST_COMPLETED)
    # An open stream would keep the server from stopping.
    service.projection.end_streams()
    server.stop()
    await serving
    if broken.done():
        # A bug, or a server that would lose what was promised: better no service than a wrong one.
        broken.result()
