"""The load generator, a process of its own: `python -m benchmarks.load` takes a plan and gives a report.

Workload design. Requests are bytes made before the start; where each must have a key of its own, the key is
put between two halves. Three modes:

  closed   every connection sends its next request when the last one was answered, until the time is up
  open     requests are due at a fixed rate, whatever the server does. A request that is due while every
           connection is busy waits in line, and its latency counts from when it was due (no coordinated
           omission). Timers tick once a millisecond, so up to 1 ms of each latency is the generator's own.
  once     every template is sent once, shared out over the connections

Answers inside the warm-up are checked and counted in `statuses`, but not measured. The first answer with a
status that the plan does not expect, or a broken connection, ends the run as a failure.
"""

import asyncio
import gc
import itertools
import random
import subprocess
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from typing import Literal

import msgspec
import uvloop

from benchmarks.http_client import Connection

DRAIN_SECONDS = 15.0
TICK_SECONDS = 0.001
CYCLE_LENGTH = 16_384


class LoadFailed(Exception):
    """The server did not answer as the plan expects, so there is no figure."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send to whom; `templates` are the bytes before and after the key."""

    port: int
    templates: list[tuple[bytes, bytes]]
    expected: list[int]
    mode: Literal["closed", "open", "once"] = "closed"
    host: str = "127.0.0.1"
    key_prefix: str | None = None
    connections: int = 64
    seconds: float = 3.0
    warm_up_seconds: float = 0.5
    requests_per_second: float = 0.0
    seed: int = 1


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a plan; latencies are of measured answers, in order of arrival.

    `all_seconds` is from the first request to the last answer, with warm-up and what was answered late.
    """

    statuses: dict[int, int]
    measured: int
    seconds: float
    all_seconds: float
    latencies_seconds: list[float]
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.measured / self.seconds

    @property
    def answers(self) -> int:
        return sum(self.statuses.values())


class _Generator:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._expected = frozenset(plan.expected)
        self._statuses: Counter[int] = Counter()
        self._latencies = array("d")
        self._messages = _messages(plan)
        self._connections: list[Connection] = []
        self._idle: deque[Connection] = deque()
        self._due: deque[float] = deque()
        self._in_flight = 0
        self._measure_from = self._stop_at = self._last_at = 0.0
        self._measured = 0
        self._exhausted = False
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> Report:
        loop = asyncio.get_running_loop()
        for _ in range(self._plan.connections):
            _, connection = await loop.create_connection(
                lambda: Connection(self._answered, self._fail), self._plan.host, self._plan.port
            )
            self._connections.append(connection)
        cpu_before = time.process_time()
        begun_at = time.perf_counter()
        self._measure_from = begun_at + self._plan.warm_up_seconds
        self._stop_at = self._measure_from + self._plan.seconds
        if self._plan.mode == "open":
            self._idle.extend(self._connections)
            ticking = asyncio.create_task(self._tick(begun_at))
        else:
            ticking = None
            for connection in self._connections:
                self._send_next(connection, time.perf_counter())
        limit = None if self._plan.mode == "once" else self._stop_at - begun_at + DRAIN_SECONDS
        try:
            await asyncio.wait_for(self._finished, limit)
        except TimeoutError:
            raise LoadFailed(f"{self._in_flight} requests were never answered.") from None
        finally:
            if ticking is not None:
                ticking.cancel()
            for connection in self._connections:
                connection.close()
        ended_at = self._last_at if self._plan.mode == "once" else self._stop_at
        return Report(
            statuses=dict(self._statuses),
            measured=self._measured,
            seconds=ended_at - self._measure_from,
            all_seconds=self._last_at - begun_at,
            latencies_seconds=self._latencies.tolist(),
            cpu_seconds=time.process_time() - cpu_before,
        )

    def _send_next(self, connection: Connection, now: float) -> None:
        if now < self._stop_at or self._plan.mode == "once":
            message = next(self._messages, None)
            if message is not None:
                self._in_flight += 1
                connection.send(message, now)
                return
        self._exhausted = True
        if self._in_flight == 0 and not self._finished.done():
            self._finished.set_result(None)

    def _answered(self, connection: Connection, status: int, now: float) -> None:
        self._in_flight -= 1
        self._last_at = now
        self._statuses[status] += 1
        if status not in self._expected:
            self._fail(
                LoadFailed(f"An answer had status {status}, expected {self._plan.expected}.")
            )
            return
        if self._plan.mode == "open":
            self._note_latency(connection.intended_at, now, by=connection.intended_at)
            self._send_due(connection)
        else:
            self._note_latency(connection.intended_at, now, by=now)
            self._send_next(connection, now)

    def _note_latency(self, intended_at: float, now: float, *, by: float) -> None:
        # In the open loop a request belongs to the window in which it was due, however late its answer.
        if self._measure_from <= by and (by < self._stop_at or self._plan.mode == "once"):
            self._measured += 1
            self._latencies.append(now - intended_at)

    async def _tick(self, begun_at: float) -> None:
        gap = 1.0 / self._plan.requests_per_second
        number = 0
        while True:
            now = time.perf_counter()
            while (due_at := begun_at + number * gap) <= now and due_at < self._stop_at:
                self._due.append(due_at)
                number += 1
            while self._due and self._idle:
                self._send_due(self._idle.popleft())
            if begun_at + number * gap >= self._stop_at:
                self._exhausted = True
                return
            await asyncio.sleep(TICK_SECONDS)

    def _send_due(self, connection: Connection) -> None:
        if self._due:
            self._in_flight += 1
            connection.send(next(self._messages), self._due.popleft())
            return
        self._idle.append(connection)
        if self._exhausted and self._in_flight == 0 and not self._finished.done():
            self._finished.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self._finished.done():
            self._finished.set_exception(error)


def _messages(plan: Plan) -> Iterator[bytes]:
    if plan.mode == "once":
        chosen: Iterator[tuple[bytes, bytes]] = iter(plan.templates)
    else:
        generator = random.Random(plan.seed)
        chosen = itertools.cycle(generator.choices(plan.templates, k=CYCLE_LENGTH))
    if plan.key_prefix is None:
        return (before + after for before, after in chosen)
    prefix = plan.key_prefix.encode()
    return (
        b"%s%s-%016x%s" % (before, prefix, number, after)
        for number, (before, after) in enumerate(chosen)
    )


async def generate(plan: Plan) -> Report:
    """Carry a plan out in this process."""
    return await _Generator(plan).run()


def run_plan(plan: Plan) -> Report:
    """Carry a plan out in a process of its own, which shares no lock with anybody."""
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=msgspec.msgpack.encode(plan),
        stdout=subprocess.PIPE,
        check=False,
    )
    if finished.returncode != 0:
        raise LoadFailed("The load generator failed; it says above why.")
    return msgspec.msgpack.decode(finished.stdout, type=Report)


def main() -> None:
    """Read a plan from stdin, write the report to stdout; exit 1 where an answer was unexpected."""
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)
    # Nothing here makes cycles, and a collection would look like a slow server.
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            report = runner.run(generate(plan))
        except Exception as error:  # noqa: BLE001
            sys.exit(f"{type(error).__name__}: {error}")
    sys.stdout.buffer.write(msgspec.msgpack.encode(report))


if __name__ == "__main__":
    main()
