"""What HTTP alone costs: an ordinary Litestar handler that does nothing, served as the service is.

Workload design. The handler takes the same body as a reservation into a msgspec Struct and returns a Struct
of the same shape as the answer to one. There is no key check, no idempotency, no stock, no database.
"""

import asyncio
import signal
import sys

import uvloop
from litestar import Litestar, get, post
from msgspec import Struct

from service.http_server import Server


class Line(Struct):
    """A line of the request."""

    sku: str
    quantity: int


class Request(Struct):
    """The body of the request."""

    channel: str
    lines: list[Line]
    ttl_seconds: int


class AnsweredLine(Struct):
    """A line of the answer."""

    sku: str
    quantity: int
    location: str


class Answer(Struct):
    """The body of the answer."""

    reservation_id: str
    state: str
    channel: str
    lines: list[AnsweredLine]
    expires_at: str


@post("/empty")
async def empty(data: Request) -> Answer:
    """Answer without doing anything."""
    lines = [AnsweredLine(line.sku, line.quantity, "LON") for line in data.lines]
    return Answer("bench-0000000000000000", "held", data.channel, lines, "2026-01-01T00:00:00.000Z")


@get("/health/live", sync_to_thread=False)
def live() -> dict[str, str]:
    """Say that the process runs."""
    return {"status": "live"}


async def serve(port: int) -> None:
    """Answer until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    server = Server(Litestar([empty, live], openapi_config=None), "127.0.0.1", port)
    serving = asyncio.create_task(server.serve())
    await stopping.wait()
    server.stop()
    await serving


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
