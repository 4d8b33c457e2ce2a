"""What a run writes down in its end, whatever its services stood on."""

from collections.abc import Iterable
from typing import Any

from chaos.calling import Caller
from chaos.processes import Service


async def read_stock(
    caller: Caller, skus: Iterable[str], patience_seconds: float
) -> dict[str, Any] | None:
    """Give what one service tells of each SKU; None where it does not tell all of it."""
    found: dict[str, Any] = {}
    for sku in skus:
        try:
            answer = await caller.get(f"/v1/stock/{sku}", patience_seconds)
        except (OSError, TimeoutError):
            return None
        if answer.status != 200:
            return None
        found[sku] = answer.json
    return found


async def stop_all(services: Iterable[Service], started: float) -> dict[str, Any]:
    """Stop the services; give how each of its processes ended, in seconds since the start of the run."""
    services = list(services)
    return {
        "exit_statuses": {
            service.name: [*service.exit_statuses, await service.stop()] for service in services
        },
        "ended_by_themselves": {
            service.name: [
                known | {name: known[name] - started for name in ("started", "ended")}
                for known in service.ended_by_itself
            ]
            for service in services
        },
    }
