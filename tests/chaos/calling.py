"""Calls one service over connections that it keeps open: one request out, one answer in, nothing else."""

import asyncio
import re
from typing import Any, NamedTuple

import msgspec
from e2e.contract.http_client import Header, request_bytes

_STATUS = slice(9, 12)
_HEAD_END = b"\r\n\r\n"
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Answer(NamedTuple):
    """One answer, as it came; header names in small letters."""

    status: int
    head: bytes
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def says(self, header: bytes) -> bool:
        """Say whether a line stands among the headers, as `name: value`."""
        return b"\r\n" + header + b"\r\n" in self.head


class _Connection(asyncio.Protocol):
    """One request at a time; whoever waits no longer takes the connection with them."""

    def __init__(self) -> None:
        self.is_open = False
        self._received = b""
        self._transport: Any = None
        self._waiter: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.is_open, self._transport = True, transport

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        self._received = b""
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiter

    def data_received(self, data: bytes) -> None:
        self._received = data = self._received + data if self._received else data
        head_end = data.find(_HEAD_END)
        if head_end < 0 or self._waiter is None:
            return
        first = head_end + len(_HEAD_END)
        length = _CONTENT_LENGTH.search(data, 0, first)
        if len(data) - first < (int(length[1]) if length else 0):
            return
        head = data[: head_end + 2].lower()
        if not self._waiter.done():
            self._waiter.set_result(Answer(int(data[_STATUS]), head, data[first:]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc or ConnectionError("closed without an answer"))

    def end(self) -> None:
        self.is_open = False
        self._transport.abort()


class Caller:
    """Calls one service with one API key."""

    def __init__(self, port: int, api_key: str) -> None:
        self.port = port
        self._headers: list[Header] = [
            ("Authorization", f"Bearer {api_key}"),
            ("Content-Type", "application/json"),
        ]
        self._idle: list[_Connection] = []

    def request(self, method: str, path: str, body: bytes | None, *more: Header) -> bytes:
        """Write out a request; None is no body at all."""
        return request_bytes(method, path, [*self._headers, *more], body)

    async def get(self, path: str, patience_seconds: float) -> Answer:
        return await self.send(self.request("GET", path, None), patience_seconds)

    async def send(self, request: bytes, patience_seconds: float) -> Answer:
        """Send a request. Raises OSError where no answer comes, TimeoutError where none has come by then."""
        async with asyncio.timeout(patience_seconds):
            connection = await self._connection()
            try:
                answer = await connection.ask(request)
            except BaseException:
                connection.end()
                raise
        if answer.says(b"connection: close"):
            connection.end()
        else:
            self._idle.append(connection)
        return answer

    def close(self) -> None:
        for connection in self._idle:
            connection.end()

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        loop = asyncio.get_running_loop()
        _, opened = await loop.create_connection(_Connection, "127.0.0.1", self.port)
        return opened
