"""The benchmarks still run, and their load generator cannot mistake an error for a result."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from benchmarks import (
    availability,
    delta_latency,
    engine,
    fence,
    one_at_a_time,
    open_loop,
    rebuild,
    redis_memory,
    reserve,
    safety,
    service_memory,
    verification,
)
from benchmarks.engine_alone import Addresses
from benchmarks.figures import Figure, Settings, Target, percentile, row
from benchmarks.http_client import ProtocolBroken
from benchmarks.load import LoadFailed, Plan, Report, generate, run_plan
from benchmarks.messages import message, reservation_messages
from benchmarks.running import (
    UNITS_PLENTY,
    Running,
    load_catalogue,
    require_in_ledger,
    running_service,
)

TINY = Settings(
    runs=1,
    seconds=0.2,
    warm_up_seconds=0.05,
    connections=4,
    skus=10,
    engine_submitters=8,
    records=200,
    reservations=200,
    ledger_skus=50,
    ledger_entries=400,
    verified_skus=50,
    verified_entries=400,
    open_requests_per_second=100.0,
    changes_per_second=50.0,
)
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"
FAILED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
Answers = Callable[[int], list[bytes]]


class Answering(asyncio.Protocol):
    """Answers each request with what `answers` gives for it; an empty part closes the connection."""

    def __init__(self, server: "FakeServer") -> None:
        self.server = server
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.transports.append(transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if not end or len(body) < length:
            return
        self.received = b""
        self.server.requests.append(head)
        asyncio.get_running_loop().call_later(
            self.server.stall(), self.answer, len(self.server.requests)
        )

    def answer(self, number: int) -> None:
        for part in self.server.answers(number):
            if part and not self.transport.is_closing():
                self.transport.write(part)
            else:
                self.transport.close()


class FakeServer:
    """An HTTP server that answers as a test wants; `stall` says how long it waits with an answer."""

    def __init__(self, answers: Answers, stall: Callable[[], float]) -> None:
        self.answers, self.stall = answers, stall
        self.requests: list[bytes] = []
        self.transports: list[asyncio.Transport] = []
        self.port = 0


@asynccontextmanager
async def answering(
    answers: Answers, stall: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[FakeServer]:
    """Serve on a free port."""
    fake = FakeServer(answers, stall)
    server = await asyncio.get_running_loop().create_server(lambda: Answering(fake), "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        for transport in fake.transports:
            transport.abort()
        await server.wait_closed()
        await asyncio.sleep(0)


def plan(port: int, **changes: object) -> Plan:
    """Make a short plan of requests without a body."""
    made = Plan(
        port=port,
        templates=[message("GET", "/")],
        expected=[201],
        connections=2,
        seconds=0.1,
        warm_up_seconds=0.0,
    )
    return msgspec.structs.replace(made, **changes)


async def test_answers_are_counted_by_status() -> None:
    """Every answer is in the report under its status, and each measured one has its latency."""
    async with answering(lambda _number: [CREATED]) as server:
        report = await generate(
            plan(server.port, templates=[message("GET", "/")] * 50, mode="once")
        )
    assert report.statuses == {201: 50}
    assert report.measured == len(report.latencies_seconds) == 50


async def test_answer_in_pieces_is_one_answer() -> None:
    """An answer that arrives in pieces is counted once, when it is whole."""
    pieces = [CREATED[:9], CREATED[9:30], CREATED[30:-1], CREATED[-1:]]
    async with answering(lambda _number: pieces) as server:
        report = await generate(plan(server.port, templates=[message("GET", "/")] * 5, mode="once"))
    assert report.statuses == {201: 5}


@pytest.mark.parametrize("mode", ["closed", "open"])
async def test_unexpected_status_ends_the_run(mode: str) -> None:
    """One answer with another status than expected makes the whole run a failure."""
    async with answering(lambda number: [FAILED if number == 3 else CREATED]) as server:
        with pytest.raises(LoadFailed, match="503"):
            await generate(plan(server.port, mode=mode, requests_per_second=200.0))


@pytest.mark.parametrize(
    "parts", [[CREATED[:20], b""], [b""], [CREATED + CREATED], [b"HTTP/1.1 201 Created\r\n\r\n"]]
)
async def test_broken_answer_ends_the_run(parts: list[bytes]) -> None:
    """A closed connection, two answers for one request, or one without a length is a failure."""
    async with answering(lambda _number: parts) as server:
        with pytest.raises((ProtocolBroken, ConnectionError)):
            await generate(plan(server.port))


async def test_own_process_reports_and_fails_alike() -> None:
    """The load generator in a process of its own gives the same report, and the same failure."""
    async with answering(lambda _number: [CREATED]) as server:
        report = await asyncio.to_thread(run_plan, plan(server.port))
        assert set(report.statuses) == {201}
        with pytest.raises(LoadFailed):
            await asyncio.to_thread(run_plan, plan(server.port, expected=[200]))


async def test_stall_is_charged_to_the_requests_behind_it() -> None:
    """In the open loop a request that waits for a stalled server counts from when it was due."""
    stall_seconds = 0.2
    stalls = iter([stall_seconds])
    async with answering(lambda _number: [CREATED], lambda: next(stalls, 0.0)) as server:
        report = await generate(
            plan(server.port, mode="open", connections=1, requests_per_second=100.0, seconds=0.3)
        )
    assert report.statuses == {201: 30}
    behind = [latency for latency in report.latencies_seconds if latency > stall_seconds / 4]
    assert len(behind) >= 10


async def test_keys_are_never_repeated() -> None:
    """Every request of a plan with a key prefix has a key of its own."""
    async with answering(lambda _number: [CREATED]) as server:
        templates = reservation_messages(["A", "B"])
        await generate(plan(server.port, templates=templates, key_prefix="k"))
    keys = [head.partition(b"idempotency-key: ")[2] for head in server.requests]
    assert len(set(keys)) == len(keys) > 2
    assert all(key.startswith(b"k-") for key in keys)


def test_percentile_is_a_measured_value() -> None:
    """A percentile is the smallest measured value that so many do not exceed."""
    values = [float(number) for number in range(100, 0, -1)]
    assert (percentile(values, 0.50), percentile(values, 0.99)) == (50.0, 99.0)
    assert percentile([7.0], 0.99) == 7.0


def test_missed_target_is_shown() -> None:
    """The table says of each figure with a target whether it was met."""
    figure = Figure(
        question="q", value=9.0, unit="ms", operations=1, each=[9.0], target=Target("at most", 6)
    )
    assert "MISSED" in row(figure)[-1]
    assert "met" in row(msgspec.structs.replace(figure, value=5.0))[-1]


def turn(per_second: int, latency_ms: int, cpu_microseconds: int) -> safety.Turn:
    """Make what one serving of two seconds would tell, with as many answers in the warm-up again."""
    report = Report(
        statuses={201: 4 * per_second},
        measured=2 * per_second,
        seconds=2.0,
        all_seconds=4.0,
        latencies_seconds=[latency_ms / 1e3] * 2 * per_second,
        cpu_seconds=0.0,
    )
    return safety.Turn(report, 4e-6 * per_second * cpu_microseconds)


def test_cost_of_safety_is_the_median_of_pairs() -> None:
    """Both sides stand in the table, and each ratio is of turns that were taken side by side."""
    now = [turn(900, 12, 90), turn(300, 30, 80), turn(960, 11, 88)]
    before = [turn(1_000, 10, 80), turn(600, 15, 80), turn(1_000, 10, 80)]
    shown = {
        entry.question: row(entry)
        for entry in safety.figures(TINY, now, before, same_packages=True)
    }
    reserve_now, reserve_before = (f"reserve, 4 connections, {side}" for side in ("now", "before"))
    assert shown[reserve_now][1:4] == ("900 /s", "300 to 960", "4,320")
    assert shown[reserve_before][1:4] == ("1,000 /s", "600 to 1,000", "5,200")
    assert shown[f"{reserve_now}: p99"][1] == "12.00 ms"
    assert shown[f"{reserve_before}: CPU of the service for one reservation"][1] == "80.00 us"
    ratios = {name: cells[1:3] for name, cells in shown.items() if name.startswith("now ÷")}
    assert ratios == {
        "now ÷ before: reservations a second": ("0.90", "0.50 to 0.96"),
        "now ÷ before: p50": ("1.20", "1.10 to 2.00"),
        "now ÷ before: p99": ("1.20", "1.10 to 2.00"),
        "now ÷ before: CPU for one reservation": ("1.10", "1.00 to 1.12"),
    }


def test_other_packages_are_named() -> None:
    """Where the state before was made with other packages, the table says so."""
    questions = [
        entry.question
        for entry in safety.figures(TINY, [turn(9, 9, 9)], [turn(9, 9, 9)], same_packages=False)
    ]
    assert "reserve, 4 connections, before (its requirements.lock differs)" in questions


def test_checkout_without_history_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the commit to compare with is not there, one sentence says what is missing."""
    monkeypatch.setattr(safety, "BEFORE", "0" * 40)
    with pytest.raises(LoadFailed, match="clone with its whole history"):
        safety.measure(TINY)


