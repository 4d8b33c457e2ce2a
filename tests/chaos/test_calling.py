"""The client of the chaos runs, against a service that answers as it is told to."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from chaos.calling import Caller

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nIdempotent-Replayed: true\r\n\r\nhi"
PATIENCE_SECONDS = 5.0


class Service:
    """Answers each request with the next of some answers, given in pieces; none: it closes."""

    def __init__(self) -> None:
        self.answers: list[list[bytes]] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.answers and await reader.readuntil(b"\r\n\r\n"):
                for piece in self.answers.pop(0):
                    writer.write(piece)
                    await asyncio.sleep(0.01)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
def service() -> Service:
    """Give a service that has not been told what to answer."""
    return Service()


@pytest.fixture
async def caller(service: Service) -> AsyncIterator[Caller]:
    """Call it."""
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    caller = Caller(server.sockets[0].getsockname()[1], "key")
    yield caller
    caller.close()
    server.close()


async def test_one_connection_serves_one_request_after_the_other(
    service: Service, caller: Caller
) -> None:
    """An answer may come in pieces; the connection is kept for the next request."""
    service.answers = [[OK[:10], OK[10:-1], OK[-1:]], [OK]]
    for _ in range(2):
        answer = await caller.get("/", PATIENCE_SECONDS)
        assert (answer.status, answer.body) == (200, b"hi")
        assert answer.says(b"idempotent-replayed: true")
    assert service.connections == 1


async def test_an_answer_that_comes_too_late_is_nobody_elses(
    service: Service, caller: Caller
) -> None:
    """Who gives up takes the connection along: the next request has another one."""
    service.answers = [[b""] * 30 + [OK], [OK]]
    with pytest.raises(TimeoutError):
        await caller.get("/", 0.05)
    assert (await caller.get("/", PATIENCE_SECONDS)).body == b"hi"
    assert service.connections == 2


async def test_a_connection_that_ends_is_a_fault(service: Service, caller: Caller) -> None:
    """A service that closes in the middle of an answer has not answered."""
    service.answers = [[OK[:-1]]]
    with pytest.raises(ConnectionError):
        await caller.get("/", PATIENCE_SECONDS)


async def test_a_connection_that_the_service_ends_is_not_used_again(
    service: Service, caller: Caller
) -> None:
    """A service may say that this answer was the last one on its connection."""
    last = OK.replace(b"200 OK\r\n", b"200 OK\r\nConnection: close\r\n")
    service.answers = [[last], [OK]]
    for _ in range(2):
        assert (await caller.get("/", PATIENCE_SECONDS)).status == 200
    assert service.connections == 2
