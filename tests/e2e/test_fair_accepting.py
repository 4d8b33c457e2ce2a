"""Several listeners on one socket: each gets its part of the connections that wait."""

import asyncio
import contextlib

from e2e.contract.http_client import Connection
from e2e.running import free_port
from listening import soon

from service.embedded.ports import listening_sockets
from service.fair_accepting import FairAccepting

CONNECTIONS = 64


class Greeting(asyncio.Protocol):
    """Says who let a connection in."""

    def __init__(self, name: bytes, let_in: list[bytes]) -> None:
        self._name, self._let_in = name, let_in

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._let_in.append(self._name)
        transport.close()


async def test_parts() -> None:
    """Of connections that all wait already, neither of two listeners takes more than three quarters."""
    port, let_in = free_port(), list[bytes]()
    (listening,) = listening_sockets("127.0.0.1", port, CONNECTIONS)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.push_async_callback((await Connection.open(port)).close)
        listeners = [
            FairAccepting(listening.dup(), lambda name=name: Greeting(name, let_in))
            for name in (b"first", b"second")
        ]
        await soon(lambda: len(let_in) == CONNECTIONS)
        for listener in listeners:
            listener.close()
        listening.close()
    assert min(let_in.count(b"first"), let_in.count(b"second")) >= CONNECTIONS / 4


async def test_closed() -> None:
    """One that was closed takes nothing; what waits is for the others."""
    port, let_in = free_port(), list[bytes]()
    (listening,) = listening_sockets("127.0.0.1", port, CONNECTIONS)
    FairAccepting(listening.dup(), lambda: Greeting(b"closed", let_in)).close()
    connection = await Connection.open(port)
    other = FairAccepting(listening, lambda: Greeting(b"other", let_in))
    await soon(lambda: let_in == [b"other"])
    await connection.close()
    other.close()
