"""The number of reservations a second over HTTP, against a handler that does nothing.

Workload design. Closed loop, 64 connections, one line of one unit a request, ttl 900, every request its own
idempotency key, one admin key, answers durable. Three servings of the service, all on the same process:

  1,000 SKUs   each request takes one at random; plenty of stock
  one hot SKU  every request takes the same; plenty of stock
  sold out     every request takes one that has no units, and is refused (for information)

A fourth goes to the *empty* Litestar handler in a process of its own (see empty_handler.py). The four take
turns within each run, so that whatever else the machine does meets all of them. The ratios are medians of
the ratios within each run. After each serving the ledger is counted: every acknowledged decision is there,
and no other.
"""

import time
from collections import defaultdict

from msgspec import Struct

from benchmarks.figures import Figure, Settings, Target, figure, rate_figures
from benchmarks.load import Plan, Report, run_plan
from benchmarks.messages import reservation_messages
from benchmarks.running import (
    UNITS_PLENTY,
    Running,
    load_catalogue,
    require_in_ledger,
    running_empty_handler,
    running_service,
)

HOT, SOLD_OUT = "HOT-1", "SOLD-OUT-1"


class Serving(Struct, frozen=True):
    """Reservations of some SKUs, and the status that each must be answered with."""

    name: str
    skus: list[str]
    status: int


def measure(settings: Settings) -> list[Figure]:
    """Run all four servings in turns."""
    spread = [f"SKU-{number:06d}" for number in range(settings.skus)]
    servings = [
        Serving("spread", spread, 201),
        Serving("hot", [HOT], 201),
        Serving("sold out", [SOLD_OUT], 409),
    ]
    reports: defaultdict[str, list[Report]] = defaultdict(list)
    cpu_seconds: defaultdict[str, list[float]] = defaultdict(list)
    with running_service() as service, running_empty_handler() as empty_port:
        load_catalogue(service, dict.fromkeys([*spread, HOT], UNITS_PLENTY) | {SOLD_OUT: 0})
        for run in range(settings.runs):
            reports["empty"].append(_serve_empty(settings, empty_port, spread, run))
            for serving in servings:
                cpu_before = service.cpu_seconds()
                report = serve(settings, service, serving, run)
                reports[serving.name].append(report)
                cpu_seconds[serving.name].append(service.cpu_seconds() - cpu_before)
    return [*_figures(settings, reports), *_costs(reports["spread"], cpu_seconds["spread"])]


def reserve_durably(service: Running, plan: Plan) -> Report:
    """Carry a plan of reservations out, and count the ledger."""
    report = run_plan(plan)
    require_in_ledger(service, plan.key_prefix or "", report.statuses)
    return report


def serve(settings: Settings, service: Running, serving: Serving, run: int) -> Report:
    """Serve for as long as a run takes, and count the ledger."""
    return reserve_durably(
        service,
        Plan(
            port=service.port,
            templates=reservation_messages(serving.skus),
            expected=[serving.status],
            key_prefix=f"bench-{serving.name.replace(' ', '')}-{run}-{time.time_ns():x}",
            connections=settings.connections,
            seconds=settings.seconds,
            warm_up_seconds=settings.warm_up_seconds,
            seed=run,
        ),
    )


def _serve_empty(settings: Settings, port: int, skus: list[str], run: int) -> Report:
    return run_plan(
        Plan(
            port=port,
            templates=reservation_messages(skus, "/empty"),
            expected=[201],
            key_prefix=f"bench-empty-{run}",
            connections=settings.connections,
            seconds=settings.seconds,
            warm_up_seconds=settings.warm_up_seconds,
            seed=run,
        )
    )


def _figures(settings: Settings, reports: dict[str, list[Report]]) -> list[Figure]:
    many = f"reserve, {settings.connections} connections"
    spread = f"{many}, {settings.skus:,} SKUs"
    return [
        *rate_figures(
            spread,
            reports["spread"],
            rate=Target("at least", 12_000),
            p50=Target("at most", 6),
            p99=Target("at most", 30),
        ),
        *rate_figures("empty Litestar handler", reports["empty"]),
        _ratio(f"{spread} ÷ empty handler", reports["spread"], reports["empty"], 1.0),
        *rate_figures(f"{many}, one hot SKU", reports["hot"]),
        _ratio("one hot SKU ÷ many SKUs", reports["hot"], reports["spread"], 0.9),
        *rate_figures(f"{many}, one sold-out SKU (refusals)", reports["sold out"]),
    ]


def _costs(reports: list[Report], cpu_seconds: list[float]) -> list[Figure]:
    """Say what one reservation costs; other load on the machine moves these figures least."""
    answers = sum(report.answers for report in reports)
    service = [1e6 * spent / r.answers for r, spent in zip(reports, cpu_seconds, strict=True)]
    generator = [1e6 * report.cpu_seconds / report.answers for report in reports]
    return [
        figure("CPU of the service for one reservation", "us", service, answers),
        figure("CPU of the load generator for one reservation", "us", generator, answers),
    ]


def _ratio(question: str, above: list[Report], below: list[Report], at_least: float) -> Figure:
    return figure(
        question,
        "",
        [a.per_second / b.per_second for a, b in zip(above, below, strict=True)],
        sum(report.measured for report in above + below),
        Target("at least", at_least),
    )
