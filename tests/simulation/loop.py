"""An event loop in virtual time: one seed decides the order in which everything happens.

Work runs in lanes. A lane is one machine's thread: what is ready in it runs in the order in which it became ready,
as asyncio promises. Which lane goes next is drawn. A lane can be paused, and what becomes ready then waits for it;
or be killed, and its tasks never run again. There is no input, no output and no thread, and time passes only when
nothing is ready.
"""

import asyncio
import heapq
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, TypeVar

Result = TypeVar("Result")
CLOSINGS_MAX = 10


class Lane:
    """A thread of some machine: what is ready in it, and whether it runs."""

    __slots__ = ("dead", "listed", "name", "paused", "ready")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: deque[_Handle] = deque()
        self.paused = self.dead = self.listed = False


_LANE: ContextVar[Lane | None] = ContextVar("lane", default=None)


class StuckError(Exception):
    """Virtual time is over, or nothing will ever happen again, and the work is not done."""


class _Handle:
    """A callback that waits for its turn."""

    __slots__ = ("_when", "arguments", "callback", "context", "is_cancelled", "lane")

    def __init__(
        self, when: float, callback: Callable[..., object], arguments: tuple[Any, ...], context: Any
    ) -> None:
        self._when = when
        self.callback, self.arguments, self.context = callback, arguments, context
        self.lane: Lane | None = context.get(_LANE)
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self._when


class SimulationLoop(asyncio.AbstractEventLoop):
    """Runs tasks in virtual time, lanes in an order drawn from `random`."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._now = 0.0
        self._timers: list[tuple[float, int, _Handle]] = []
        self._timers_made = 0
        self._world = Lane("world")
        self._active: list[Lane] = []
        # Kept, so that no task that was killed is collected, and closed, in the middle of a run.
        self._tasks: list[asyncio.Task[Any]] = []
        self.steps = 0

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Result],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Result]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        handle = _Handle(self._now, callback, args, copy_context() if context is None else context)
        self._enqueue(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Any:
        handle = _Handle(when, callback, args, copy_context() if context is None else context)
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, handle))
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Do nothing: whoever is told of a fault too late, when it is collected, cannot be told in order."""

    # What a simulation asks of it beyond that.

    def context_of(self, lane: Lane) -> Context:
        """Give a context whose work runs in `lane`."""
        context = copy_context()
        context.run(_LANE.set, lane)
        return context

    def start(
        self, lane: Lane, work: Coroutine[Any, Any, Result], name: str
    ) -> asyncio.Task[Result]:
        """Begin a task in a lane."""
        return self.create_task(work, name=name, context=self.context_of(lane))

    def pause(self, lane: Lane) -> None:
        """Let nothing run in a lane for now."""
        lane.paused = True
        self._unlist(lane)

    def resume(self, lane: Lane) -> None:
        """Let a lane go on where it stopped."""
        lane.paused = False
        self._list(lane)

    def kill(self, lane: Lane) -> None:
        """Let nothing run in a lane ever again."""
        lane.dead = True
        self._unlist(lane)
        lane.ready.clear()

    def run(self, work: Coroutine[Any, Any, Result], seconds_max: float) -> Result:
        """Run until `work` is done. Raises StuckError when that takes more virtual time than given."""
        asyncio._set_running_loop(self)
        hooks = sys.get_asyncgen_hooks()
        # What was killed is never gone on with, not even to tidy up.
        sys.set_asyncgen_hooks(None, _let_be)
        try:
            main = self.create_task(work)
            while not main.done():
                self._step(seconds_max)
            return main.result()
        finally:
            asyncio._set_running_loop(None)
            self._forget()
            sys.set_asyncgen_hooks(*hooks)

    def _step(self, seconds_max: float) -> None:
        if not self._active:
            self._pass_time(seconds_max)
            return
        self.steps += 1
        active = self._active
        index = int(self._random.random() * len(active)) if len(active) > 1 else 0
        lane = active[index]
        handle = lane.ready.popleft()
        if not lane.ready:
            lane.listed = False
            active[index] = active[-1]
            active.pop()
        if not handle.is_cancelled:
            handle.context.run(handle.callback, *handle.arguments)

    def _pass_time(self, seconds_max: float) -> None:
        while self._timers and not self._active:
            when, _, handle = heapq.heappop(self._timers)
            if handle.is_cancelled:
                continue
            self._now = max(self._now, when)
            if self._now > seconds_max:
                raise StuckError(f"not done after {seconds_max:.0f} s")
            self._enqueue(handle)
        # All that is due at one moment takes part in the draw.
        while self._timers and self._timers[0][0] <= self._now:
            self._enqueue(heapq.heappop(self._timers)[2])
        if not self._active and not self._timers:
            raise StuckError("nothing will ever happen again")

    def _enqueue(self, handle: _Handle) -> None:
        lane = handle.lane or self._world
        if lane.dead or handle.is_cancelled:
            return
        lane.ready.append(handle)
        if not lane.listed:
            self._list(lane)

    def _list(self, lane: Lane) -> None:
        if lane.ready and not (lane.listed or lane.paused or lane.dead):
            lane.listed = True
            self._active.append(lane)

    def _unlist(self, lane: Lane) -> None:
        if lane.listed:
            lane.listed = False
            self._active.remove(lane)

    def _forget(self) -> None:
        """Drop what is left, without a word from asyncio about tasks that were never awaited."""
        for task in self._tasks:
            task._log_destroy_pending = False
            if not task.done():
                _close(task.get_coro())
            elif not task.cancelled():
                task.exception()
        self._tasks.clear()
        self._timers.clear()
        self._active.clear()


def _let_be(_generator: AsyncGenerator[Any, Any]) -> None:
    return


def _close(work: Any) -> None:
    # What tidies up with an await of its own refuses to end there, once for each such await.
    for _ in range(CLOSINGS_MAX):
        try:
            work.close()
        except RuntimeError:
            continue
        return
