"""The service's memory over many reservations: is it flat.

Workload design. Closed loop, 64 connections, 1,000 SKUs, every request its own key, until the wanted number of
reservations is acknowledged (100,000; with --long 1,000,000). The resident size of the service's process (not of
Redis and PostgreSQL) is read ten times on the way. The growth is from the middle reading to the last.
"""

import sys

from benchmarks.figures import Figure, Settings, Target, figure
from benchmarks.load import Plan, run_plan
from benchmarks.messages import reservation_messages
from benchmarks.running import (
    UNITS_PLENTY,
    Running,
    load_catalogue,
    require_in_ledger,
    running_service,
)

READINGS = 10
MEGABYTE = 1_000_000
SIZE_MEGABYTES_MAX = 200.0
# A growth below this over half of all reservations is the allocator's, not a leak.
GROWTH_MEGABYTES_MAX = 10.0


def measure(settings: Settings) -> list[Figure]:
    """Reserve in ten parts, and read the memory after each."""
    skus = [f"SKU-{number:06d}" for number in range(settings.skus)]
    count = settings.reservations
    with running_service() as service:
        load_catalogue(service, dict.fromkeys(skus, UNITS_PLENTY))
        readings = [service.resident_bytes() / MEGABYTE]
        for part in range(READINGS):
            _reserve(service, skus, count // READINGS, part)
            readings.append(service.resident_bytes() / MEGABYTE)
    series = " ".join(f"{reading:.0f}" for reading in readings)
    sys.stderr.write(f"service memory, MB, after each tenth of {count:,}: {series}\n")
    growth = readings[-1] - readings[READINGS // 2]
    return [
        figure(
            f"service memory after {count:,} reservations",
            "MB",
            [readings[-1]],
            count,
            Target("at most", SIZE_MEGABYTES_MAX),
        ),
        figure("service memory, each reading", "MB", readings, count),
        figure(
            "service memory, growth over the second half",
            "MB",
            [growth],
            count // 2,
            Target("at most", GROWTH_MEGABYTES_MAX),
        ),
    ]


def _reserve(service: Running, skus: list[str], count: int, part: int) -> None:
    templates = reservation_messages(skus)
    key_prefix = f"bench-memory-{part}"
    report = run_plan(
        Plan(
            port=service.port,
            templates=[templates[number % len(templates)] for number in range(count)],
            expected=[201],
            key_prefix=key_prefix,
            mode="once",
            warm_up_seconds=0.0,
        )
    )
    require_in_ledger(service, key_prefix, report.statuses)
