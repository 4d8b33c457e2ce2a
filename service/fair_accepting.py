"""Takes connections from a socket on which several processes listen, so that each gets its part."""

import asyncio
import socket
from collections.abc import Callable

# A process that wakes first would otherwise take all that wait, before the others have woken.
AT_ONCE, PAUSE_SECONDS = 2, 0.001
# As asyncio's own servers do where no descriptor is left.
FAULT_PAUSE_SECONDS = 1.0


class FairAccepting:
    """Accepts a few connections, then stands back for a moment; those that wait are let in by the others."""

    def __init__(
        self, listening: socket.socket, make_protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        self._listening, self._make_protocol = listening, make_protocol
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listening.settimeout(0)
        self._watch()

    def close(self) -> None:
        """Take no more; the socket stays with the other processes."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def _watch(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        pause_seconds = PAUSE_SECONDS
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                # Another process was faster, or the client has gone.
                break
            except OSError:
                pause_seconds = FAULT_PAUSE_SECONDS
                break
            connection.settimeout(0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opening = self._loop.create_task(
                self._loop.connect_accepted_socket(self._make_protocol, connection)
            )
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
        self._loop.remove_reader(self._listening)
        self._pause = self._loop.call_later(pause_seconds, self._watch)
