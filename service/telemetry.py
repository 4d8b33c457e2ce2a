"""What operators can watch: the metrics of one process."""

import os
import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from allocation.gate.redis_gate import RedisGate
from allocation.outcomes import Outcome
from allocation.pipeline import Pipeline
from service.feed import Feed

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class PipelineCollector(Collector):
    """Reads the pipeline when it is scraped; nothing is counted twice on the way of a request."""

    def __init__(self, pipeline: Pipeline, gate: RedisGate, feed: Feed) -> None:
        self._pipeline, self._gate, self._feed = pipeline, gate, feed
        self._started = time.time()

    def collect(self) -> Iterable[Metric]:
        """Give every metric as it is now."""
        pipeline = self._pipeline
        decisions = CounterMetricFamily(
            "ringfence_decisions", "Commands decided, by outcome.", labels=["outcome"]
        )
        for outcome, count in sorted(pipeline.decisions.items()):
            decisions.add_metric([Outcome(outcome).name.lower()], count)
        yield decisions
        answering = GaugeMetricFamily(
            "ringfence_process", "Always 1; the label says which process answers.", labels=["pid"]
        )
        answering.add_metric([str(os.getpid())], 1)
        yield answering
        for name, text, value in (
            (
                "gate_verified",
                "1 while the gate is verified.",
                float(pipeline.verified is not None),
            ),
            ("waiting_commands", "Commands that wait for a decision.", pipeline.waiting),
            (
                "ledger_lag_seconds",
                "How long the oldest decision has waited to be durable.",
                pipeline.ledger_lag_seconds,
            ),
            ("durable_sequence", "Where the ledger ends.", pipeline.durable_sequence),
            (
                "gate_clock_offset_seconds",
                "By how much the clock of Redis differs from the time that this process expects.",
                self._gate.clock.offset_ms / 1_000,
            ),
            ("feed_sequence", "How far followers have been served.", self._feed.sequence),
        ):
            yield GaugeMetricFamily(f"ringfence_{name}", text, value=value)
        yield CounterMetricFamily(
            "ringfence_take_overs", "Times this process took the shard over.", pipeline.take_overs
        )


class Telemetry:
    """The registry of one process."""

    def __init__(self, pipeline: Pipeline, gate: RedisGate, feed: Feed) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(PipelineCollector(pipeline, gate, feed))

    def page(self) -> bytes:
        """Give the metrics in Prometheus' text format."""
        return generate_latest(self.registry)
