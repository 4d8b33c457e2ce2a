"""A raw HTTP/1.1 connection that keeps alive: one request out, one answer in, as cheap as Python can."""

import asyncio
import re
import time
from collections.abc import Callable
from typing import cast

STATUS_START, STATUS_END = 9, 12
_VERSION = b"HTTP/1.1 "
_HEAD_END = b"\r\n\r\n"
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)

Answered = Callable[["Connection", int, float], None]


class ProtocolBroken(Exception):
    """The server sent something that is not one whole answer to one request."""


class Connection(asyncio.Protocol):
    """Tells `answered` the status of each answer; `intended_at` is when the request was due."""

    def __init__(self, answered: Answered, failed: Callable[[Exception], None]) -> None:
        self.intended_at = 0.0
        self.closing = False
        self._answered, self._failed = answered, failed
        self._received = b""
        self._waits = False
        self._transport: asyncio.Transport | None = None
        self._write: Callable[[bytes], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._write = self._transport.write

    def send(self, message: bytes, intended_at: float) -> None:
        """Send one request; the one before must have been answered."""
        assert self._write is not None, "Bug: a request on a connection that is not open"
        self.intended_at = intended_at
        self._waits = True
        self._write(message)

    def close(self) -> None:
        self.closing = True
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        head_end = data.find(_HEAD_END)
        if head_end < 0:
            self._received = data
            return
        length = _CONTENT_LENGTH.search(data, 0, head_end + 2)
        if length is None or not data.startswith(_VERSION) or not self._waits:
            self._failed(ProtocolBroken(f"Unexpected bytes: {data[:200]!r}"))
            return
        missing = head_end + len(_HEAD_END) + int(length[1]) - len(data)
        if missing > 0:
            self._received = data
        elif missing < 0:
            self._failed(ProtocolBroken(f"More than one answer: {data[:200]!r}"))
        else:
            self._received = b""
            self._waits = False
            self._answered(self, int(data[STATUS_START:STATUS_END]), time.perf_counter())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closing:
            self._failed(exc or ProtocolBroken("The server closed a connection."))
