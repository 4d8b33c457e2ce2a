"""The number of availability calls a second.

Workload design. Closed loop, 64 connections, 20 SKUs a call drawn at random out of 1,000, 2,000 different calls.
One channel that sells from two locations. Nothing is sold meanwhile, so every figure is answered from memory
after its first call (the warm-up).
"""

import random

from benchmarks.figures import Figure, Settings, Target, rate_figures
from benchmarks.load import Plan, run_plan
from benchmarks.messages import message
from benchmarks.running import UNITS_PLENTY, load_catalogue, running_service

SKUS_PER_CALL = 20
CALLS = 2_000


def measure(settings: Settings) -> list[Figure]:
    """Ask what is available."""
    skus = [f"SKU-{number:06d}" for number in range(settings.skus)]
    generator = random.Random(1)
    calls = [
        message("GET", "/v1/availability?channel=web&sku=" + "&sku=".join(chosen))
        for chosen in (generator.sample(skus, min(SKUS_PER_CALL, len(skus))) for _ in range(CALLS))
    ]
    with running_service() as service:
        load_catalogue(service, dict.fromkeys(skus, UNITS_PLENTY))
        reports = [
            run_plan(
                Plan(
                    port=service.port,
                    templates=calls,
                    expected=[200],
                    connections=settings.connections,
                    seconds=settings.seconds,
                    warm_up_seconds=settings.warm_up_seconds,
                    seed=run,
                )
            )
            for run in range(settings.runs)
        ]
    return rate_figures(
        f"availability, {SKUS_PER_CALL} SKUs a call, {settings.connections} connections",
        reports,
        rate=Target("at least", 8_000),
    )
