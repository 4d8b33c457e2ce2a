"""Turns runs into figures: percentiles of one run, medians of several, and the table they are shown in."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from benchmarks.load import Report

MILLION = 1_000_000


class Settings(Struct, frozen=True, kw_only=True):
    """How much to measure."""

    runs: int = 5
    seconds: float = 3.0
    warm_up_seconds: float = 0.5
    connections: int = 64
    skus: int = 1_000
    engine_submitters: int = 512
    records: int = 100_000
    reservations: int = 100_000
    ledger_skus: int = 30_000
    ledger_entries: int = 300_000
    verified_skus: int = 100_000
    verified_entries: int = 360_000
    open_requests_per_second: float = 2_000.0
    changes_per_second: float = 200.0


class Target(Struct, frozen=True):
    """What a figure should be."""

    comparison: Literal["at least", "at most"]
    value: float

    def is_met(self, value: float) -> bool:
        return value >= self.value if self.comparison == "at least" else value <= self.value


class Figure(Struct, frozen=True, kw_only=True):
    """One line of the table: the median of `each`, and how many operations they rest on."""

    question: str
    value: float
    unit: str
    operations: int
    each: list[float]
    target: Target | None = None


def figure(
    question: str, unit: str, each: Sequence[float], operations: int, target: Target | None = None
) -> Figure:
    """Give the median of several runs as a figure."""
    return Figure(
        question=question,
        value=statistics.median(each),
        unit=unit,
        operations=operations,
        each=list(each),
        target=target,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Give the value that `share` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def rate_figures(
    question: str,
    reports: Sequence[Report],
    *,
    rate: Target | None = None,
    p50: Target | None = None,
    p99: Target | None = None,
) -> list[Figure]:
    """Give rate, p50 and p99 of the same runs."""
    operations = sum(report.measured for report in reports)
    return [
        figure(question, "/s", [report.per_second for report in reports], operations, rate),
        *latency_figures(question, [r.latencies_seconds for r in reports], p50=p50, p99=p99),
    ]


def latency_figures(
    question: str,
    runs: Sequence[Sequence[float]],
    *,
    p50: Target | None = None,
    p99: Target | None = None,
) -> list[Figure]:
    """Give p50 and p99 of runs in milliseconds."""
    operations = sum(len(run) for run in runs)
    return [
        figure(
            f"{question}: {name}", "ms", [percentile(r, share) * 1e3 for r in runs], operations, t
        )
        for name, share, t in (("p50", 0.50, p50), ("p99", 0.99, p99))
    ]


def row(entry: Figure) -> tuple[str, str, str, str, str]:
    """Give question, figure, range, N and target as the table has them."""
    target = verdict = ""
    if entry.target is not None:
        sign = "≥" if entry.target.comparison == "at least" else "≤"
        verdict = " met" if entry.target.is_met(entry.value) else " MISSED"
        target = f"{sign} {_number(entry.target.value)}{verdict}"
    spread = f"{_number(min(entry.each))} to {_number(max(entry.each))}"
    return (
        entry.question,
        f"{_number(entry.value)} {entry.unit}".strip(),
        spread,
        f"{entry.operations:,}",
        target,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"  # noqa: PLR2004
