"""A plain HTTP/1.1 client that sends exactly what a test gives it, also what no library would send."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import msgspec

ANSWER_SECONDS_MAX = 20.0
Header = tuple[str, str]


class Answer(NamedTuple):
    """One answer, as it came."""

    status: int
    headers: list[Header]
    body: bytes

    def __repr__(self) -> str:
        return f"{self.status} {dict(self.headers)} {self.body[:300]!r}"

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    def header(self, name: str) -> str | None:
        """Give the value of a header that must not be there twice."""
        values = [value for known, value in self.headers if known == name]
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0] if values else None


class Connection:
    """One connection; a request is whatever bytes the test writes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def write(self, text: bytes) -> None:
        self._writer.write(text)

    async def drain(self) -> None:
        await self._writer.drain()

    def end_writing(self) -> None:
        """Say that nothing more will come, as a client does that ends in the middle of a body."""
        self._writer.write_eof()

    async def read_answer(self) -> Answer:
        """Read one answer. Raises ConnectionError where the service closes without one."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                return await self._read_answer()
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("closed without an answer") from error

    async def _read_answer(self) -> Answer:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        parts = [line.partition(":") for line in lines]
        headers = [(name.lower(), value.strip()) for name, _, value in parts]
        answer = Answer(int(status_line.split(" ")[1]), headers, b"")
        body = await self._reader.readexactly(int(answer.header("content-length") or 0))
        return answer._replace(body=body)

    @property
    def was_closed(self) -> bool:
        """Say whether the service has closed it, as it does with one that is idle for too long."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def until_closed(self) -> bytes:
        """Read what comes until the service closes the connection."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                return await self._reader.read()
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return


def request_bytes(
    method: str, path: str, headers: Sequence[Header] = (), body: bytes | None = None
) -> bytes:
    """Write out one request; a body has its length declared."""
    lines = [f"{method} {path} HTTP/1.1", "Host: ringfence.test"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class Client:
    """Calls one service with one API key, over connections that it keeps open."""

    def __init__(self, port: int, api_key: str) -> None:
        self.port, self.api_key = port, api_key
        self._idle: list[Connection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._idle:
            await connection.close()

    def headers(self, *more: Header) -> list[Header]:
        """Give the headers of an ordinary request."""
        return [
            ("Authorization", f"Bearer {self.api_key}"),
            ("Content-Type", "application/json"),
            *more,
        ]

    async def get(self, path: str) -> Answer:
        return await self.send(request_bytes("GET", path, self.headers()))

    async def put(self, path: str, body: object) -> Answer:
        return await self._with_body("PUT", path, body)

    async def post(self, path: str, body: object = None, key: str | None = None) -> Answer:
        """Post a body, encoded as JSON unless it is bytes; None is no body at all."""
        more = [] if key is None else [("Idempotency-Key", key)]
        return await self._with_body("POST", path, body, *more)

    async def _with_body(self, method: str, path: str, body: object, *more: Header) -> Answer:
        encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
        sent = b"" if body is None else encoded
        return await self.send(request_bytes(method, path, self.headers(*more), sent))

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.was_closed:
                return connection
            await connection.close()
        return await Connection.open(self.port)

    async def send(self, request: bytes) -> Answer:
        """Send bytes and read the answer, on a connection that nobody uses meanwhile."""
        connection = await self._connection()
        try:
            connection.write(request)
            answer = await connection.read_answer()
        except BaseException:
            await connection.close()
            raise
        if answer.header("connection") == "close":
            await connection.close()
        else:
            self._idle.append(connection)
        return answer
