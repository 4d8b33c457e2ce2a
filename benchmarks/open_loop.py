"""The time of a reservation at a rate that the shop sets and the service does not.

Workload design. Open loop: requests are due at 2,000 a second, evenly, whatever the service does, over 64
connections. Latency counts from the moment a request was due, also when it had to wait in line for a free
connection: a stall of the service is charged to every request that was due meanwhile (no coordinated omission).
1,000 SKUs with plenty of stock, every request its own key.
"""

import time

from benchmarks.figures import Figure, Settings, Target, figure, latency_figures
from benchmarks.load import LoadFailed, Plan, Report
from benchmarks.messages import reservation_messages
from benchmarks.reserve import reserve_durably
from benchmarks.running import UNITS_PLENTY, load_catalogue, running_service

RATE_SHARE_MIN = 0.98


def measure(settings: Settings) -> list[Figure]:
    """Reserve at a fixed rate."""
    skus = [f"SKU-{number:06d}" for number in range(settings.skus)]
    rate = settings.open_requests_per_second
    with running_service() as service:
        load_catalogue(service, dict.fromkeys(skus, UNITS_PLENTY))
        reports = [
            reserve_durably(
                service,
                Plan(
                    port=service.port,
                    templates=reservation_messages(skus),
                    expected=[201],
                    mode="open",
                    requests_per_second=rate,
                    key_prefix=f"bench-open-{run}-{time.time_ns():x}",
                    connections=settings.connections,
                    seconds=settings.seconds,
                    warm_up_seconds=settings.warm_up_seconds,
                    seed=run,
                ),
            )
            for run in range(settings.runs)
        ]
    _require_rate(reports, rate)
    return [
        *latency_figures(
            f"reserve, open loop at {rate:,.0f}/s, from when it was due",
            [report.latencies_seconds for report in reports],
            p99=Target("at most", 10),
        ),
        figure("open loop: requests", "/s", [r.per_second for r in reports], _measured(reports)),
    ]


def _measured(reports: list[Report]) -> int:
    return sum(report.measured for report in reports)


def _require_rate(reports: list[Report], rate: float) -> None:
    for report in reports:
        if report.per_second < rate * RATE_SHARE_MIN:
            raise LoadFailed(f"Only {report.per_second:,.0f}/s of {rate:,.0f}/s were due and sent.")
