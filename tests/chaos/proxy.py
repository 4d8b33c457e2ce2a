"""A TCP proxy between one service and one of its stores: slow, cut, or deaf in one direction, as the plan says."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, Self

import msgspec
from chaos.repeating import Ghost
from chaos.trace import Trace

from allocation.commands import Extend

# Closing then sends a reset, as a host does that has forgotten the connection.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Way(Enum):
    """A direction, seen from the service."""

    REQUESTS = "requests"
    REPLIES = "replies"


BOTH_WAYS = frozenset(Way)


class Marks:
    """How the traffic that commits something is told from the rest.

    `connection` marks a connection by what is sent on it once, `request` each request (empty: all on a marked
    connection), `reply` the answer that may be dropped (empty: any), `once` what must not be said twice.
    """

    def __init__(
        self, connection: bytes, request: bytes, reply: bytes, once: bytes | None = None
    ) -> None:
        self.connection, self.request, self.reply, self.once = connection, request, reply, once

    def may_come_twice(self, data: bytes) -> bool:
        """Say whether a request means the same when it is heard again."""
        return self.request in data and (self.once is None or self.once not in data)


# An answer that names a client's reservation tells of something done; a call may also only have swept.
# An extension counts from the moment at which it is heard: to hear it again is another one.
EXTENSION = msgspec.msgpack.encode(Extend("", 0))[:2]
GATE_MARKS = Marks(b"batch_", b"batch_", b"client-", EXTENSION)
# One statement is one transaction: its status is sent with the commit's.
LEDGER_MARKS = Marks(b"INSERT INTO ledger", b"", b"INSERT 0 ")


class _Stream:
    """What flows in one direction of one connection; what may not pass yet waits, in order."""

    def __init__(self, link: "Link", way: Way, on_pass: Callable[[Way], None]) -> None:
        self._link, self._way, self._on_pass = link, way, on_pass
        self._waiting: deque[tuple[float, bytes | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.to: Any = None

    @property
    def is_holding(self) -> bool:
        return bool(self._waiting)

    @property
    def held_bytes(self) -> int:
        return sum(len(data or b"") for _, data in self._waiting)

    def feed(self, data: bytes | None) -> None:
        """Take data, or None where the sender has ended the connection."""
        self._waiting.append((self._link.loop.time() + self._link.latency_seconds, data))
        self.flow()

    def flow(self) -> None:
        """Pass on what is due, unless the link is cut in this direction."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._way in self._link.stopped or self.to is None:
            return
        while self._waiting and self._waiting[0][0] <= self._link.loop.time():
            _, data = self._waiting.popleft()
            if data is None:
                self.to.close()
            elif not self.to.is_closing():
                self.to.write(data)
                self._on_pass(self._way)
        if self._waiting:
            self._timer = self._link.loop.call_at(self._waiting[0][0], self.flow)


class _Pair:
    """One connection of the service, and the one that the proxy made for it."""

    def __init__(self, link: "Link") -> None:
        self._link = link
        self.streams = {way: _Stream(link, way, self.note_passed) for way in Way}
        self.transports: dict[Way, Any] = {}
        self._is_marked = self.is_asking = self._has_ended = False
        # What was said before the first request: who speaks, and with which password.
        self._opening = b""
        self._number = link.trace.next_connection()
        self._received = dict.fromkeys(Way, 0)
        self._note("opens")

    def note_connected(self, way: Way, transport: Any) -> None:
        """Learn the transport on which data of one direction arrives; the other direction's leave by it."""
        self.transports[way] = transport
        other = Way.REPLIES if way is Way.REQUESTS else Way.REQUESTS
        self.streams[other].to = transport
        self.streams[other].flow()

    def note_data(self, way: Way, data: bytes) -> None:
        marks = self._link.marks
        self._received[way] += len(data)
        if way is Way.REQUESTS:
            self._is_marked = self._is_marked or marks.connection in data
            if not self._is_marked:
                self._opening += data
            elif self._link.requests_to_repeat and marks.may_come_twice(data):
                self._link.repeat(self._opening, data)
                self._note("request repeated")
            if self._is_marked and marks.request in data and not self.is_asking:
                self.is_asking = True
                self._link.loop.call_soon(self._link.on_commit)
        elif self.is_asking and self._link.replies_to_drop and marks.reply in data:
            self._link.note_dropped()
            self._note("reply dropped")
            self.reset()
            return
        self.streams[way].feed(data)

    def note_passed(self, way: Way) -> None:
        if way is Way.REPLIES:
            self.is_asking = False

    def note_lost(self, way: Way) -> None:
        self.streams[way].feed(None)
        if all(transport.is_closing() for transport in self.transports.values()):
            self.is_asking = False
            self._link.pairs.discard(self)
            self._note_end("ends")

    def reset(self) -> None:
        """End both connections without a word."""
        self._link.pairs.discard(self)
        self._note_end("reset")
        for transport in self.transports.values():
            plain: socket.socket | None = transport.get_extra_info("socket")
            if plain is not None and not transport.is_closing():
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()

    def _note_end(self, what: str) -> None:
        # Both sides are told of the end.
        if not self._has_ended:
            self._has_ended = True
            self._note(what)

    def _note(self, what: str) -> None:
        self._link.trace.note(
            self._link.name,
            what,
            connection=self._number,
            requests_bytes=self._received[Way.REQUESTS],
            replies_bytes=self._received[Way.REPLIES],
            held_bytes=sum(stream.held_bytes for stream in self.streams.values()),
        )