def test_fence_is_timed(redis_url: str, database_url: str) -> None:
    """What the fence costs is the difference of both functions, pair by pair, for each size of batch."""
    figures = fence.figures(TINY, Addresses(redis_url, database_url))
    assert len(figures) == 3 * len(fence.BATCHES)
    for with_it, without, cost in zip(figures[::3], figures[1::3], figures[2::3], strict=True):
        assert cost.each == [a - b for a, b in zip(with_it.each, without.each, strict=True)]


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    """Give one service for all questions over HTTP."""
    with running_service() as running:
        yield running


@pytest.mark.parametrize(
    "question", [reserve, one_at_a_time, open_loop, availability, service_memory, delta_latency]
)
def test_question_over_http(
    question: object, service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question that is asked over HTTP gives figures of a tiny run."""
    monkeypatch.setattr(question, "running_service", lambda: contextlib.nullcontext(service))
    figures: list[Figure] = question.measure(TINY)
    assert figures
    assert all(figure.operations > 0 for figure in figures)


def test_acknowledged_but_absent_is_a_failure(service: Running) -> None:
    """A run whose acknowledged reservations are not all in the ledger is a failure."""
    load_catalogue(service, {"CHECKED": UNITS_PLENTY})
    report: Report = run_plan(
        plan(
            service.port,
            templates=reservation_messages(["CHECKED"]) * 10,
            mode="once",
            key_prefix="checked",
        )
    )
    require_in_ledger(service, "checked", report.statuses)
    with pytest.raises(LoadFailed, match="acknowledged"):
        require_in_ledger(service, "checked", {201: report.answers + 1})


@pytest.mark.parametrize("question", [engine, redis_memory, rebuild, verification])
def test_question_to_the_engine(
    question: object, redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question that is asked without HTTP gives figures of a tiny run."""
    addresses = Addresses(redis_url, database_url)
    monkeypatch.setattr(question, "own_servers", lambda: contextlib.nullcontext(addresses))
    figures: list[Figure] = question.measure(TINY)
    assert figures
    assert all(figure.operations > 0 for figure in figures)
