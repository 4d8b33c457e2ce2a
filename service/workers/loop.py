"""The one loop under every worker: it owns the pauses, the wake-up, the back-off and the end."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping

from service.workers.outages import Outages

IDLE_SECONDS = 1.0
RETRY_SECONDS = 0.1
RETRY_SECONDS_MAX = 15.0
JITTER = 0.2
STOP_SECONDS_MAX = 5.0


# What a worker does again and again; gives how much it did.
Duty = Callable[[], Awaitable[int]]


class Loop:
    """Runs one duty again and again.

    `run_once` gives how much it did: after some, it runs again at once; after none, it waits until `wake` or
    for `idle_seconds`. What it raises is logged, and the pauses after that grow. Loops that share `outages` tell
    together, once, that a server is away.
    """

    def __init__(
        self,
        name: str,
        run_once: Duty,
        *,
        idle_seconds: float = IDLE_SECONDS,
        retry_seconds_max: float = RETRY_SECONDS_MAX,
        outages: Outages | None = None,
    ) -> None:
        self.name = name
        self.faults = 0
        self._run_once = run_once
        self._idle_seconds = idle_seconds
        self._retry_seconds_max = retry_seconds_max
        self._outages = outages or Outages()
        self._awake, self._stopping = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work beside everything else."""
        self._task = asyncio.create_task(self._run(), name=self.name)

    def wake(self) -> None:
        """Say that there is work, so that it does not wait for the next look."""
        self._awake.set()

    async def stop(self) -> None:
        """Let the duty finish what it does, within bounds, and end."""
        if self._task is None:
            return
        self._stopping.set()
        self._awake.set()
        _, late = await asyncio.wait({self._task}, timeout=STOP_SECONDS_MAX)
        for task in late:
            task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None

    async def _run(self) -> None:
        consecutive_faults = 0
        while not self._stopping.is_set():
            # Cleared before the look: who wakes during the look is heard after it.
            self._awake.clear()
            try:
                done = await self._run_once()
            except Exception as fault:  # noqa: BLE001 - the edge of a worker: its next attempt is the answer
                consecutive_faults += 1
                self.faults += 1
                self._outages.note(self.name, fault)
                await _wait(self._stopping, self._retry_pause(consecutive_faults))
                continue
            consecutive_faults = 0
            self._outages.end(self.name)
            if done == 0:
                await _wait(self._awake, _jittered(self._idle_seconds))

    def _retry_pause(self, consecutive_faults: int) -> float:
        doubled = RETRY_SECONDS * 2.0 ** min(consecutive_faults - 1, 20)
        return _jittered(min(self._retry_seconds_max, doubled))


def loops_of(duties: Mapping[str, tuple[Duty, float]]) -> dict[str, Loop]:
    """Give a loop for each duty and its pause where there is nothing to do; they tell of outages together."""
    outages = Outages()
    return {
        name: Loop(name, duty, idle_seconds=idle_seconds, outages=outages)
        for name, (duty, idle_seconds) in duties.items()
    }


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


def _jittered(seconds: float) -> float:
    """Spread the looks of many processes, so that they do not all come at once."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - chance, not a secret
