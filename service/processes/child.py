"""A child process as its supervisor sees it: started, ready, ended."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from service.embedded.processes import dies_with_parent

# A new interpreter each time, on the code that is installed then; -P: not on what lies in the current folder.
_PYTHON = (sys.executable, "-P")


class Child:
    """A new interpreter that receives SIGTERM when this process ends, however it ends.

    Both futures are results only, never faults: `ready` says whether the child reported before it ended, and
    `ended` gives its exit status, negative for a signal.
    """

    def __init__(self, arguments: Sequence[str], descriptors: Sequence[int] = ()) -> None:
        """Start it; the last descriptor that it inherits is its end of a pipe, to report on."""
        self._loop = asyncio.get_running_loop()
        self.started_at = self._loop.time()
        self.ready: asyncio.Future[bool] = self._loop.create_future()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._reading, writing = os.pipe()
        inherited = (*descriptors, writing)
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [*_PYTHON, *arguments, *map(str, inherited if descriptors else ())],
                stdin=subprocess.DEVNULL,
                pass_fds=inherited,
                # Ctrl-C reaches a terminal's whole process group, and the order of stopping is ours.
                start_new_session=True,
                preexec_fn=dies_with_parent(signal.SIGTERM),  # noqa: PLW1509
            )
        except OSError:
            os.close(self._reading)
            raise
        finally:
            os.close(writing)
        self._loop.add_reader(self._reading, self._read)

    @property
    def process_id(self) -> int:
        return self._process.pid

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens where the child has ended."""
        self._process.send_signal(number)

    def _read(self) -> None:
        if os.read(self._reading, 1):
            self.ready.set_result(True)
            return
        # Only its end closes the other end, so that there is next to nothing to wait for.
        self._loop.remove_reader(self._reading)
        os.close(self._reading)
        status = self._process.wait()
        if not self.ready.done():
            self.ready.set_result(False)
        self.ended.set_result(status)


async def end(children: Sequence[Child], wait_seconds: float) -> None:
    """Stop children gracefully, and by force those that take longer than `wait_seconds`."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        running = {child.ended: child for child in children if not child.ended.done()}
        if not running:
            return
        for child in running.values():
            child.send_signal(number)
        await asyncio.wait(running, timeout=wait_seconds)
