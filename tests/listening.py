"""Services inside the test's process that listen on ports of their own, and readers of their event streams."""

import asyncio
import json
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import httpx
from e2e.running import free_port
from litestar.exceptions import LitestarDeprecationWarning

from service.bootstrap import Service, running_service
from service.http_server import Server
from service.settings import Settings

ADMIN_KEY = "listening-admin"
CHANNEL, OTHER_CHANNEL = "web", "store"
SOLD_FROM, SOLD_ELSEWHERE = "LONDON", "SOHO"


class Event(NamedTuple):
    """One delta, as it came."""

    id: int
    sku: str
    available: int
    version: int


class Listening(NamedTuple):
    """A running service, and a client of it with a key that may do everything."""

    service: Service
    client: httpx.AsyncClient

    async def set_up(self, *skus: str, units: int = 100) -> None:
        """Make two channels that share no location, and SKUs with units for the first."""
        for path, body in (
            (f"/v1/locations/{SOLD_FROM}", {}),
            (f"/v1/locations/{SOLD_ELSEWHERE}", {}),
            (f"/v1/channels/{CHANNEL}", {"locations": [SOLD_FROM]}),
            (f"/v1/channels/{OTHER_CHANNEL}", {"locations": [SOLD_ELSEWHERE]}),
            *((f"/v1/skus/{sku}", {}) for sku in skus),
        ):
            answer = await self.client.put(path, json=body)
            assert answer.status_code in {200, 201}, answer.text
        for sku in skus:
            await self.receive(sku, units)

    async def receive(self, sku: str, units: int, location: str = SOLD_FROM) -> None:
        """Record a receipt."""
        lines = [{"sku": sku, "location": location, "quantity": units}]
        event_id = f"{sku}-{location}-{asyncio.get_running_loop().time()}"
        body = {"source": "wms", "event_id": event_id, "kind": "receipt", "lines": lines}
        answer = await self.client.post("/v1/movements", json=body)
        assert answer.status_code == 200, answer.text

    async def sell(self, sku: str, key: str, quantity: int = 1) -> None:
        """Reserve units on the channel."""
        body = {"channel": CHANNEL, "lines": [{"sku": sku, "quantity": quantity}]}
        headers = {"idempotency-key": key}
        answer = await self.client.post("/v1/reservations", json=body, headers=headers)
        assert answer.status_code == 201, answer.text

    async def snapshot(self, channel: str = CHANNEL) -> dict[str, Any]:
        """Read all figures of a channel."""
        answer = await self.client.get(f"/v1/channels/{channel}/snapshot")
        assert answer.status_code == 200, answer.text
        return answer.json()

    @asynccontextmanager
    async def stream(
        self, cursor: int, headers: dict[str, str] | None = None
    ) -> AsyncGenerator[AsyncIterator[Event]]:
        """Follow the channel; the stream is open when this begins."""
        address = f"/v1/channels/{CHANNEL}/deltas?cursor={cursor}"
        async with self.client.stream("GET", address, headers=headers) as answer:
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith(":")
            yield _events(lines)


async def _events(lines: AsyncIterator[str]) -> AsyncGenerator[Event]:
    event_id = 0
    async for line in lines:
        if line.startswith("id: "):
            event_id = int(line.removeprefix("id: "))
        elif line.startswith("data: "):
            yield Event(event_id, **json.loads(line.removeprefix("data: ")))


async def take(events: AsyncIterator[Event], count: int, seconds: float = 5.0) -> list[Event]:
    """Read so many events, within bounds."""
    async with asyncio.timeout(seconds):
        return [await anext(events) for _ in range(count)]


async def soon(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 5.0) -> None:
    """Look again and again until something holds, within bounds."""
    deadline = time.monotonic() + seconds
    while True:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(
    redis_url: str, database_url: str, settings: Settings | None = None
) -> AsyncGenerator[Listening]:
    """Run a service behind a real server."""
    async with AsyncExitStack() as stack:
        with warnings.catch_warnings():
            # Litestar 3 will want dependencies of handlers marked as such.
            warnings.simplefilter("ignore", LitestarDeprecationWarning)
            running = running_service(
                settings or Settings(demo=False), redis_url, database_url, ADMIN_KEY
            )
            service = await stack.enter_async_context(running)
        port = free_port()
        server = Server(service.app, "127.0.0.1", port)
        serving = asyncio.create_task(server.serve())
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                headers={"authorization": f"Bearer {ADMIN_KEY}"},
                transport=httpx.AsyncHTTPTransport(retries=5),
                timeout=30.0,
            )
        )
        yield Listening(service, client)
        service.projection.end_streams()
        server.stop()
        await serving
