"""Reads the body of a request within its bounds of size; those of time are the HTTP server's."""

import asyncio
from typing import Any

from litestar.types import Receive

from service.api.problems import Problem

DROPPED_BYTES_MAX = 64 * 1_048_576
DROPPED_PAUSE_SECONDS_MAX = 0.5


async def read_body(content_length: int, receive: Receive, bytes_max: int) -> bytes:
    """Read the whole body. Raises the problem where it is too large, or ends early."""
    message: Any = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body") and len(body) <= bytes_max:
        message = await receive()
        body += message.get("body", b"")
    if message.get("more_body"):
        await _drop_the_rest(receive)
    if len(body) > bytes_max:
        raise Problem("too-large", f"A body may have {bytes_max} bytes.")
    if message["type"] == "http.disconnect" or len(body) < content_length:
        raise Problem("invalid-request", "The body ended early.")
    return body


async def _drop_the_rest(receive: Receive) -> None:
    """Read on what is too large: a caller who is still sending would not see the answer."""
    size = 0
    more = True
    try:
        while more and size <= DROPPED_BYTES_MAX:
            async with asyncio.timeout(DROPPED_PAUSE_SECONDS_MAX):
                message: Any = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
    except TimeoutError:
        return
