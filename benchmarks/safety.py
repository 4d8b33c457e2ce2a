"""What it costs that nothing is lost: the service against itself before that was built, and the fence by itself.

Workload design. As `reserve.py`: closed loop, 64 connections, one line of one unit a request out of 1,000 SKUs,
answers durable, the ledger counted after each serving. Two services run on one Redis and one PostgreSQL, each on a
database of its own in both: this checkout with all that it does (its watch runs beside it, and its CPU counts),
and the commit before take-overs looked for lost entries, before checkpoints, the watch and the bounded clock. The
turns go A B B A, so that a machine that gets slower meets both alike; a ratio is the median of the ratios within
pairs. The first turn of each is not counted.

The fence has a question of its own, see `fence.py`.
"""

import asyncio
import contextlib
import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
from msgspec import Struct

from allocation.ledger.queries import named_queries
from benchmarks import fence
from benchmarks.engine_alone import Addresses, own_servers
from benchmarks.figures import Figure, Settings, figure, percentile, rate_figures
from benchmarks.load import LoadFailed, Report
from benchmarks.reserve import Serving, serve
from benchmarks.running import (
    ROOT,
    UNITS_PLENTY,
    Running,
    load_catalogue,
    open_folder,
    running_on,
)

BEFORE = "328980c22e074f7e2ae37982414bc2bb2f28ac02"
LOCK = "requirements.lock"
BEFORE_DATABASE = "before"


class Turn(Struct, frozen=True):
    """One serving: what came of it, and the CPU that the service took for it."""

    report: Report
    cpu_seconds: float

    def latency_ms(self, share: float) -> float:
        return 1e3 * percentile(self.report.latencies_seconds, share)

    @property
    def cpu_microseconds(self) -> float:
        return 1e6 * self.cpu_seconds / self.report.answers


_COMPARED: dict[str, Callable[[Turn], float]] = {
    "reservations a second": lambda turn: turn.report.per_second,
    "p50": lambda turn: turn.latency_ms(0.50),
    "p99": lambda turn: turn.latency_ms(0.99),
    "CPU for one reservation": lambda turn: turn.cpu_microseconds,
}


def measure(settings: Settings) -> list[Figure]:
    """Take turns with the state before, and time the fence."""
    with _tree_before() as tree, own_servers() as addresses:
        same_packages = (tree / LOCK).read_bytes() == (ROOT / LOCK).read_bytes()
        with (
            _serving(ROOT, tree.parent / "of-now", addresses) as now,
            _serving(tree, tree.parent / "of-before", _databases_before(addresses)) as before,
        ):
            # What its watch costs to start is no cost of a reservation.
            now.await_idle_child()
            turns = _take_turns(settings, {"now": now, "before": before})
        fenced = fence.figures(settings, addresses)
    return [*figures(settings, turns["now"], turns["before"], same_packages=same_packages), *fenced]


def figures(
    settings: Settings, now: Sequence[Turn], before: Sequence[Turn], *, same_packages: bool
) -> list[Figure]:
    """Give both sides and their ratios; the turns at one place of `now` and `before` are a pair."""
    question = f"reserve, {settings.connections} connections"
    packages = "" if same_packages else f" (its {LOCK} differs)"
    answers = sum(turn.report.answers for turn in (*now, *before))
    return [
        *_side(f"{question}, now", now),
        *_side(f"{question}, before{packages}", before),
        *(
            figure(
                f"now ÷ before: {name}",
                "",
                [of(after) / of(earlier) for after, earlier in zip(now, before, strict=True)],
                answers,
            )
            for name, of in _COMPARED.items()
        ),
    ]


def _side(question: str, turns: Sequence[Turn]) -> list[Figure]:
    answers = sum(turn.report.answers for turn in turns)
    cpu = [turn.cpu_microseconds for turn in turns]
    return [
        *rate_figures(question, [turn.report for turn in turns]),
        figure(f"{question}: CPU of the service for one reservation", "us", cpu, answers),
    ]


def _take_turns(settings: Settings, services: dict[str, Running]) -> dict[str, list[Turn]]:
    skus = [f"SKU-{number:06d}" for number in range(settings.skus)]
    for service in services.values():
        load_catalogue(service, dict.fromkeys(skus, UNITS_PLENTY))
    turns: dict[str, list[Turn]] = {name: [] for name in services}
    for run in range(settings.runs + 1):
        for name in list(services)[:: 1 if run % 2 == 0 else -1]:
            service = services[name]
            cpu_before = service.cpu_seconds_with_children()
            report = serve(settings, service, Serving("spread", skus, 201), run)
            turns[name].append(Turn(report, service.cpu_seconds_with_children() - cpu_before))
    return {name: each[1:] for name, each in turns.items()}


@contextlib.contextmanager
def _serving(tree: Path, data_dir: Path, addresses: Addresses) -> Iterator[Running]:
    with running_on(tree, data_dir, addresses.redis_url, addresses.database_url) as service:
        yield service


@contextlib.contextmanager
def _tree_before() -> Iterator[Path]:
    """Write the files of the commit into a folder. Raises LoadFailed where the history is not there."""
    archived = subprocess.run(  # noqa: S603
        ["git", "archive", BEFORE],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if archived.returncode != 0:
        raise LoadFailed(
            f"The state before is commit {BEFORE[:7]}, and this checkout does not have it: the question needs a "
            f"clone with its whole history."
        )
    with open_folder() as folder:
        tree = folder / "before"
        with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as archive:
            archive.extractall(tree, filter="data")
        yield tree


def _databases_before(addresses: Addresses) -> Addresses:
    """Make databases of its own for the state before, on the same servers."""
    asyncio.run(_make_database(addresses.database_url))
    redis, postgres = urlsplit(addresses.redis_url), urlsplit(addresses.database_url)
    return Addresses(
        redis._replace(path="/1").geturl(), postgres._replace(path=f"/{BEFORE_DATABASE}").geturl()
    )


async def _make_database(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(named_queries("benchmarks")["make_database"])
    finally:
        await connection.close()
