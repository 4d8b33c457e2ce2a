"""How a server ends its connections: what was sent is answered, and nobody waits for one who says nothing."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from e2e.contract.http_client import Connection, request_bytes
from e2e.running import free_port
from listening import soon

from service.embedded.ports import listening_sockets
from service.http_server import Server

REQUEST = request_bytes("GET", "/")
# Longer than any test takes.
FOR_EVER = 60.0


class Application:
    """Answers when the test lets it."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        self.asked += 1
        await self.may_answer.wait()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok", "more_body": False})


class Stopping:
    """A server that is told to stop, and the connections to it."""

    def __init__(
        self, linger_seconds: float, sockets: list[socket.socket] | None, port: int
    ) -> None:
        self.port = port
        self.application = Application()
        self.server = Server(self.application, "127.0.0.1", port, linger_seconds)
        self.serving = asyncio.create_task(self.server.serve(sockets))

    async def connect(self) -> Connection:
        """Open a connection on which one request has been answered."""
        await soon(lambda: self.server.started)
        connection = await Connection.open(self.port)
        self.application.may_answer.set()
        connection.write(REQUEST)
        assert (await connection.read_answer()).header("connection") is None
        return connection

    async def stop(self) -> None:
        """Tell it to stop, and wait until it lets nobody in any more."""
        self.server.stop()
        await soon(lambda: not _accepts(self.port))


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def stopping(linger_seconds: float, *, shared: bool = False) -> AsyncGenerator[Stopping]:
    """Run a server, on a socket that it opens or on one that it was given, until it has stopped."""
    port = free_port()
    sockets = listening_sockets("127.0.0.1", port, 100) if shared else None
    started = Stopping(linger_seconds, sockets, port)
    try:
        yield started
    finally:
        started.application.may_answer.set()
        started.server.stop()
        async with asyncio.timeout(20):
            await started.serving


@pytest.mark.parametrize("shared", [False, True])
async def test_request_while_lingering(shared: bool) -> None:
    """A request that comes on an idle connection of a server that stops is answered, as the last there."""
    async with stopping(FOR_EVER, shared=shared) as started:
        connection = await started.connect()
        await started.stop()
        connection.write(REQUEST)
        answer = await connection.read_answer()
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert await connection.until_closed() == b""
        # Nothing is left to wait for.
        await started.serving
        await connection.close()


async def test_idle_connection() -> None:
    """An idle connection is closed when the server has lingered for as long as it was told to."""
    async with stopping(0.2) as started:
        connection = await started.connect()
        await started.stop()
        assert await connection.until_closed() == b""
        await started.serving
        await connection.close()


async def test_request_under_way() -> None:
    """A request that is being worked on when the server stops is answered, as the last of its connection."""
    async with stopping(0.0) as started:
        connection = await started.connect()
        started.application.may_answer.clear()
        connection.write(REQUEST)
        await soon(lambda: started.application.asked == 2)
        await started.stop()
        started.application.may_answer.set()
        answer = await connection.read_answer()
        assert (answer.status, answer.header("connection")) == (200, "close")
        await connection.close()


async def test_request_that_arrives() -> None:
    """A request of which a part had arrived when the server stopped is answered when the rest has come."""
    async with stopping(0.0) as started:
        connection = await started.connect()
        connection.write(REQUEST[:10])
        # What is answered on another connection was read after that part.
        await (await started.connect()).close()
        await started.stop()
        connection.write(REQUEST[10:])
        answer = await connection.read_answer()
        assert (answer.status, answer.header("connection")) == (200, "close")
        await connection.close()


async def test_request_behind_another() -> None:
    """A request that was sent behind one under way is answered too: only the newest is the last."""
    async with stopping(FOR_EVER) as started:
        connection = await started.connect()
        started.application.may_answer.clear()
        connection.write(REQUEST)
        await soon(lambda: started.application.asked == 2)
        await started.stop()
        connection.write(REQUEST)
        await soon(lambda: any(one.pipeline for one in started.server.server_state.connections))
        started.application.may_answer.set()
        found = [await connection.read_answer() for _ in range(2)]
        assert [answer.header("connection") for answer in found] == [None, "close"]
        await started.serving
        await connection.close()


async def test_request_that_nobody_has_read() -> None:
    """A connection on which a request lies unread is not idle: it is answered before the connection ends."""
    async with stopping(0.0) as started:
        connection = await started.connect()
        (served,) = started.server.server_state.connections
        connection.write(REQUEST)
        # No other task has run since, so that the server cannot have read it.
        served.shutdown()
        assert (await connection.read_answer()).status == 200
        await connection.close()
