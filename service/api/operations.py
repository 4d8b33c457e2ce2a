"""For operators: is it alive, is it ready, how is it doing."""

from litestar import Controller, Response, get
from msgspec import Struct

from allocation.errors import LedgerRewound
from allocation.pipeline import Pipeline
from service.engine import Engine
from service.telemetry import CONTENT_TYPE, Telemetry

VERIFIED = "verified"


class Health(Struct, frozen=True):
    """Whether the service can do its work, and if not, why."""

    status: str
    gate: str
    ledger: str


class OperationsController(Controller):
    """Health and metrics; without a key, and without anything that a stranger should not see."""

    path = "/"
    tags = ("Operations",)

    @get("/health/live", sync_to_thread=False)
    def live(self) -> dict[str, str]:
        """Say that the process runs."""
        return {"status": "live"}

    @get("/health/ready", sync_to_thread=False)
    def ready(self, engine: Engine) -> Response[Health]:
        """Say whether reservations are decided and made durable, on every shard."""
        gates = sorted({_gate(shard.pipeline) for shard in engine.shards} - {VERIFIED})
        ready = engine.timely and not gates
        health = Health(
            "ready" if ready else "not ready",
            gates[0] if gates else VERIFIED,
            "timely" if engine.timely else "behind",
        )
        return Response(health, status_code=200 if ready else 503)

    @get("/metrics", sync_to_thread=False)
    def metrics(self, telemetry: Telemetry) -> Response[bytes]:
        """Give the metrics in Prometheus' text format."""
        return Response(telemetry.page(), media_type=CONTENT_TYPE)


def _gate(pipeline: Pipeline) -> str:
    if pipeline.verified is not None:
        return VERIFIED
    return "ledger rewound" if isinstance(pipeline.closed_by, LedgerRewound) else "unverified"
