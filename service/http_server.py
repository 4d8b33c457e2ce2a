"""Serves HTTP with uvicorn, inside the bounds of head size and time that it does not set itself."""

import asyncio
import fcntl
import math
import socket
import sys
import termios
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from uvicorn import Config
from uvicorn import Server as UvicornServer
from uvicorn._types import ASGI3Application, ASGIApplication
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from service.api.problems import Problem
from service.fair_accepting import FairAccepting

HEAD_BYTES_MAX = 32_768
HEADERS_MAX = 100
HEAD_SECONDS_MAX = 10.0
BODY_SECONDS_MAX = 10.0
# Longer than clients and proxies keep their idle connections, so that it is they who close them.
IDLE_SECONDS_MAX = 75
BACKLOG = 1024
STOP_SECONDS_MAX = 10
_LOOK_TICKS = 10
_DRAIN_LOOK_SECONDS = 0.02
# A connection that comes while the last are awaited gets this long to send its request.
_LATECOMER_SECONDS = 1.0


class _State(ServerState):
    """What all connections know of their server."""

    # Whether every answer from now on is the last on its connection.
    draining = False


class _OneWrite:
    """The transport as one answer sees it: its head leaves together with the first part of its body.

    Uvicorn writes them one after the other, and a write costs more than all else that it does for an answer.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif self._head is None and not data.startswith(b"HTTP/1.1 100 "):
            self._head = data
            return
        self._transport.write(data)

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class _Protocol(HttpToolsProtocol):
    """One connection. What is no HTTP is answered with a problem, like any other bad input.

    Patience is one moment for each connection, looked at once a second: a timer for every request would cost
    more than decoding it.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._state = cast(_State, self.server_state)
        self._head_bytes = 0
        self._in_head = True
        # When to give up on what the client has yet to send; never, while it waits for an answer.
        self._patience_ends_at = self.loop.time() + IDLE_SECONDS_MAX
        # The request that was made the last of this connection, though its client would send more.
        self._made_last: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as uvicorn's
        super().connection_made(transport)
        if self._state.draining:
            self.loop.call_later(_LATECOMER_SECONDS, self.shutdown)

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._in_head = True
        self._patience_ends_at = self.loop.time() + HEAD_SECONDS_MAX
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._patience_ends_at = self.loop.time() + BODY_SECONDS_MAX
        if len(self.headers) > HEADERS_MAX or len(self.url) > HEAD_BYTES_MAX:
            problem = _too_large()
            self._end_with(problem)
            raise problem
        super().on_headers_complete()
        if self._state.draining:
            self._make_newest_last()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if not self.cycle.response_complete:
            self._patience_ends_at = math.inf

    def on_response_complete(self) -> None:
        # As uvicorn's, but for the timer that it sets for every answer.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self._in_head:
            self._patience_ends_at = self.loop.time() + IDLE_SECONDS_MAX

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        cycle.transport = cast(asyncio.Transport, _OneWrite(cycle.transport))
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._end_with(_too_large())

    def end_if_slow(self, now: float) -> None:
        """Give up on a request that takes too long to arrive, and on a connection that nobody uses."""
        if self._patience_ends_at > now:
            return
        if self._head_bytes if self._in_head else not self.cycle.response_complete:
            self._end_with(Problem("request-timeout"))
        else:
            self.transport.close()

    def drain(self) -> None:
        """Let the newest request be the last, if one is under way."""
        cycle = self._cycle_if_any()
        if cycle is not None and not cycle.response_complete:
            self._make_newest_last()

    def shutdown(self) -> None:
        """End the connection, after the answer to what has been sent on it."""
        self.drain()
        if self._is_idle:
            self.transport.close()

    @property
    def _is_idle(self) -> bool:
        cycle = self._cycle_if_any()
        if cycle is not None and not cycle.response_complete:
            return False
        arriving = self._in_head and self._head_bytes > 0
        return not arriving and not _unread_bytes(self.transport)

    def _make_newest_last(self) -> None:
        earlier = self._made_last
        if earlier is not None and not earlier.response_started:
            # One more has come behind it, and is answered as well.
            earlier.keep_alive = True
        self._made_last = self.cycle if self.cycle.keep_alive else None
        self.cycle.keep_alive = False

    def _cycle_if_any(self) -> RequestResponseCycle | None:
        # The annotation leaves out that there is none before the first request.
        return self.cycle

    def send_400_response(self, msg: str) -> None:
        del msg
        self._end_with(Problem("invalid-request", "This is not a request of HTTP/1.1."))

    def _end_with(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        cycle = self._cycle_if_any()
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                # The request before this one was whole, and may have been done: its answer comes, and no other.
                cycle.keep_alive = False
                return
            if cycle.response_started:
                self.transport.close()
                return
        body = problem.body()
        headers = [*problem.headers(), (b"content-length", b"%d" % len(body))]
        lines = [b"%s: %s" % header for header in (*headers, (b"connection", b"close"))]
        status = STATUS_LINE[problem.kind.status].strip()
        self.transport.write(b"\r\n".join([status, *lines, b"", body]))
        self.transport.close()


def _too_large() -> Problem:
    limits = f"{HEAD_BYTES_MAX} bytes and {HEADERS_MAX} headers"
    return Problem("too-large", f"The head of a request may have {limits}.")


def _unread_bytes(transport: asyncio.Transport) -> int:
    """Say how much has arrived that nobody has read; to close now would take the answer to it away."""
    if transport.is_closing():
        return 0
    waiting = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
    return int.from_bytes(waiting, sys.byteorder)


class Server(UvicornServer):
    """A server in the event loop of the caller, who also minds the signals.

    In the end idle connections are kept for `linger_seconds`: a request that comes on one meanwhile is
    answered, and told to be the last, so that no client sends into a connection that is just being closed.
    """

    def __init__(self, app: object, host: str, port: int, linger_seconds: float = 0.0) -> None:
        super().__init__(
            Config(
                cast(ASGIApplication, app),
                host=host,
                port=port,
                http=_Protocol,
                ws="none",
                loop="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=IDLE_SECONDS_MAX,
                timeout_graceful_shutdown=STOP_SECONDS_MAX,
                backlog=BACKLOG,
            )
        )
        self.server_state = self._state = _State()
        self._linger_seconds = linger_seconds
        self._shared: list[FairAccepting] = []

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen; where sockets are given, other processes listen on them too."""
        await super().startup(None if sockets is None else [])
        self._shared = [FairAccepting(one, self._make_protocol) for one in sockets or ()]

    def _make_protocol(self) -> _Protocol:
        return _Protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def on_tick(self, counter: int) -> bool:
        """Look after connections once a second; uvicorn calls this ten times in one."""
        if counter % _LOOK_TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                cast(_Protocol, connection).end_if_slow(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and end each that there is behind its last answer."""
        self._state.draining = True
        for listening in (*self.servers, *self._shared):
            listening.close()
        connections = self.server_state.connections
        for connection in list(connections):
            cast(_Protocol, connection).drain()
        now = asyncio.get_running_loop().time
        lingers_until = now() + self._linger_seconds
        while connections and now() < lingers_until:  # noqa: ASYNC110 - uvicorn has no event to wait for
            await asyncio.sleep(_DRAIN_LOOK_SECONDS)
        await super().shutdown(sockets)

    def stop(self) -> None:
        """Answer what is under way, then return from `serve`."""
        self.should_exit = True
