"""The time from a sale to the storefront that hears of it.

Workload design. One reader follows GET /v1/channels/web/deltas from the snapshot's cursor on. Reservations of one
unit are due at 200 a second, evenly, going round 1,000 SKUs, each with its own key; so each changes the figure of
one SKU. The latency of a sale runs from when it was due to be sent, so it has the whole reservation in it, to
when the reader has the event whose figure has that sale in it. Every sale must be seen within seconds of the
last one, ids must have no gap, and every answer must be 201.
"""

import asyncio
import time
from collections import defaultdict, deque
from typing import Any

import httpx
import msgspec
import uvloop

from benchmarks.figures import Figure, Settings, Target, latency_figures
from benchmarks.http_client import Connection
from benchmarks.load import LoadFailed
from benchmarks.messages import KEY, reservation_messages
from benchmarks.running import Running, load_catalogue, running_service

OPENING_UNITS = 1_000_000
CONNECTIONS = 16
SEEN_SECONDS = 10.0
CREATED = 201
_DATA, _ID = "data: ", "id: "


class _Item(msgspec.Struct, frozen=True):
    """A figure, as the snapshot and each event have it."""

    sku: str
    available: int


class _Snapshot(msgspec.Struct, frozen=True):
    cursor: int
    items: list[_Item]


class _Sales:
    """Sells at a fixed rate, and notes when each sale was due and when an event had it in it."""

    def __init__(self, snapshot: _Snapshot, skus: list[str], warm_up: int) -> None:
        self.latencies_seconds: list[float] = []
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.all_seen = asyncio.Event()
        self._shown = {item.sku: item.available for item in snapshot.items}
        self._cursor = snapshot.cursor
        self._unseen: defaultdict[str, deque[tuple[int, float]]] = defaultdict(deque)
        self._unseen_count = 0
        self._skus, self._warm_up = skus, warm_up
        self._messages = reservation_messages(skus)
        self._idle: deque[Connection] = deque()
        self._queued: deque[tuple[bytes, float]] = deque()

    async def connect(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(
                lambda: Connection(self._answered, self._fail), "127.0.0.1", port
            )
            self._idle.append(connection)

    async def sell(self, count: int, per_second: float, key_prefix: str) -> None:
        """Sell `count` units, one after the other, each when it is due."""
        begun_at = time.perf_counter()
        for number in range(count):
            due_at = begun_at + number / per_second
            if (early := due_at - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            place = number % len(self._skus)
            before, after = self._messages[place]
            self._unseen[self._skus[place]].append((number, due_at))
            self._unseen_count += 1
            self._queued.append(
                (b"%s%s-%d%s" % (before, key_prefix.encode(), number, after), due_at)
            )
            self._send_queued()

    async def await_all_seen(self) -> None:
        """Wait until an event has told of every sale."""
        self.all_seen.clear()
        if self._unseen_count == 0:
            return
        try:
            await asyncio.wait_for(self.all_seen.wait(), SEEN_SECONDS)
        except TimeoutError:
            raise LoadFailed(f"{self._unseen_count} sales never came as a delta.") from None

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    async def follow(self, client: httpx.AsyncClient, ready: asyncio.Event) -> None:
        """Read events until cancelled."""
        query = {"cursor": str(self._cursor)}
        async with client.stream("GET", "/v1/channels/web/deltas", params=query) as answer:
            if answer.status_code != httpx.codes.OK:
                raise LoadFailed(f"The stream had status {answer.status_code}.")
            async for line in answer.aiter_lines():
                ready.set()
                if line.startswith(_ID):
                    self._note_id(int(line.removeprefix(_ID)))
                elif line.startswith(_DATA):
                    self._note_event(msgspec.json.decode(line.removeprefix(_DATA), type=_Item))
        raise LoadFailed("The stream of deltas ended.")

    def _note_id(self, number: int) -> None:
        if number != self._cursor + 1:
            raise LoadFailed(f"Delta {number} came after {self._cursor}.")
        self._cursor = number

    def _note_event(self, item: _Item) -> None:
        now = time.perf_counter()
        unseen = self._unseen[item.sku]
        # An event may tell of several sales of its SKU: it has the newest figure.
        for _ in range(self._shown[item.sku] - item.available):
            number, due_at = unseen.popleft()
            self._unseen_count -= 1
            if number >= self._warm_up:
                self.latencies_seconds.append(now - due_at)
        self._shown[item.sku] = item.available
        if self._unseen_count == 0:
            self.all_seen.set()

    def _send_queued(self) -> None:
        while self._queued and self._idle:
            self._idle.popleft().send(*self._queued.popleft())

    def _answered(self, connection: Connection, status: int, _now: float) -> None:
        if status != CREATED:
            self._fail(LoadFailed(f"A sale had status {status}."))
        self._idle.append(connection)
        self._send_queued()

    def _fail(self, error: Exception) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)


def measure(settings: Settings) -> list[Figure]:
    """Sell, and listen."""
    skus = [f"SKU-{number:06d}" for number in range(settings.skus)]
    with (
        running_service() as service,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        load_catalogue(service, dict.fromkeys(skus, OPENING_UNITS))
        runs = [runner.run(_run(settings, service, skus, run)) for run in range(settings.runs)]
    return latency_figures(
        f"sale to delta over SSE, {settings.changes_per_second:,.0f} changes/s",
        runs,
        p99=Target("at most", 50),
    )


async def _run(settings: Settings, service: Running, skus: list[str], run: int) -> list[float]:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{service.port}",
        headers={"authorization": f"Bearer {KEY}"},
        timeout=httpx.Timeout(30.0),
        trust_env=False,
    ) as client:
        found = await client.get("/v1/channels/web/snapshot")
        if found.status_code != httpx.codes.OK:
            raise LoadFailed(f"The snapshot had status {found.status_code}.")
        snapshot = msgspec.json.decode(found.content, type=_Snapshot)
        warm_up = int(settings.warm_up_seconds * settings.changes_per_second)
        sales = _Sales(snapshot, skus, warm_up)
        await sales.connect(service.port)
        ready = asyncio.Event()
        following = asyncio.create_task(sales.follow(client, ready))
        try:
            await _first(ready.wait(), following, sales.failed)
            await _first(_sell(sales, settings, warm_up, run), following, sales.failed)
        finally:
            following.cancel()
            sales.close()
            await asyncio.gather(following, return_exceptions=True)
    return sales.latencies_seconds


async def _sell(sales: _Sales, settings: Settings, warm_up: int, run: int) -> None:
    rate = settings.changes_per_second
    await sales.sell(warm_up + int(settings.seconds * rate), rate, f"bench-delta-{run}")
    await sales.await_all_seen()


async def _first(work: Any, *faults: asyncio.Future[None]) -> None:
    """Wait for the work, unless one of the others breaks first."""
    working = asyncio.ensure_future(work)
    await asyncio.wait({working, *faults}, return_when=asyncio.FIRST_COMPLETED)
    for fault in faults:
        if fault.done():
            working.cancel()
            fault.result()
    await working
