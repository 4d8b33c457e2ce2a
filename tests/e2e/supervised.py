"""Runs `ringfence serve --workers N` as a real process, and looks at the processes that it starts."""

import asyncio
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from e2e.contract.http_client import Answer, Client
from e2e.contract.shop import Shop, expect_problem, line
from e2e.running import clean_environment, eventually, free_port
from e2e.serving import SERVE

START_SECONDS_MAX, STOP_SECONDS_MAX = 60.0, 60.0
# New workers need a share of the processors to start.
PAUSE_SECONDS = 0.01
_keys = itertools.count()


class Supervised:
    """One `ringfence serve` with several workers, and what it says."""

    def __init__(
        self, settings: Mapping[str, str], folder: Path, *, port: int = 0, workers: int = 2
    ) -> None:
        self.port = port or free_port()
        self._log_path = folder / "supervised.log"
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*SERVE, "--workers", str(workers)],
                cwd="/",
                env=clean_environment(folder, self.port) | dict(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self._log_path.read_text()

    @property
    def workers(self) -> list[int]:
        """Give the ids of its children, the oldest first, those that have ended but were not seen yet left out."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        listed = children.read_text().split() if children.exists() else []
        return [int(text) for text in listed if is_running(int(text))]

    def await_workers(self, count: int) -> list[int]:
        """Wait until so many workers run and all of them answer; give their ids."""
        eventually(lambda: self._has(count), START_SECONDS_MAX)
        return self.workers

    def _has(self, count: int) -> bool:
        assert self.process.poll() is None, self.said
        ready = [worker for worker in self.workers if f"Worker {worker} is ready." in self.said]
        return len(ready) == len(self.workers) == count

    async def await_said(self, sentence: str) -> None:
        """Wait until it has said something, while other work of the test goes on."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while sentence not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            await asyncio.sleep(0.02)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and give the exit status."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS_MAX)


@contextmanager
def supervised(
    settings: Mapping[str, str], folder: Path, *, port: int = 0, workers: int = 2
) -> Iterator[Supervised]:
    """Start one, and end what is left of it."""
    started = Supervised(settings, folder, port=port, workers=workers)
    try:
        yield started
    finally:
        left = started.workers
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()
        for worker in left:
            if is_running(worker):
                os.kill(worker, signal.SIGKILL)


def is_running(process_id: int) -> bool:
    """Say whether there is such a process that has not ended."""
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] not in {"Z", "X"}


class Load:
    """Clients that reserve without end, each over one connection, and what they were answered."""

    def __init__(self, port: int, api_key: str, sku: str) -> None:
        self.port, self.api_key, self.sku = port, api_key, sku
        self.stop = asyncio.Event()
        self.answers: dict[str, Answer] = {}
        # Keys of requests that were sent and whose connection ended without an answer.
        self.unanswered: list[str] = []
        self.busy = 0

    @property
    def held(self) -> list[str]:
        return [key for key, answer in self.answers.items() if answer.status in {200, 201}]

    async def run(self, clients: int) -> None:
        await asyncio.gather(*(self._sell() for _ in range(clients)))

    async def _sell(self) -> None:
        async with Client(self.port, self.api_key) as client:
            while not self.stop.is_set():
                await self._reserve(Shop(client), f"cart-{next(_keys)}")
                await asyncio.sleep(PAUSE_SECONDS)

    async def _reserve(self, shop: Shop, key: str) -> None:
        """Reserve one unit as a client does that takes no 503 for an answer."""
        while True:
            try:
                answer = await shop.reserve([line(self.sku)], key=key)
            except ConnectionError:
                self.unanswered.append(key)
                continue
            if answer.status != 503:
                self.answers[key] = answer
                return
            self.busy += 1
            slug = answer.json["type"].removeprefix("/problems/")
            expect_problem(answer, 503, slug)
            assert answer.header("retry-after") is not None, answer
            await asyncio.sleep(0.05)

    async def passes(self, more: int) -> None:
        """Wait until so many more requests have been answered."""
        wanted = len(self.answers) + more
        async with asyncio.timeout(START_SECONDS_MAX):
            while len(self.answers) < wanted:  # noqa: ASYNC110 - counted by many tasks
                await asyncio.sleep(0.01)