class _Side(asyncio.Protocol):
    def __init__(self, pair: _Pair, way: Way) -> None:
        self._pair, self._way = pair, way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._pair.note_connected(self._way, transport)

    def data_received(self, data: bytes) -> None:
        self._pair.note_data(self._way, data)

    def connection_lost(self, _: Exception | None) -> None:
        self._pair.note_lost(self._way)


class Link:
    """The way from one service to one store."""

    def __init__(
        self, name: str, target_port: int, marks: Marks, trace: Trace | None = None
    ) -> None:
        self.name, self.marks = name, marks
        self.trace = trace or Trace()
        # Where new connections go.
        self.target_port = target_port
        self.loop = asyncio.get_running_loop()
        self.latency_seconds = 0.0
        self.stopped: frozenset[Way] = frozenset()
        self.replies_to_drop = 0
        self.requests_to_repeat = 0
        # Called just after something was sent that commits.
        self.on_commit: Callable[[], None] = lambda: None
        self.pairs: set[_Pair] = set()
        self.port = 0
        self._server: Any = None
        self._connecting: set[asyncio.Task[object]] = set()
        self._ghosts: list[Ghost] = []
        self._dropped, self._repeated = asyncio.Event(), asyncio.Event()

    async def open(self) -> Self:
        """Begin to listen on a free port."""
        self._server = await self.loop.create_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def close(self) -> None:
        self._server.close()
        self.reset()
        for ghost in self._ghosts:
            ghost.end()

    @property
    def commits_in_flight(self) -> int:
        """How many requests that commit something have been sent and not been answered."""
        return sum(pair.is_asking for pair in self.pairs)

    def reset(self) -> None:
        """End every connection with a reset."""
        for pair in list(self.pairs):
            pair.reset()

    def stop(self, ways: frozenset[Way]) -> None:
        """Let nothing pass in these directions; what is sent meanwhile waits in the network."""
        self.stopped = ways
        self.trace.note(self.name, "stops", note=" and ".join(sorted(way.value for way in ways)))

    def release(self) -> None:
        """Deliver what was held, late."""
        if self.stopped:
            self.trace.note(self.name, "goes on")
        self.stopped = frozenset()
        for pair in list(self.pairs):
            for stream in pair.streams.values():
                stream.flow()

    def heal(self) -> None:
        """Let everything pass again; connections that have lost something are reset."""
        for pair in list(self.pairs):
            if any(stream.is_holding for stream in pair.streams.values()):
                pair.reset()
        self.latency_seconds, self.replies_to_drop = 0.0, 0
        self.release()

    async def drop_next_reply(self, patience_seconds: float) -> bool:
        """Let the next commit be done but not be answered; False where none came by."""
        self._dropped.clear()
        self.replies_to_drop = 1
        try:
            await asyncio.wait_for(self._dropped.wait(), patience_seconds)
        except TimeoutError:
            return False
        finally:
            self.replies_to_drop = 0
        return True

    async def repeat_next_request(self, patience_seconds: float) -> bool:
        """Let the next request that commits something arrive twice; False where none came by."""
        self._repeated.clear()
        self.requests_to_repeat = 1
        try:
            await asyncio.wait_for(self._repeated.wait(), patience_seconds)
        except TimeoutError:
            return False
        finally:
            self.requests_to_repeat = 0
        return True

    def repeat(self, opening: bytes, request: bytes) -> None:
        """Say a request once more, over a connection of its own."""
        self.requests_to_repeat -= 1
        self._repeated.set()
        ghost = Ghost(opening, request)
        self._ghosts.append(ghost)
        self._spawn(self.loop.create_connection(lambda: ghost, "127.0.0.1", self.target_port))

    def note_dropped(self) -> None:
        self.replies_to_drop -= 1
        self._dropped.set()

    def _accept(self) -> asyncio.Protocol:
        pair = _Pair(self)
        self.pairs.add(pair)
        self._spawn(self._connect(pair))
        return _Side(pair, Way.REQUESTS)

    def _spawn(self, connecting: Coroutine[Any, Any, object]) -> None:
        task = self.loop.create_task(connecting)
        self._connecting.add(task)
        task.add_done_callback(self._end_connecting)

    def _end_connecting(self, task: "asyncio.Task[object]") -> None:
        self._connecting.discard(task)
        if not task.cancelled():
            # A store that is away hears nothing twice.
            task.exception()

    async def _connect(self, pair: _Pair) -> None:
        try:
            await self.loop.create_connection(
                lambda: _Side(pair, Way.REPLIES), "127.0.0.1", self.target_port
            )
        except OSError:
            pair.reset()
