"""A request that reaches its store twice, the second time over a connection that nobody waits at."""

import asyncio
from typing import Any

# A request that did not come in one piece is not a whole one: the store would wait for the rest.
ANSWER_SECONDS_MAX = 0.5


class Ghost(asyncio.Protocol):
    """Opens a connection as another one was opened, and says once more what was said there."""

    def __init__(self, opening: bytes, request: bytes) -> None:
        self._said = opening + request
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(self._said)
        asyncio.get_running_loop().call_later(ANSWER_SECONDS_MAX, self.end)

    def end(self) -> None:
        """Wait for no answer any more."""
        if self._transport is not None:
            self._transport.abort()
