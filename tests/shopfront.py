"""A storefront of a test's own on loopback: it answers as it is told to, and remembers what it was told."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple


class Request(NamedTuple):
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def figure(self) -> dict[str, Any]:
        """Give the figure that it tells."""
        return json.loads(self.body)["data"]


class Reply(NamedTuple):
    """What is answered, and after which wait."""

    status: int = 204
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    until: asyncio.Event | None = None


class Shopfront:
    """The server. `reply` is asked once a request, and may be replaced at any time."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[Request] = []
        self.connections = 0
        self.in_flight: dict[str, int] = {}
        self.most_in_flight = self.most_of_one_sku = 0
        self.reply: Callable[[Request], Reply] = lambda _request: Reply()
        self._arrived = asyncio.Condition()

    @property
    def url(self) -> str:
        """Give its address."""
        return f"http://127.0.0.1:{self.port}/figures"

    def figures(self) -> dict[str, int]:
        """Give the newest figure of each SKU by version, as a storefront should read them."""
        newest: dict[str, dict[str, Any]] = {}
        for request in self.requests:
            figure = request.figure
            known = newest.get(figure["sku"])
            if known is None or known["version"] <= figure["version"]:
                newest[figure["sku"]] = figure
        return {sku: figure["available"] for sku, figure in newest.items()}

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until what has arrived is enough."""
        async with asyncio.timeout(seconds), self._arrived:
            await self._arrived.wait_for(condition)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        self.connections += 1
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(head[0].split(" ")[1], headers, body)
        reply = self.reply(request)
        sku = request.figure["sku"]
        self.in_flight[sku] = self.in_flight.get(sku, 0) + 1
        self.most_in_flight = max(self.most_in_flight, sum(self.in_flight.values()))
        self.most_of_one_sku = max(self.most_of_one_sku, self.in_flight[sku])
        async with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        if reply.until is not None:
            await reply.until.wait()
        self.in_flight[sku] -= 1
        lines = [f"HTTP/1.1 {reply.status} So", f"Content-Length: {len(reply.body)}"]
        lines += [f"{name}: {value}" for name, value in reply.headers]
        writer.write("\r\n".join([*lines, "", ""]).encode() + reply.body)
        await writer.drain()


@asynccontextmanager
async def shopfront() -> AsyncGenerator[Shopfront]:
    """Open a storefront."""
    opened = Shopfront()
    server = await asyncio.start_server(opened.serve, "127.0.0.1", 0)
    opened.port = server.sockets[0].getsockname()[1]
    yield opened
    server.close()
