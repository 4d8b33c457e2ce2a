"""What operators can watch: the metrics of one process."""

import os
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from allocation.outcomes import Outcome
from service.deltas.sources import Source, Sources

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class PipelineCollector(Collector):
    """Reads the pipelines when it is scraped; nothing is counted twice on the way of a request."""

    def __init__(self, shards: Sources) -> None:
        self._shards = shards

    def collect(self) -> Iterable[Metric]:
        """Give every metric as it is now."""
        decisions = CounterMetricFamily(
            "ringfence_decisions", "Commands decided, by outcome.", labels=["shard", "outcome"]
        )
        answering = GaugeMetricFamily(
            "ringfence_process", "Always 1; the label says which process answers.", labels=["pid"]
        )
        answering.add_metric([str(os.getpid())], 1)
        take_overs = CounterMetricFamily(
            "ringfence_take_overs", "Times this process took the shard over.", labels=["shard"]
        )
        gauges = {
            name: GaugeMetricFamily(f"ringfence_{name}", text, labels=["shard"])
            for name, text in _GAUGES.items()
        }
        for number, shard in enumerate(self._shards):
            for outcome, count in sorted(shard.pipeline.decisions.items()):
                decisions.add_metric([str(number), Outcome(outcome).name.lower()], count)
            take_overs.add_metric([str(number)], shard.pipeline.take_overs)
            for name, value in _values(shard).items():
                gauges[name].add_metric([str(number)], value)
        return answering, decisions, take_overs, *gauges.values()


_GAUGES = {
    "gate_verified": "1 while the gate is verified.",
    "waiting_commands": "Commands that wait for a decision.",
    "ledger_lag_seconds": "How long the oldest decision has waited to be durable.",
    "durable_sequence": "Where the ledger ends.",
    "gate_clock_offset_seconds": (
        "By how much the clock of Redis differs from the time that this process expects."
    ),
    "feed_sequence": "How far followers have been served.",
}


def _values(shard: Source) -> dict[str, float]:
    return {
        "gate_verified": float(shard.pipeline.verified is not None),
        "waiting_commands": shard.pipeline.waiting,
        "ledger_lag_seconds": shard.pipeline.ledger_lag_seconds,
        "durable_sequence": shard.pipeline.durable_sequence,
        "gate_clock_offset_seconds": shard.gate.clock.offset_ms / 1_000,
        "feed_sequence": shard.feed.sequence,
    }


class Telemetry:
    """The registry of one process."""

    def __init__(self, shards: Sources) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(PipelineCollector(shards))

    def page(self) -> bytes:
        """Give the metrics in Prometheus' text format."""
        return generate_latest(self.registry)
