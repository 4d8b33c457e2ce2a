"""Keeps several service processes running on one port, and replaces them one after the other."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress

import click

from service.processes.child import Child, end

PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.1, 5.0
# A process that has lived so long did not end because it cannot start.
STEADY_SECONDS = 10.0
# A new process may have to wait for a take-over by a rebuild.
READY_SECONDS_MAX = 300.0
# What a process gives itself to stop, and time to spare.
STOP_SECONDS_MAX = 30.0


class Supervisor:
    """Starts `count` processes with `start`; `prepare` starts what has to be done before they are replaced.

    `on_stop` is called when no more will be started, before those that run are ended.
    """

    def __init__(
        self,
        count: int,
        *,
        start: Callable[[], Child],
        prepare: Callable[[], Child],
        on_stop: Callable[[], None],
    ) -> None:
        self._count, self._start_child, self._prepare = count, start, prepare
        self._on_stop = on_stop
        # Those that hold a place, by its number; and all that run, those that come and go included.
        self._serving: list[Child] = []
        self._running: set[Child] = set()
        self._stopping, self._replacing = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """Let `run` end every process and return."""
        self._stopping.set()

    def replace(self) -> None:
        """Put a new process in the place of each, one after the other, without a pause in the service."""
        self._replacing.set()

    async def run(self) -> bool:
        """Keep the processes running until `stop`; say whether they could be started at all."""
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            if not await self._start_first(stopped):
                return stopped.done()
            self._do(self._replace_forever())
            await asyncio.wait({stopped, self._broken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._on_stop()
            await end([*self._running], STOP_SECONDS_MAX)
        if self._broken.done():
            self._broken.result()
        return True

    async def _start_first(self, stopped: asyncio.Task[bool]) -> bool:
        # One shows whether it can be done; what stops all of them should be said once.
        first = self._start(self._start_child)
        await asyncio.wait({first.ready, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not first.ready.done() or not first.ready.result():
            return False
        self._serving = [first, *(self._start(self._start_child) for _ in range(1, self._count))]
        for place, child in enumerate(self._serving):
            self._do(self._watch(place, child))
        return True

    def _start(self, start: Callable[[], Child]) -> Child:
        child = start()
        self._running.add(child)
        child.ready.add_done_callback(lambda _: _say_if_ready(child))
        child.ended.add_done_callback(lambda _: self._running.discard(child))
        return child

    async def _watch(self, place: int, child: Child) -> None:
        """Put another process in the place of one that ends by itself, the later the more often it happens."""
        pause = PAUSE_SECONDS_MIN
        while True:
            await asyncio.wait({child.ended})
            if self._serving[place] is not child:
                return
            if asyncio.get_running_loop().time() - child.started_at > STEADY_SECONDS:
                pause = PAUSE_SECONDS_MIN
            _say(f"Worker {child.process_id} has ended with status {child.ended.result()}.")
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)
            if self._serving[place] is not child:
                return
            try:
                child = self._serving[place] = self._start(self._start_child)
            except OSError as error:
                _say(f"No worker can be started in its place: {error.strerror}.")

    async def _replace_forever(self) -> None:
        while True:
            await self._replacing.wait()
            self._replacing.clear()
            try:
                done = await self._replace_all()
            except OSError as error:
                done = False
                _say(f"No worker can be started: {error.strerror}.")
            _say("Every worker is new." if done else "The workers that were there go on.")

    async def _replace_all(self) -> bool:
        prepared = self._start(self._prepare)
        await asyncio.wait({prepared.ended})
        if prepared.ended.result() != 0:
            return False
        for place in range(self._count):
            successor = self._start(self._start_child)
            await asyncio.wait({successor.ready}, timeout=READY_SECONDS_MAX)
            if not successor.ready.done() or not successor.ready.result():
                await end([successor], STOP_SECONDS_MAX)
                return False
            predecessor, self._serving[place] = self._serving[place], successor
            self._do(self._watch(place, successor))
            await end([predecessor], STOP_SECONDS_MAX)
        return True

    def _do(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None and not self._broken.done():
            self._broken.set_exception(fault)


def _say_if_ready(child: Child) -> None:
    if child.ready.result():
        _say(f"Worker {child.process_id} is ready.")


def _say(sentence: str) -> None:
    # A terminal that was closed is no reason to stop selling.
    with suppress(OSError):
        click.echo(sentence, err=True)
