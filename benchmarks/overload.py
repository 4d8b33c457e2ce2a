"""What is still sold when three times as much is asked for as can be done.

Workload design. First the peak: closed loop, 64 connections, 1,000 SKUs. Then an open loop at three times that
rate over 4,096 connections, so that far more requests are in the service at once than it can answer soon; what is
refused early (429, 503) is not repeated. Goodput is the number of reservations a second that were acknowledged,
until the last answer; its share of the peak is taken within each run, and the ledger is counted after each.
"""

import time

from benchmarks.figures import Figure, Settings, Target, figure
from benchmarks.load import Plan, Report
from benchmarks.messages import reservation_messages
from benchmarks.reserve import reserve_durably
from benchmarks.running import UNITS_PLENTY, Running, load_catalogue, running_service

TIMES_THE_PEAK = 3.0
CONNECTIONS = 4_096
HELD, TOO_MANY, UNAVAILABLE = 201, 429, 503


def measure(settings: Settings) -> list[Figure]:
    """Take the peak, then ask for three times as much."""
    skus = [f"SKU-{number:06d}" for number in range(settings.skus)]
    peaks: list[Report] = []
    overloaded: list[Report] = []
    with running_service() as service:
        load_catalogue(service, dict.fromkeys(skus, UNITS_PLENTY))
        for run in range(settings.runs):
            peaks.append(_peak(settings, service, skus, run))
            overloaded.append(_overload(settings, service, skus, run, peaks[-1].per_second))
    asked = sum(report.answers for report in overloaded)
    goodputs = [_goodput(report) for report in overloaded]
    shares = [good / peak.per_second for good, peak in zip(goodputs, peaks, strict=True)]
    refused = [1 - report.statuses.get(HELD, 0) / report.answers for report in overloaded]
    return [
        figure("overload: peak before it", "/s", [p.per_second for p in peaks], asked),
        figure("overload: reservations held at three times the peak", "/s", goodputs, asked),
        figure("overload: share of the peak", "", shares, asked, Target("at least", 0.8)),
        figure("overload: share of requests refused early", "", refused, asked),
    ]


def _peak(settings: Settings, service: Running, skus: list[str], run: int) -> Report:
    return reserve_durably(
        service,
        Plan(
            port=service.port,
            templates=reservation_messages(skus),
            expected=[HELD],
            key_prefix=f"bench-peak-{run}-{time.time_ns():x}",
            connections=settings.connections,
            seconds=settings.seconds,
            warm_up_seconds=settings.warm_up_seconds,
            seed=run,
        ),
    )


def _overload(
    settings: Settings, service: Running, skus: list[str], run: int, peak: float
) -> Report:
    return reserve_durably(
        service,
        Plan(
            port=service.port,
            templates=reservation_messages(skus),
            expected=[HELD, TOO_MANY, UNAVAILABLE],
            mode="open",
            requests_per_second=TIMES_THE_PEAK * peak,
            key_prefix=f"bench-overload-{run}-{time.time_ns():x}",
            connections=CONNECTIONS,
            seconds=settings.seconds,
            warm_up_seconds=settings.warm_up_seconds,
            seed=run,
        ),
    )


def _goodput(report: Report) -> float:
    """Give the reservations that were held a second, over the whole time until the last answer."""
    return report.statuses.get(HELD, 0) / report.all_seconds
