"""The time of one reservation when nothing else is going on.

Workload design. Closed loop, one connection, 1,000 SKUs with plenty of stock, every request its own key. There
is never more than one request in the service, so no batch and no group commit helps: each answer waits for one
call to the gate and one flush of the ledger to disk.
"""

import time

from benchmarks.figures import Figure, Settings, Target, latency_figures
from benchmarks.load import Plan
from benchmarks.messages import reservation_messages
from benchmarks.reserve import reserve_durably
from benchmarks.running import UNITS_PLENTY, load_catalogue, running_service


def measure(settings: Settings) -> list[Figure]:
    """Reserve one at a time."""
    skus = [f"SKU-{number:06d}" for number in range(settings.skus)]
    with running_service() as service:
        load_catalogue(service, dict.fromkeys(skus, UNITS_PLENTY))
        reports = [
            reserve_durably(
                service,
                Plan(
                    port=service.port,
                    templates=reservation_messages(skus),
                    expected=[201],
                    key_prefix=f"bench-single-{run}-{time.time_ns():x}",
                    connections=1,
                    seconds=settings.seconds,
                    warm_up_seconds=settings.warm_up_seconds,
                    seed=run,
                ),
            )
            for run in range(settings.runs)
        ]
    return latency_figures(
        "reserve, one connection, one at a time",
        [report.latencies_seconds for report in reports],
        p50=Target("at most", 2),
    )
