"""The number of durable decisions a second that the engine makes without HTTP.

Workload design. 512 coroutines in one process ask the pipeline for one reservation of one unit after the other,
drawn at random out of 1,000 SKUs with plenty of stock, so that batches are as large as the pipeline makes them
(64 or more are required). A decision counts when it is durable in the ledger. The coroutines share the process
and its lock with the engine, and the machine with Redis and PostgreSQL. Afterwards the ledger is counted.
"""

import asyncio
import random
import time

import uvloop
from msgspec import Struct

from allocation.commands import Reserve, Wanted
from allocation.outcomes import Outcome
from benchmarks.engine_alone import Addresses, Engine, own_servers, running_engine
from benchmarks.figures import Figure, Settings, Target, figure, latency_figures
from benchmarks.load import LoadFailed
from benchmarks.running import UNITS_PLENTY

BATCH_COMMANDS_MIN = 64
TTL_MS = 900_000


class _Run(Struct, frozen=True):
    per_second: float
    commands_per_batch: float
    latencies_seconds: list[float]


class _Measured(Struct):
    """What the coroutines of one run have done between them."""

    run: int
    begun_at: float
    stop_at: float
    acknowledged: int
    latencies_seconds: list[float]


def measure(settings: Settings) -> list[Figure]:
    """Keep the pipeline full."""
    with (
        own_servers() as addresses,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runs = runner.run(_measure(settings, addresses))
    measured = sum(len(run.latencies_seconds) for run in runs)
    question = f"engine without HTTP, {settings.engine_submitters} submitters"
    return [
        figure(
            f"{question}, durable decisions",
            "/s",
            [run.per_second for run in runs],
            measured,
            Target("at least", 60_000),
        ),
        figure(f"{question}, batch", "commands", [r.commands_per_batch for r in runs], measured),
        *latency_figures(question, [run.latencies_seconds for run in runs]),
    ]


async def _measure(settings: Settings, addresses: Addresses) -> list[_Run]:
    skus = [f"SKU-{number:06d}" for number in range(settings.skus)]
    async with running_engine(addresses) as engine:
        await engine.load_catalogue(skus, UNITS_PLENTY)
        return [await _run(settings, engine, skus, run) for run in range(settings.runs)]


async def _run(settings: Settings, engine: Engine, skus: list[str], number: int) -> _Run:
    rows_before, calls_before = await engine.ledger_rows(), await _calls(engine)
    now = time.perf_counter()
    begun_at = now + settings.warm_up_seconds
    measured = _Measured(number, begun_at, begun_at + settings.seconds, 0, [])
    await asyncio.gather(
        *(_submit_until(measured, engine, skus, one) for one in range(settings.engine_submitters))
    )
    calls, rows = await _calls(engine) - calls_before, await engine.ledger_rows() - rows_before
    if rows != measured.acknowledged:
        raise LoadFailed(f"The ledger has {rows:,}, acknowledged were {measured.acknowledged:,}.")
    commands_per_batch = measured.acknowledged / calls
    if settings.engine_submitters >= 2 * BATCH_COMMANDS_MIN > 2 * commands_per_batch:
        raise LoadFailed(f"Batches had {commands_per_batch:.0f} commands only.")
    latencies = measured.latencies_seconds
    return _Run(len(latencies) / settings.seconds, commands_per_batch, latencies)


async def _submit_until(
    measured: _Measured, engine: Engine, skus: list[str], submitter: int
) -> None:
    chosen = random.Random(f"{measured.run} {submitter}").choices(skus, k=512)
    number = 0
    while (asked_at := time.perf_counter()) < measured.stop_at:
        decision = await engine.pipeline.submit(
            Reserve(
                f"bench-{measured.run:04x}-{submitter:08x}-{number:016x}",
                "0123456789abcdefghij",
                "web",
                TTL_MS,
                False,  # noqa: FBT003
                "",
                (Wanted(chosen[number % len(chosen)], 1),),
            )
        )
        if decision.outcome is not Outcome.HELD:
            raise LoadFailed(f"A reservation came to {decision.outcome.name}.")
        number += 1
        measured.acknowledged += 1
        answered_at = time.perf_counter()
        if measured.begun_at <= answered_at < measured.stop_at:
            measured.latencies_seconds.append(answered_at - asked_at)


async def _calls(engine: Engine) -> int:
    statistics = await engine.redis.info("commandstats")
    return int(statistics["cmdstat_fcall"]["calls"])
