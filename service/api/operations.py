"""For operators: is it alive, is it ready, how is it doing."""

from litestar import Controller, Response, get
from msgspec import Struct

from allocation.errors import LedgerRewound
from allocation.pipeline import Pipeline
from service.telemetry import CONTENT_TYPE, Telemetry


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
    def ready(self, pipeline: Pipeline) -> Response[Health]:
        """Say whether reservations are decided and made durable."""
        verified = pipeline.verified is not None
        timely = pipeline.ledger_lag_seconds <= pipeline.limits.ledger_lag_seconds_max
        health = Health(
            "ready" if verified and timely else "not ready",
            _gate(pipeline),
            "timely" if timely else "behind",
        )
        return Response(health, status_code=200 if verified and timely else 503)

    @get("/metrics", sync_to_thread=False)
    def metrics(self, telemetry: Telemetry) -> Response[bytes]:
        """Give the metrics in Prometheus' text format."""
        return Response(telemetry.page(), media_type=CONTENT_TYPE)


def _gate(pipeline: Pipeline) -> str:
    if pipeline.verified is not None:
        return "verified"
    return "ledger rewound" if isinstance(pipeline.closed_by, LedgerRewound) else "unverified"
